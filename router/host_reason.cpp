// What HostTracker says of a host in words, for the log and the console. It decides nothing.
#include "router/host_tracker.hpp"

namespace pgweir::router {

namespace {

std::string seconds_of(Duration time) {
  const auto tenths = time.count() / 100'000;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s";
}

}  // namespace

std::string HostTracker::reason_of(HostId id) const {
  const Host& host = at(id);
  if (!host.failure.empty()) return host.failure;
  switch (host.state.health) {
    case HostHealth::Unknown:
      return std::string(kNotAskedYet);
    case HostHealth::Down:
      return "does not answer";
    case HostHealth::Fenced:
      return fence_reason(id);
    case HostHealth::Up:
      break;
  }
  if (host.state.role == HostRole::Standby) return refusal_reason(host.state);
  if (host.state.role == HostRole::Primary) {
    return primary_ == id ? std::string() : "says primary, but not all hosts have been asked yet";
  }
  return "a server connection says it is a standby; waiting for the next answer";
}

std::string HostTracker::fence_reason(HostId id) const {
  const Host& host = at(id);
  if (is_stranger(host)) {
    return "belongs to another cluster: its system identifier is " + std::to_string(host.system_identifier) +
           ", that of the primary " + std::to_string(system_identifier_);
  }
  const std::string says = "says primary on timeline " + std::to_string(host.state.timeline);
  if (host.state.timeline < highest_timeline_) {
    return says + ", but timeline " + std::to_string(highest_timeline_) + " has taken writes";
  }
  if (primary_) return says + " beside " + at(*primary_).state.name;
  if (conflict_) return says + " beside others, and none of them was the primary before";
  return says + ", as it did beside another primary";
}

std::string HostTracker::refusal_reason(const HostState& state) const {
  switch (state.refusal) {
    case ReadRefusal::None:
    case ReadRefusal::NoStandby:
    case ReadRefusal::NotUp:
      return {};
    case ReadRefusal::Suspect:
      return "a server connection broke or contradicts; waiting for the next answer";
    case ReadRefusal::Timeline:
      return "is on timeline " + std::to_string(state.timeline) + ", the primary's is " +
             std::to_string(highest_timeline_);
    case ReadRefusal::LagUnknown:
      return "no primary has been seen yet to measure the lag by";
    case ReadRefusal::LagBytes:
      return "lags by " + std::to_string(state.lag_bytes) + " bytes, max_replica_lag_bytes is " +
             std::to_string(policy_.lag_bytes_max);
    case ReadRefusal::LagTime:
      return "lags by " + seconds_of(state.lag) + ", max_replica_lag_ms is " + seconds_of(policy_.lag_max);
    case ReadRefusal::Recovering:
      return "was down or behind a moment ago";
  }
  return {};
}

}  // namespace pgweir::router
