// What the one mutex around the pools costs when several workers share a hot pool: how long it is held and waited for,
// how often it is taken for a transaction, and how often a server changes its worker. Threads play the workers: each
// has its clients, takes a server for one, works for a while, gives the oldest back, and carries out the pool's actions
// as a real worker does, those of others by a mailbox. There is no I/O, so the lock is taken far more often than in the
// proxy; --work-ns puts the rest of a transaction's CPU time between.
//
//   contention [--threads=N] [--clients=N] [--servers=N] [--work-ns=N] [--seconds=S]
#include <fmt/format.h>
#include <getopt.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "proxy/io/shared_pools.hpp"

namespace {

using namespace pgweir;
using Clock = std::chrono::steady_clock;

struct Options {
  int threads = 2;
  int clients = 32;  // of all workers
  std::uint32_t servers = 20;
  int work_ns = 0;  // for each half of a transaction
  double seconds = 2;
};

std::uint64_t nanoseconds_between(Clock::time_point from, Clock::time_point to) {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count());
}

/// Durations in ns: their sum, and how many there are of each power of two.
class Durations {
 public:
  void add(std::uint64_t ns) {
    sum_ += ns;
    if (ns < kPreempted) {
      undisturbed_sum_ += ns;
      ++undisturbed_;
    }
    ++buckets_[static_cast<std::size_t>(std::bit_width(ns))];
  }
  void add(const Durations& other) {
    sum_ += other.sum_;
    undisturbed_sum_ += other.undisturbed_sum_;
    undisturbed_ += other.undisturbed_;
    for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  }
  [[nodiscard]] std::uint64_t sum() const { return sum_; }
  /// The mean of those during which no thread seems to have been preempted.
  [[nodiscard]] double undisturbed_mean() const {
    return static_cast<double>(undisturbed_sum_) / static_cast<double>(std::max<std::uint64_t>(1, undisturbed_));
  }
  /// So many of them in a thousand were shorter than this; a power of two.
  [[nodiscard]] std::uint64_t below(std::uint64_t per_mille) const {
    std::uint64_t all = 0, seen = 0;
    for (const std::uint64_t count : buckets_) all += count;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen * 1000 >= all * per_mille) return std::uint64_t{1} << i;
    }
    return 0;
  }

 private:
  static constexpr std::uint64_t kPreempted = 20'000;

  std::uint64_t sum_ = 0, undisturbed_sum_ = 0, undisturbed_ = 0;
  std::array<std::uint64_t, 65> buckets_{};
};

struct Figures {
  std::uint64_t transactions = 0, locks = 0, moves = 0, queued = 0;
  Durations held, waited;

  void add(const Figures& other) {
    transactions += other.transactions;
    locks += other.locks;
    moves += other.moves;
    queued += other.queued;
    held.add(other.held);
    waited.add(other.waited);
  }
};

struct Letter {
  pool::Action action;
  bool arrived = false;  // the server of a MoveServer, on its new worker
};

class Worker;

