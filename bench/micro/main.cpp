// Costs of single decisions: what a transaction is made of besides system calls.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "bench/micro/support.hpp"

namespace {
std::atomic<std::uint64_t> number{0}, bytes{0};
}

// Not inlined: GCC would otherwise see malloc and free where it expects new and delete.
[[gnu::noinline]] void* operator new(std::size_t size) {
  number.fetch_add(1, std::memory_order_relaxed);
  bytes.fetch_add(size, std::memory_order_relaxed);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace pgweir::bench {

Allocations allocations() {
  return {number.load(std::memory_order_relaxed), bytes.load(std::memory_order_relaxed)};
}

}  // namespace pgweir::bench

BENCHMARK_MAIN();
