// What the micro-benchmarks share: each reports the bytes it looks at, its heap allocations and their bytes, for one
// operation.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>

namespace pgweir::bench {

struct Allocations {
  std::uint64_t number = 0, bytes = 0;
};

/// Of this process so far.
[[nodiscard]] Allocations allocations();

/// Made after everything is set up and warm, before the loop; reports when the benchmark ends. `bytes`: what one
/// operation looks at or makes.
class Count {
 public:
  Count(benchmark::State& state, std::size_t bytes) : state_(state), bytes_(bytes), start_(allocations()) {}
  ~Count() {
    const Allocations now = allocations();
    const auto times = static_cast<double>(std::max<std::int64_t>(1, state_.iterations()));
    state_.counters["allocs/op"] = static_cast<double>(now.number - start_.number) / times;
    state_.counters["alloc_B/op"] = static_cast<double>(now.bytes - start_.bytes) / times;
    state_.counters["bytes/op"] = static_cast<double>(bytes_);
  }
  Count(const Count&) = delete;
  Count& operator=(const Count&) = delete;

 private:
  benchmark::State& state_;
  std::size_t bytes_;
  Allocations start_;
};

}  // namespace pgweir::bench