struct World {
  explicit World(const Options& chosen)
      : options(chosen), pools({static_cast<pool::WorkerId>(chosen.threads), pool::Duration(1000), 100'000}) {}
  const Options options;
  io::SharedPools pools;
  pool::PoolId pool{};
  std::vector<std::unique_ptr<Worker>> workers;
  std::atomic<bool> over{false};
};

class Worker {
 public:
  Worker(World& world, pool::WorkerId id) : world_(world), id_(id) {}

  void add_client(pool::ClientId client) { idle_.push_back(client); }
  [[nodiscard]] const Figures& figures() const { return figures_; }

  void run() {
    // A worker that has no event at hand waits for one; here it looks again.
    for (std::uint64_t event = 0; !world_.over.load(std::memory_order_relaxed); ++event) {
      read_mail();
      if (event % 8 == 7) offer();
      const bool finish = !running_.empty() && (idle_.empty() || next_random() % 2 == 0);
      if (finish) {
        finish_one();
      } else if (!idle_.empty()) {
        begin_one();
      } else {
        offer();
        std::this_thread::yield();
      }
    }
  }

 private:
  struct Running {
    pool::ClientId client;
    pool::ServerId server;
  };

  template <class Function>
  auto locked(Function function) {
    const auto wanted = Clock::now();
    pool::PoolManager& pools = world_.pools.lock();
    const auto got = Clock::now();
    auto result = function(pools);
    const auto done = Clock::now();
    (void)world_.pools.unlock();
    ++figures_.locks;
    figures_.waited.add(nanoseconds_between(wanted, got));
    figures_.held.add(nanoseconds_between(got, done));
    return result;
  }

  [[nodiscard]] static pool::TimePoint now() {
    return pool::TimePoint(std::chrono::duration_cast<pool::Duration>(Clock::now().time_since_epoch()));
  }

  void begin_one() {
    work();
    const pool::ClientId client = idle_.front();
    idle_.pop_front();
    const pool::TimePoint time = now();  // as in the proxy, where it is that of the batch
    const auto result =
        locked([&](pool::PoolManager& pools) { return pools.acquire(client, world_.pool, time, actions_); });
    if (result.status == pool::AcquireStatus::Granted) {
      running_.push_back({client, result.server});
    } else {
      ++figures_.queued;
    }
    carry_out(actions_);
  }

  void finish_one() {
    work();
    const Running done = running_.front();
    running_.pop_front();
    const pool::TimePoint time = now();
    locked([&](pool::PoolManager& pools) {
      pools.release(done.server, pool::ReleaseKind::Clean, time, actions_);
      return true;
    });
    idle_.push_back(done.client);
    ++figures_.transactions;
    carry_out(actions_);
  }

  void offer() {
    if (!offer_wanted_) return;
    offer_wanted_ = false;
    locked([&](pool::PoolManager& pools) {
      pools.offer_idle(id_, world_.pool, now(), actions_);
      return true;
    });
    carry_out(actions_);
  }

  void post(Letter letter) {
    const std::lock_guard guard(mail_mutex_);
    mail_.push_back(std::move(letter));
    has_mail_.store(true, std::memory_order_release);
  }

  void read_mail() {
    if (!has_mail_.load(std::memory_order_acquire)) return;
    std::vector<Letter> letters;
    {
      const std::lock_guard guard(mail_mutex_);
      letters.swap(mail_);
      has_mail_.store(false, std::memory_order_relaxed);
    }
    for (const Letter& letter : letters) {
      if (letter.arrived) {
        ++figures_.moves;
        locked([&](pool::PoolManager& pools) {
          pools.server_arrived(letter.action.server, now(), actions_);
          return true;
        });
        carry_out(actions_);
      } else {
        carry_out_own(letter.action);
      }
    }
  }

  /// Actions may lead to further ones, which come behind them.
  void carry_out(pool::Actions& actions) {
    if (actions.empty()) return;
    pool::Actions these;
    these.swap(actions);
    for (pool::Action& action : these) {
      if (action.worker == id_) {
        carry_out_own(action);
      } else {
        world_.workers[action.worker]->post({std::move(action), false});
      }
    }
  }

  void carry_out_own(const pool::Action& action) {
    switch (action.kind) {
      case pool::ActionKind::OpenServer:
        locked([&](pool::PoolManager& pools) {
          pools.server_ready(action.server, {}, now(), actions_);
          return true;
        });
        break;
      case pool::ActionKind::Grant:
        if (locked([&](pool::PoolManager& pools) { return pools.grant_taken(action.client, action.server); })) {
          running_.push_back({action.client, action.server});
        }
        break;
      case pool::ActionKind::MoveServer:
        world_.workers[action.to]->post({action, true});
        break;
      case pool::ActionKind::OfferIdle:
        offer_wanted_ = true;
        break;
      default:
        fmt::print(stderr, "contention: unexpected action {}\n", static_cast<int>(action.kind));
        std::abort();
    }
    carry_out(actions_);
  }

  void work() const {
    if (world_.options.work_ns == 0) return;
    const auto end = Clock::now() + std::chrono::nanoseconds(world_.options.work_ns);
    while (Clock::now() < end) {
    }
  }

  std::uint32_t next_random() { return seed_ = seed_ * 1664525U + 1013904223U, seed_ >> 16; }

  World& world_;
  const pool::WorkerId id_;
  std::deque<pool::ClientId> idle_;
  std::deque<Running> running_;
  pool::Actions actions_;
  bool offer_wanted_ = false;
  std::uint32_t seed_ = 1U + id_;
  Figures figures_;
  std::mutex mail_mutex_;
  std::vector<Letter> mail_;
  std::atomic<bool> has_mail_{false};
};

/// What two readings of the clock cost: they are part of every duration.
double clock_ns() {
  constexpr int kTimes = 100'000;
  const auto begin = Clock::now();
  auto last = begin;
  for (int i = 0; i < kTimes; ++i) last = Clock::now();
  return static_cast<double>(nanoseconds_between(begin, last)) / kTimes;
}

void set_up(World& world) {
  const pool::TimePoint now{std::chrono::duration_cast<pool::Duration>(Clock::now().time_since_epoch())};
  pool::Actions actions;
  pool::PoolManager& pools = world.pools.lock();
  pool::PoolSettings settings;
  settings.pool_size = world.options.servers;
  settings.max_pool_logins = world.options.servers;
  settings.server_lifetime = pool::Duration(3'600'000'000);
  world.pool = pools.set_pool("db", "user", settings, now, actions);
  for (int i = 0; i < world.options.clients; ++i) {
    const auto worker = static_cast<pool::WorkerId>(i % world.options.threads);
    const auto client = pools.add_client(worker);
    if (!client) std::abort();
    (void)pools.bind_client(*client, "db", "user");
    pools.attach_client(*client, world.pool, now, actions);
    world.workers[worker]->add_client(*client);
  }
  (void)world.pools.unlock();
}

void print(const Options& options, const Figures& all, double seconds) {
  const auto per_lock = [&](const Durations& durations) {
    return static_cast<double>(durations.sum()) / static_cast<double>(std::max<std::uint64_t>(1, all.locks));
  };
  const auto each = static_cast<double>(std::max<std::uint64_t>(1, all.transactions));
  fmt::print(
      R"({{"threads": {}, "clients": {}, "servers": {}, "work_ns": {}, "transactions_per_s": {:.0f}, )"
      R"("locks_per_tx": {:.2f}, "held_ns_per_lock": {:.0f}, "held_ns_per_tx": {:.0f}, "held_ns_undisturbed": {:.0f}, "held_below_ns_median": {}, )"
      R"("held_below_ns_p99": {}, "waited_ns_per_lock": {:.0f}, "waited_ns_per_tx": {:.0f}, "waited_ns_undisturbed": {:.0f}, )"
      R"("waited_below_ns_median": {}, "waited_below_ns_p99": {}, "moves_per_tx": {:.4f}, "queued_per_tx": {:.4f}, )"
      R"("clock_ns": {:.0f}}})"
      "\n",
      options.threads, options.clients, options.servers, options.work_ns, each / seconds,
      static_cast<double>(all.locks) / each, per_lock(all.held), static_cast<double>(all.held.sum()) / each,
      all.held.undisturbed_mean(), all.held.below(500), all.held.below(990), per_lock(all.waited),
      static_cast<double>(all.waited.sum()) / each, all.waited.undisturbed_mean(), all.waited.below(500),
      all.waited.below(990), static_cast<double>(all.moves) / each, static_cast<double>(all.queued) / each, clock_ns());
}

bool parse(int argc, char** argv, Options& options) {
  const option known[] = {{"threads", required_argument, nullptr, 't'}, {"clients", required_argument, nullptr, 'c'},
                          {"servers", required_argument, nullptr, 's'}, {"work-ns", required_argument, nullptr, 'w'},
                          {"seconds", required_argument, nullptr, 'd'}, {nullptr, 0, nullptr, 0}};
  int found = 0;
  while ((found = ::getopt_long(argc, argv, "", known, nullptr)) != -1) {
    switch (found) {
      case 't':
        options.threads = std::atoi(optarg);
        break;
      case 'c':
        options.clients = std::atoi(optarg);
        break;
      case 's':
        options.servers = static_cast<std::uint32_t>(std::atoi(optarg));
        break;
      case 'w':
        options.work_ns = std::atoi(optarg);
        break;
      case 'd':
        options.seconds = std::atof(optarg);
        break;
      default:
        return false;
    }
  }
  return options.threads > 0 && options.clients > 0 && options.servers > 0 && options.seconds > 0 && optind == argc;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    fmt::print(stderr, "usage: contention [--threads=N] [--clients=N] [--servers=N] [--work-ns=N] [--seconds=S]\n");
    return 2;
  }
  World world(options);
  for (int i = 0; i < options.threads; ++i) {
    world.workers.push_back(std::make_unique<Worker>(world, static_cast<pool::WorkerId>(i)));
  }
  set_up(world);
  const auto began = Clock::now();
  std::vector<std::thread> threads;
  for (const auto& worker : world.workers) threads.emplace_back([&worker] { worker->run(); });
  std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
  world.over.store(true);
  for (std::thread& thread : threads) thread.join();
  Figures all;
  for (const auto& worker : world.workers) all.add(worker->figures());
  print(options, all, std::chrono::duration<double>(Clock::now() - began).count());
  return 0;
}
