#include "proxy/core/position_demand.hpp"

#include <algorithm>
#include <utility>

namespace pgweir::core {

namespace {

/// So long after a read had to be kept on the primary, others are expected.
constexpr router::Duration kInterest{2'000'000};
/// From one round to the next while the standby keeps up. A probe costs a server about 0.1 ms.
constexpr router::Duration kShortestPause{20'000};

router::TimePoint newest_shown(const router::HostTable& table) {
  router::TimePoint newest = router::kLongAgo;
  for (const router::HostState& host : table.hosts) {
    if (host.takes_reads()) newest = std::max(newest, host.caught_up_to);
  }
  return newest;
}

}  // namespace

bool PositionDemand::ask() {
  return !std::exchange(asked_, true);
}

bool PositionDemand::read_kept(router::TimePoint now) {
  wanted_until_ = now + kInterest;
  return ask();
}

bool PositionDemand::write_acknowledged(router::TimePoint now) {
  last_write_ = std::max(last_write_, now);
  return now < wanted_until_ && ask();
}

bool PositionDemand::table_came(const router::HostTable& table, router::TimePoint now) {
  asked_ = false;
  return now < wanted_until_ && last_write_ >= newest_shown(table) && ask();
}

std::optional<router::Duration> ProbeRounds::begin(const router::HostTable& table, router::TimePoint now,
                                                   router::Duration longest) {
  // A host that does not answer must not end it for ever.
  if (phase_ != Phase::Idle && now < began_ + longest) return std::nullopt;
  const router::TimePoint shown = newest_shown(table);
  pause_ = shown > shown_ ? kShortestPause : std::min(pause_ * 2, longest);
  pause_ = std::max(pause_, kShortestPause);
  shown_ = shown;
  began_ = std::max(now, began_ + pause_);
  phase_ = Phase::Primary;
  return began_ - now;
}

bool ProbeRounds::primary_answered() {
  if (phase_ != Phase::Primary) return false;
  phase_ = Phase::Standbys;
  return true;
}

void ProbeRounds::standby_answered() {
  if (phase_ == Phase::Standbys) phase_ = Phase::Idle;
}

}  // namespace pgweir::core
