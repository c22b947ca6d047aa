#include "proxy/core/latency.hpp"

#include <algorithm>

namespace pgweir::core {

std::uint64_t LatencyHistogram::quantile_us(unsigned per_mille) const {
  if (count_ == 0) return 0;
  const std::uint64_t wanted = std::max<std::uint64_t>(1, (count_ * per_mille + 999) / 1000);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= wanted) return i + 1 == kBuckets ? max_us_ : std::min(bucket_end_us(i), max_us_);
  }
  return max_us_;
}

}  // namespace pgweir::core
