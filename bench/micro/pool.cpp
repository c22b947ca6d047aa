// The pools: a transaction's two calls, with a server that is free and with one that others wait for.
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "bench/micro/support.hpp"
#include "pool/pool_manager.hpp"

namespace {

using namespace pgweir;
using bench::Count;

/// A pool of one user with `servers` connections, all of them idle, and clients of one worker.
class OnePool {
 public:
  OnePool(std::uint32_t servers, int clients, int other_pools = 0) : pools({.max_client_conn = 100'000}) {
    for (int i = 0; i < other_pools; ++i) {
      pools.set_pool("db" + std::to_string(i), "user", pool::PoolSettings{}, now, actions);
    }
    pool::PoolSettings settings;
    settings.pool_size = settings.max_pool_logins = servers;
    id = pools.set_pool("db", "user", settings, now, actions);
    for (int i = 0; i < clients; ++i) {
      all.push_back(*pools.add_client(0));
      (void)pools.bind_client(all.back(), "db", "user");
      pools.attach_client(all.back(), id, now, actions);
    }
    for (std::uint32_t i = 0; i < servers; ++i) (void)pools.acquire(all[i], id, now, actions);
    const pool::Actions opened = actions;
    actions.clear();
    for (const pool::Action& action : opened) pools.server_ready(action.server, {}, now, actions);
    const pool::Actions grants = actions;
    actions.clear();
    for (const pool::Action& grant : grants) {
      (void)pools.grant_taken(grant.client, grant.server);
      pools.release(grant.server, pool::ReleaseKind::Clean, now, actions);
    }
    actions.clear();
  }

  pool::PoolManager pools;
  pool::Actions actions;
  pool::TimePoint now{};
  pool::PoolId id{};
  std::vector<pool::ClientId> all;
};

void acquire_release(benchmark::State& state, OnePool& world) {
  const Count count(state, 0);
  for (auto _ : state) {
    world.now += pool::Duration(1);
    const auto result = world.pools.acquire(world.all[0], world.id, world.now, world.actions);
    world.pools.release(result.server, pool::ReleaseKind::Clean, world.now, world.actions);
    benchmark::DoNotOptimize(world.actions.size());
  }
}

void pool_acquire_release(benchmark::State& state) {
  OnePool world(1, 1);
  acquire_release(state, world);
}
BENCHMARK(pool_acquire_release);

void pool_acquire_release_500_pools(benchmark::State& state) {
  OnePool world(1, 1, 500);
  acquire_release(state, world);
}
BENCHMARK(pool_acquire_release_500_pools);

void pool_acquire_release_10000_clients(benchmark::State& state) {
  OnePool world(1, 10'000);
  acquire_release(state, world);
}
BENCHMARK(pool_acquire_release_10000_clients);

/// First in, first out, without allocations; at most 64.
template <class T>
class Ring {
 public:
  void push(const T& value) { items_[end_++ % items_.size()] = value; }
  T pop() { return items_[begin_++ % items_.size()]; }
  [[nodiscard]] bool empty() const { return begin_ == end_; }

 private:
  std::array<T, 64> items_{};
  std::size_t begin_ = 0, end_ = 0;
};

/// Thirty-two clients on twenty servers: each release hands its server to a client that waits, which has to take it.
void pool_release_to_waiter(benchmark::State& state) {
  OnePool world(20, 32);
  Ring<std::pair<pool::ClientId, pool::ServerId>> running;
  Ring<pool::ClientId> thinking;
  for (const pool::ClientId client : world.all) thinking.push(client);
  const auto begin = [&] {
    const pool::ClientId client = thinking.pop();
    const auto result = world.pools.acquire(client, world.id, world.now, world.actions);
    if (result.status == pool::AcquireStatus::Granted) running.push({client, result.server});
  };
  while (!thinking.empty()) begin();
  const auto step = [&] {
    world.now += pool::Duration(1);
    const auto [client, server] = running.pop();
    world.pools.release(server, pool::ReleaseKind::Clean, world.now, world.actions);
    for (const pool::Action& action : world.actions) {
      if (action.kind != pool::ActionKind::Grant) continue;
      if (world.pools.grant_taken(action.client, action.server)) running.push({action.client, action.server});
    }
    world.actions.clear();
    thinking.push(client);
    begin();
  };
  for (int i = 0; i < 1000; ++i) step();
  const Count count(state, 0);
  for (auto _ : state) step();
}
BENCHMARK(pool_release_to_waiter);

}  // namespace
