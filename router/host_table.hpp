// What is known of the hosts of one database at one moment: an immutable snapshot, made by HostTracker, read by
// Router on every worker without a lock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "router/lsn.hpp"
#include "router/time.hpp"

namespace pgweir::router {

/// Index into HostTable::hosts, in the order of the configuration.
enum class HostId : std::uint32_t {};

enum class HostRole : std::uint8_t { Unknown, Primary, Standby };

enum class HostHealth : std::uint8_t {
  Unknown,  ///< never answered: gets nothing
  Up,
  Down,    ///< its probes fail
  Fenced,  ///< says primary, but another one is, or was later; or is of another cluster: gets nothing
};

/// Why a host takes no reads as a standby.
enum class ReadRefusal : std::uint8_t {
  None,  ///< it does
  NoStandby,
  NotUp,
  Suspect,     ///< something was seen on the wire; wait for the next probe
  Timeline,    ///< it does not follow the primary's timeline
  LagUnknown,  ///< no primary has been seen yet, and not all hosts have been asked
  LagBytes,
  LagTime,
  Recovering,  ///< was down or behind a moment ago: hysteresis
};

struct HostState {
  std::string name;  ///< host:port, for people
  HostRole role = HostRole::Unknown;
  HostHealth health = HostHealth::Unknown;
  ReadRefusal refusal = ReadRefusal::NoStandby;
  std::uint32_t timeline = 0;
  Lsn insert_lsn;  ///< of a primary
  Lsn replay_lsn;  ///< of a standby
  std::uint64_t lag_bytes = 0;
  Duration lag{0};
  /// Of a standby: everything acknowledged by the primary before this moment has been replayed here. See
  /// ReadYourWrites.
  TimePoint caught_up_to = kLongAgo;
  TimePoint last_probe = kLongAgo;  ///< when its last answer came
  /// In words, why it gets less than it could: the last failure, what it is fenced for, why it takes no reads. Empty if
  /// there is nothing to say.
  std::string reason;

  [[nodiscard]] bool takes_reads() const { return refusal == ReadRefusal::None; }
};

/// What must not be forgotten of a cluster, or its past could be taken for the present.
struct KnownCluster {
  std::uint32_t timeline = 0;           ///< the highest on which any host ever took writes; 0: none was seen to
  std::uint64_t system_identifier = 0;  ///< of the first primary; 0: not known

  friend bool operator==(const KnownCluster&, const KnownCluster&) = default;
};

struct HostTable {
  std::uint64_t version = 0;  ///< of a later snapshot a higher one
  KnownCluster cluster;
  std::vector<HostState> hosts;
  std::optional<HostId> primary;  ///< the one that takes writes
  bool conflict = false;          ///< several say primary on one timeline and none was it before: nobody takes writes

  [[nodiscard]] const HostState& host(HostId id) const { return hosts[static_cast<std::size_t>(id)]; }
};

}  // namespace pgweir::router
