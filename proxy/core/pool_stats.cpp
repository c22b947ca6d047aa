// The averages of SHOW STATS; see pool_stats.hpp.
#include "proxy/core/pool_stats.hpp"

#include <limits>

namespace pgweir::core {

namespace {

/// Wide enough for a count of bytes times a million.
__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kSecondUs = 1'000'000;

std::uint64_t per_second(std::uint64_t count, std::uint64_t length_us) {
  if (length_us == 0) return 0;
  const Wide rate = Wide{count} * kSecondUs / length_us;
  constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();
  return rate > kMax ? kMax : static_cast<std::uint64_t>(rate);
}

std::uint64_t per_event(std::uint64_t time_us, std::uint64_t count) {
  return count == 0 ? 0 : time_us / count;
}

}  // namespace

PoolStats averages(const StatsPeriod& period) {
  const PoolStats counted = period.end - period.begin;
  PoolStats result;
  for (const auto field : kPoolStatsFields) result.*field = per_second(counted.*field, period.length_us);
  result.xact_time = per_event(counted.xact_time, counted.xact_count);
  result.query_time = per_event(counted.query_time, counted.query_count);
  result.wait_time = per_event(counted.wait_time, counted.server_assignment_count);
  return result;
}

}  // namespace pgweir::core
