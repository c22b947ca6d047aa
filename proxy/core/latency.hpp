// How long things took, as histograms: kept by each worker for itself, by (database, user, host, role), and joined when
// somebody looks. Decides only into which bucket a time goes and what a quantile is. Pure values.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "router/host_table.hpp"

#include "pool/time.hpp"

namespace pgweir::core {

/// Log-linear: four buckets to each doubling, so a quantile is at most a quarter too high. From 1 us to over a day;
/// what is longer goes into the last bucket. 1.2 kB, no allocation, a few instructions to add to.
class LatencyHistogram {
 public:
  static constexpr std::size_t kBuckets = 4 * 37;

  void add(pool::Duration took) {
    const std::uint64_t us = microseconds(took);
    add_at(bucket_of(us), us);
  }
  /// One duration to two of them.
  static void add_to_both(LatencyHistogram& one, LatencyHistogram& other, pool::Duration took) {
    const std::uint64_t us = microseconds(took);
    const std::size_t bucket = bucket_of(us);
    one.add_at(bucket, us);
    other.add_at(bucket, us);
  }
  LatencyHistogram& operator+=(const LatencyHistogram& other) {
    for (std::size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    max_us_ = max_us_ > other.max_us_ ? max_us_ : other.max_us_;
    return *this;
  }

  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] std::uint64_t max_us() const { return max_us_; }
  /// The time in microseconds that the given share of all stayed within, rounded up to its bucket's end but never above
  /// the longest. 0 if there is none. `per_mille` is 0 to 1000.
  [[nodiscard]] std::uint64_t quantile_us(unsigned per_mille) const;

  /// 0 to 3 us have buckets of their own; from then on the two bits below the highest choose within its octave.
  [[nodiscard]] static constexpr std::size_t bucket_of(std::uint64_t us) {
    if (us < 4) return static_cast<std::size_t>(us);
    const auto octave = static_cast<std::size_t>(std::bit_width(us)) - 3;  // 4..7 us: 0
    const std::size_t bucket = 4 + octave * 4 + ((us >> octave) & 3);
    return bucket < kBuckets ? bucket : kBuckets - 1;
  }
  /// The longest time that goes into this bucket.
  [[nodiscard]] static constexpr std::uint64_t bucket_end_us(std::size_t bucket) {
    if (bucket < 4) return bucket;
    const std::size_t octave = (bucket - 4) / 4;
    return ((std::uint64_t{4} + (bucket - 4) % 4 + 1) << octave) - 1;
  }

 private:
  static std::uint64_t microseconds(pool::Duration took) {
    return took.count() < 0 ? std::uint64_t{0} : static_cast<std::uint64_t>(took.count());
  }
  void add_at(std::size_t bucket, std::uint64_t us) {
    ++counts_[bucket];
    ++count_;
    if (us > max_us_) max_us_ = us;
  }

  std::array<std::uint64_t, kBuckets> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_us_ = 0;
};

/// What a server says of itself by the parameter kHotStandby, which PostgreSQL reports since version 14.
using router::HostRole;
inline constexpr std::string_view kHotStandby = "in_hot_standby";
[[nodiscard]] constexpr HostRole role_of(std::string_view in_hot_standby) {
  return in_hot_standby == "on" ? HostRole::Standby : HostRole::Primary;
}

[[nodiscard]] constexpr const char* role_name(HostRole role) {
  return role == HostRole::Primary ? "primary" : role == HostRole::Standby ? "standby" : "unknown";
}

struct Latencies {
  LatencyHistogram wait;         ///< from a client's asking to its server
  LatencyHistogram query;        ///< as in SHOW STATS: queries that overlap in a pipeline are one
  LatencyHistogram transaction;  ///< from the first message to ReadyForQuery 'I'

  Latencies& operator+=(const Latencies& other) {
    wait += other.wait;
    query += other.query;
    transaction += other.transaction;
    return *this;
  }
};

/// Whose times they are: of the servers of one pool on one host in one role.
struct LatencyKey {
  std::string database, user, host;
  int port = 0;
  HostRole role = HostRole::Unknown;
  friend auto operator<=>(const LatencyKey&, const LatencyKey&) = default;
};
using LatencyTable = std::map<LatencyKey, Latencies>;

}  // namespace pgweir::core
