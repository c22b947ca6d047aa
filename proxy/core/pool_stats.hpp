// The counters behind SHOW STATS and the averages made from them. Decides the arithmetic only: who counts, when a
// period ends and which pools are summed up is the caller's business. Pure values, no time of their own; the
// units and the meaning of each counter are those of PgBouncer's SHOW STATS.
#pragma once

#include <array>
#include <cstdint>

namespace pgweir::core {

/// Counters of one pool, or the sum over several. Times are microseconds.
struct PoolStats {
  std::uint64_t server_assignment_count = 0;  ///< times a server was linked to a client
  std::uint64_t xact_count = 0;               ///< counted when the first query of the transaction starts
  std::uint64_t query_count = 0;              ///< counted at the start; queries overlapping in a pipeline are one
  std::uint64_t client_bytes = 0;             ///< "received": messages of clients after their login
  std::uint64_t server_bytes = 0;             ///< "sent": messages of servers after their login, hidden ones too
  std::uint64_t xact_time = 0;                ///< time spent in transactions
  std::uint64_t query_time = 0;               ///< time spent with a query running
  std::uint64_t wait_time = 0;                ///< time clients spent waiting for a server
  std::uint64_t client_parse_count = 0;       ///< named statements prepared by clients
  std::uint64_t server_parse_count = 0;       ///< named statements prepared on servers by us
  std::uint64_t bind_count = 0;               ///< named statements bound by clients
  std::uint64_t client_login_count = 0;       ///< completed client logins

  friend bool operator==(const PoolStats&, const PoolStats&) = default;
};

/// All counters in the order in which every SHOW command prints them.
inline constexpr std::array<std::uint64_t PoolStats::*, 12> kPoolStatsFields{
    &PoolStats::server_assignment_count,
    &PoolStats::xact_count,
    &PoolStats::query_count,
    &PoolStats::client_bytes,
    &PoolStats::server_bytes,
    &PoolStats::xact_time,
    &PoolStats::query_time,
    &PoolStats::wait_time,
    &PoolStats::client_parse_count,
    &PoolStats::server_parse_count,
    &PoolStats::bind_count,
    &PoolStats::client_login_count,
};

constexpr PoolStats& operator+=(PoolStats& left, const PoolStats& right) {
  for (const auto field : kPoolStatsFields) left.*field += right.*field;
  return left;
}

/// Where transactions of a routed database went, for SHOW ROUTES.
struct RouteStats {
  std::uint64_t reads_standby = 0;
  std::uint64_t reads_primary_no_standby = 0;        ///< no standby took reads
  std::uint64_t reads_primary_read_your_writes = 0;  ///< no standby showed the last write yet
  std::uint64_t reads_primary_other = 0;             ///< hints, what the session keeps there, retries
  std::uint64_t writes = 0;                          ///< whatever was not proven a read
  std::uint64_t retries = 0;                         ///< failed unseen by the client and ran again
  std::uint64_t learned = 0;                         ///< of those: a standby refused them, they are writes from then on

  RouteStats& operator+=(const RouteStats& other) {
    reads_standby += other.reads_standby;
    reads_primary_no_standby += other.reads_primary_no_standby;
    reads_primary_read_your_writes += other.reads_primary_read_your_writes;
    reads_primary_other += other.reads_primary_other;
    writes += other.writes;
    retries += other.retries;
    learned += other.learned;
    return *this;
  }
};

[[nodiscard]] constexpr PoolStats operator+(PoolStats left, const PoolStats& right) {
  left += right;
  return left;
}

/// What was counted between `before` and `now`. A counter never goes below zero: a pool that was freed takes its
/// counters along, so the sum over a database may have shrunk.
[[nodiscard]] constexpr PoolStats operator-(const PoolStats& now, const PoolStats& before) {
  PoolStats result;
  for (const auto field : kPoolStatsFields) {
    result.*field = now.*field > before.*field ? now.*field - before.*field : 0;
  }
  return result;
}

/// The last finished stats_period of a database. Before the first one has finished, all zero.
struct StatsPeriod {
  PoolStats begin;              ///< totals when it began
  PoolStats end;                ///< totals when it ended
  std::uint64_t length_us = 0;  ///< its real length; 0 makes all rates 0
};

/// Counts and bytes become rates per second, rounded down; xact_time is per transaction, query_time per query and
/// wait_time per server assignment of the period (0 if there was none).
[[nodiscard]] PoolStats averages(const StatsPeriod& period);

}  // namespace pgweir::core
