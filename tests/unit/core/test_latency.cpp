#include <catch2/catch.hpp>

#include "proxy/core/latency.hpp"

namespace pgweir::core {

using pool::Duration;

TEST_CASE("every time lies in the bucket that ends at or after it", "[latency]") {
  std::size_t last = 0;
  for (std::uint64_t us = 0; us < 100'000; ++us) {
    const std::size_t bucket = LatencyHistogram::bucket_of(us);
    REQUIRE(bucket >= last);
    REQUIRE(bucket <= last + 1);
    REQUIRE(us <= LatencyHistogram::bucket_end_us(bucket));
    if (bucket > 0) REQUIRE(us > LatencyHistogram::bucket_end_us(bucket - 1));
    last = bucket;
  }
  CHECK(LatencyHistogram::bucket_of(~std::uint64_t{0}) == LatencyHistogram::kBuckets - 1);
  CHECK(LatencyHistogram::bucket_end_us(LatencyHistogram::kBuckets - 1) > std::uint64_t{86'400'000'000});
}

TEST_CASE("quantiles are at most a quarter too high and never above the longest", "[latency]") {
  LatencyHistogram times;
  CHECK(times.quantile_us(500) == 0);
  for (int i = 1; i <= 1000; ++i) times.add(Duration(i));
  CHECK(times.count() == 1000);
  CHECK(times.quantile_us(500) >= 500);
  CHECK(times.quantile_us(500) <= 625);
  CHECK(times.quantile_us(990) >= 990);
  CHECK(times.quantile_us(1000) == 1000);
  times.add(Duration(-5));  // a clock that was read earlier elsewhere
  CHECK(times.quantile_us(0) == 0);
  CHECK(times.max_us() == 1000);
}

TEST_CASE("histograms of several workers add up", "[latency]") {
  LatencyHistogram a, b;
  for (int i = 0; i < 99; ++i) a.add(Duration(2));
  b.add(Duration(5'000'000));
  a += b;
  CHECK(a.count() == 100);
  CHECK(a.quantile_us(990) == 2);
  CHECK(a.quantile_us(1000) == 5'000'000);
  CHECK(a.max_us() == 5'000'000);
}

TEST_CASE("a time beyond all buckets is told by the longest seen", "[latency]") {
  LatencyHistogram times;
  times.add(Duration(std::int64_t{1} << 50));
  CHECK(times.quantile_us(500) == std::uint64_t{1} << 50);
}

}  // namespace pgweir::core
