// Decides who is primary, and which standbys take reads, from what probes answer and what the wire lets slip. Pure: the
// prober in proxy/io asks, this says what the answers mean and whom to ask again at once.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "router/host_table.hpp"

namespace pgweir::router {

struct TrackerPolicy {
  std::uint64_t lag_bytes_max = 10485760;  ///< max_replica_lag_bytes
  Duration lag_max{5'000'000};             ///< max_replica_lag_ms
  int failures_to_down = 2;                ///< probes without an answer in a row; a refused connection counts at once
};

/// One row, the answer to one probe: in_recovery, timeline, insert, receive, replay, age in ms, system identifier (see
/// ProbeAnswer), size of a WAL page, size of a WAL segment. Needs
/// no privilege beyond CONNECT: without pg_monitor the receiver's timeline is hidden, and the one of the last
/// restartpoint serves, which is late after a promotion elsewhere.
[[nodiscard]] std::string_view probe_query();

struct ProbeAnswer {
  bool in_recovery = false;
  std::uint32_t timeline = 0;
  Lsn insert_lsn;                       ///< pg_current_wal_insert_lsn(), of a primary
  Lsn receive_lsn;                      ///< pg_last_wal_receive_lsn(), of a standby; 0 if it streams nothing
  Lsn replay_lsn;                       ///< pg_last_wal_replay_lsn(), of a standby
  std::optional<Duration> replay_age;   ///< now() - pg_last_xact_replay_timestamp(), of a standby
  std::uint64_t system_identifier = 0;  ///< of the cluster; 0 if not known. Hosts of another one get nothing
};

enum class ProbeFailure : std::uint8_t {
  Refused,  ///< the connection was refused, or 57P03: nobody is there
  Timeout,  ///< no answer within role_check_timeout, or the connection broke
  Busy,     ///< 53300: it lives, but has no connection left for the prober. What it was, it still is
};

/// What server connections tell beside their work.
enum class Witness : std::uint8_t {
  InHotStandby,     ///< ParameterStatus in_hot_standby = on
  NotInHotStandby,  ///< the same, off
  ConnectionLost,   ///< broke, or 57P01, 57P02; also the prober's own
  CannotConnect,    ///< 57P03, or the connection was refused
  ReadOnlyError,    ///< 25006
};

/// What a server says that tells of itself that it is `role`, which is not Unknown.
[[nodiscard]] constexpr Witness witness_of(HostRole role) {
  return role == HostRole::Standby ? Witness::InHotStandby : Witness::NotInHotStandby;
}

struct HostEvent {
  enum class Kind : std::uint8_t {
    PrimaryIs,    ///< host became the one that takes writes
    PrimaryLost,  ///< host no longer is, and no other took its place
    Fenced,       ///< host says primary on an older timeline or beside the primary, or is of another cluster
    Conflict,     ///< host is one of several that say primary on the same timeline, and none was it before
    Up,
    Down,
    ReadsOff,  ///< host, a standby, takes no more reads: see its refusal
    ReadsOn,
  };
  Kind kind;
  HostId host;

  friend bool operator==(const HostEvent&, const HostEvent&) = default;
};

/// The reason of a host that no probe has reached or failed to reach yet.
inline constexpr std::string_view kNotAskedYet = "not asked yet";

/// The hosts of one database (or of all databases with the same host list). Not thread-safe; its tables are.
class HostTracker {
 public:
  HostTracker(const std::vector<std::string>& names, TrackerPolicy policy);
  /// Before the first event: what a process before this one knew. While a primary of that timeline is silent, one of an
  /// older timeline would otherwise be taken for it.
  void remember(const KnownCluster& cluster);
  /// Counts from the next event on.
  void set_policy(TrackerPolicy policy) { policy_ = policy; }

  /// `sent_at`: read from the clock before the probe's query was sent, never after. Answers that overtook each other
  /// are dropped.
  void probe_answered(HostId host, const ProbeAnswer& answer, TimePoint sent_at, TimePoint now);
  /// `text`: what went wrong, for people.
  void probe_failed(HostId host, ProbeFailure failure, TimePoint sent_at, TimePoint now, std::string_view text = {});
  void witness(HostId host, Witness witness, TimePoint now);

  [[nodiscard]] std::shared_ptr<const HostTable> table() const { return table_; }
  /// Whom to probe now, without waiting for the interval; what was taken is forgotten.
  [[nodiscard]] std::vector<HostId> take_probe_requests();
  /// What changed, for the log.
  [[nodiscard]] std::vector<HostEvent> take_events();

 private:
  struct Host {
    HostState state;
    bool says_primary = false;
    std::uint32_t barred_timeline = 0;    // it was fenced as a primary of this one
    std::uint32_t followed_timeline = 0;  // the highest it told as a standby that surely did not restart meanwhile
    int failures = 0;
    bool suspect = false;
    TimePoint suspect_since = kLongAgo;
    TimePoint answered_at = kLongAgo;  // when the probe last answered was sent
    Lsn receive_lsn;
    std::optional<Duration> replay_age;
    std::uint64_t system_identifier = 0;
    int good_probes = 1;  // in a row; 0 when one failed
    std::string failure;  // of the last probe; empty once one is answered
  };
  struct Sample {
    TimePoint sent_at;
    Lsn lsn;
  };

  Host& at(HostId id) { return hosts_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const Host& at(HostId id) const { return hosts_[static_cast<std::size_t>(id)]; }
  void set_health(HostId id, HostHealth health);
  void request_probe(HostId id);
  void elect();
  [[nodiscard]] bool is_stranger(const Host& host) const;
  void fence_strangers();
  void sample_primary(HostId id, Lsn lsn, TimePoint sent_at);
  void make_room_for_sample(TimePoint now);
  void measure(Host& host, TimePoint now) const;
  [[nodiscard]] bool all_heard() const;
  [[nodiscard]] bool lag_is_known() const;
  [[nodiscard]] ReadRefusal judge(const Host& host) const;
  // host_reason.cpp
  [[nodiscard]] std::string reason_of(HostId id) const;
  [[nodiscard]] std::string fence_reason(HostId id) const;
  [[nodiscard]] std::string refusal_reason(const HostState& state) const;
  void publish(TimePoint now);

  TrackerPolicy policy_;
  std::vector<Host> hosts_;
  std::optional<HostId> primary_;
  bool conflict_ = false;
  bool elected_ = false;                 // there has been a primary
  std::uint64_t system_identifier_ = 0;  // that of the first primary
  std::uint32_t highest_timeline_ = 0;   // of any host that ever took writes; none below it ever will again
  std::deque<Sample> samples_;           // of the primary of the highest timeline, oldest first
  std::shared_ptr<const HostTable> table_;
  std::vector<HostId> probe_requests_;
  std::vector<HostEvent> events_;
};

}  // namespace pgweir::router
