// One run: the pooler's workers with their one PoolManager between simulated clients and a simulated PostgreSQL, and the
// checkers that look at all of it after every event.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/postgres.hpp"
#include "tests/sim/scenario.hpp"
#include "tests/sim/sim_client.hpp"
#include "tests/sim/sim_worker.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

class Simulation {
 public:
  Simulation(std::uint64_t seed, const Scenario& scenario, bool trace);
  ~Simulation();

  /// Until all clients are done and everything is closed; ends the process on a failure. Answers the number of events.
  std::uint64_t run();

  [[nodiscard]] World& world() { return world_; }
  [[nodiscard]] const Scenario& scenario() const { return scenario_; }
  [[nodiscard]] Postgres& postgres() { return postgres_; }
  [[nodiscard]] SimWorker& worker(pool::WorkerId id) { return *workers_[id]; }
  [[nodiscard]] pool::PoolManager& pools() { return pools_; }
  [[nodiscard]] const core::ProcessKeys& keys() const { return keys_; }
  [[nodiscard]] bool locked() const { return locked_; }
  void set_locked(bool locked) { locked_ = locked; }

  /// A client connects: its end of the link; the pooler gets the other after a while.
  std::shared_ptr<Link> connect_client(const std::string& name);
  /// Client `number` has asked for a cancel, which may hit what it runs.
  void note_cancel(int number) { canceled_.insert(number); }
  /// Client `number` has a new connection: older cancel requests must not hit it.
  void note_connection(int number) { canceled_.erase(number); }

  /// After every event of a worker.
  void after_event();

 private:
  struct Count {
    std::size_t open = 0;
  };

  void check_servers();
  void check_limits();
  void check_queue();
  void check_canceled(std::uint32_t pid, const std::string& running);
  void check_alive();
  void wind_up();
  [[nodiscard]] bool quiet() const;
  [[nodiscard]] bool clients_done() const;

  World world_;
  Scenario scenario_;
  core::ProcessKeys keys_;
  pool::PoolManager pools_;
  Postgres postgres_;
  bool locked_ = false;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::vector<std::unique_ptr<SimClient>> clients_;
  std::vector<std::weak_ptr<Link>> links_;
  std::set<int> canceled_;

  /// A client seen waiting, since when, and when it was overtaken by a later one.
  struct Waiter {
    pool::PoolId pool{};
    TimePoint since{};
    std::optional<TimePoint> overtaken{};
  };
  std::map<pool::ClientId, Waiter> waiters_;
};

}  // namespace pgweir::sim
