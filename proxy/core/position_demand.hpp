// When hosts are asked for their positions before role_check_interval is over: because clients read from the primary
// only for want of knowing that a standby has replayed what they wrote. PositionDemand is a worker's side of it: it
// says when to ask, once per snapshot of the hosts at most, so that a read costs no message. ProbeRounds is the
// monitor's: it says when the next round of probes may begin. Nobody who reads, no probe; a standby that stands still
// is asked less and less often.
//
//     worker    read kept on the primary ─► wanted            snapshot: shown? else wanted again
//     monitor                        ask primary ─► ask standbys ─► snapshot       (20 ms from round to round)
#pragma once

#include <optional>

#include "router/host_table.hpp"
#include "router/time.hpp"

namespace pgweir::core {

/// Of one worker, for the hosts of one group. Each call that returns true asks for a round of probes.
class PositionDemand {
 public:
  /// A read goes to the primary because no standby is known to show what was written before it.
  [[nodiscard]] bool read_kept(router::TimePoint now);
  /// A write was acknowledged. Whether anybody is going to read it nobody knows; but where reads had to be kept a
  /// moment ago, the next one is not to find out first that it must.
  [[nodiscard]] bool write_acknowledged(router::TimePoint now);
  /// A new snapshot of the hosts.
  [[nodiscard]] bool table_came(const router::HostTable& table, router::TimePoint now);

 private:
  [[nodiscard]] bool ask();

  router::TimePoint wanted_until_ = router::kLongAgo;  // reads have been kept shortly before
  router::TimePoint last_write_ = router::kLongAgo;
  bool asked_ = false;  // since the last snapshot
};

/// Of the monitor, for one group.
class ProbeRounds {
 public:
  /// A round is asked for: the primary is to be probed after this time. nullopt: one is under way, and who asked sees
  /// what comes of it. `longest`: role_check_interval, for then the hosts are asked anyway.
  [[nodiscard]] std::optional<router::Duration> begin(const router::HostTable& table, router::TimePoint now,
                                                      router::Duration longest);
  /// True: it was asked for a round; the standbys are to follow at once.
  [[nodiscard]] bool primary_answered();
  void standby_answered();

 private:
  enum class Phase { Idle, Primary, Standbys };

  Phase phase_ = Phase::Idle;
  router::TimePoint began_ = router::kLongAgo;  // the last one, or its probe is to begin
  router::TimePoint shown_ = router::kLongAgo;  // up to which moment a standby showed everything then
  router::Duration pause_{0};
};

}  // namespace pgweir::core
