// A simulated replication cluster: hosts with a role, a timeline and a write-ahead log, standbys that receive and
// replay it with delays, and what may happen to hosts: crash, freeze, a network that lets nothing through between host
// and proxy, promotion, the return of the old primary. Commits are acknowledged after a standby has received them if
// the seed asks for it, so that what was acknowledged survives every promotion that the operator here carries out.
//
// One log record per commit. A standby's log is a prefix of its primary's as long as it follows; `applied` records of
// it can be seen by readers:
//
//     log      r0 r1 r2 r3 r4 r5 r6
//     primary              ^applied, acknowledged: r5 and r6 wait for a standby
//     standby        ^applied     ^received
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pool/time.hpp"
#include "proxy/core/host_group.hpp"
#include "router/host_tracker.hpp"
#include "tests/sim/history.hpp"
#include "tests/sim/register_data.hpp"
#include "tests/sim/rng.hpp"

namespace pgweir::sim {

using pool::Duration;

class World;
class Far;
class Link;
class Backend;
class Cluster;
class Prober;

/// Lengths of time are in microseconds.
struct ClusterPlan {
  int hosts = 2;
  bool synchronous = true;
  std::int64_t ship_max = 2'000;    ///< longest way of a record to a standby
  std::int64_t replay_max = 5'000;  ///< longest time between two steps of replay
  unsigned conflicts = 0;           ///< per mille of reads on a standby that are canceled
  unsigned probe_loss = 0;          ///< per cent
  std::int64_t probe_max = 5'000;   ///< longest way of a probe and of its answer
  int incidents = 3;
  std::int64_t calm_max = 500'000;      ///< between two incidents
  std::int64_t incident_max = 500'000;  ///< longest step of an incident
};

class ClusterHost {
 public:
  struct Record {
    Position at;
    std::uint64_t id = 0;
    std::vector<std::pair<int, std::string>> changes;
  };
  struct Cell {
    std::string value = "0";
    Position at;
  };

  bool up = true, starting = false, frozen = false, cut = false;
  bool recovers = true;
  bool accepts_frozen = false;  ///< while frozen, its kernel accepts connections
  std::uint32_t timeline = 1;
  std::optional<int> upstream;  ///< whom it follows
  std::vector<Record> log;
  std::size_t applied = 0, acknowledged = 0;
  bool waits_for_standby = false;  ///< commits do
  bool to_be_given_up = false;     ///< promoted beside another one
  bool replay_paused = false;
  std::map<int, Cell> cells;

  [[nodiscard]] Position end() const { return log.empty() ? Position{} : log.back().at; }
  [[nodiscard]] bool serves() const { return up && !frozen; }

 private:
  bool shipping_ = false, replaying_ = false;
  struct Waiter {
    std::size_t records;
    std::uint32_t pid;
  };
  std::vector<Waiter> waiters_;
  friend class Cluster;
};

/// What a server process knows of the data of its host.
class BackendData final : public RegisterData {
 public:
  BackendData(Cluster& cluster, int host, std::uint32_t pid) : cluster_(cluster), host_(host), pid_(pid) {}

 private:
  [[nodiscard]] bool recovers() const override;
  [[nodiscard]] std::optional<Failure> interference() override;
  [[nodiscard]] std::string read(int key) override;
  void written(const std::string& value) override;
  void refused() override;
  bool commit(Changes changes) override;

  Cluster& cluster_;
  int host_;
  std::uint32_t pid_;
};

class Cluster {
 public:
  Cluster(World& world, const ClusterPlan& plan, std::vector<std::string> databases);
  ~Cluster();

  enum class Connect { Accepted, Refused, Hangs };
  [[nodiscard]] Connect connect(int host) const;
  [[nodiscard]] ClusterHost& host(int index) { return hosts_[static_cast<std::size_t>(index)]; }
  [[nodiscard]] const ClusterHost& host(int index) const { return hosts_[static_cast<std::size_t>(index)]; }
  [[nodiscard]] int size() const { return static_cast<int>(hosts_.size()); }
  [[nodiscard]] const ClusterPlan& plan() const { return plan_; }
  History& history() { return history_; }
  Prober& prober() { return *prober_; }
  World& world() { return world_; }
  /// Bytes do not pass between the proxy and the host.
  [[nodiscard]] bool is_cut(int index) const { return host(index).cut; }
  [[nodiscard]] bool is_frozen(int index) const { return host(index).frozen; }
  /// A connection of the proxy to the host.
  void add_link(int index, const std::shared_ptr<Link>& link);
  void add_backend(int index, Backend& backend);
  void remove_backend(int index, Backend& backend);
  /// What the primary is by the operator's will; it may be dead.
  [[nodiscard]] int leader() const { return leader_; }
  /// Adds the changes to the log of the host. True: the process `pid` has to wait for the acknowledgement.
  bool commit(int index, std::vector<std::pair<int, std::string>> changes, std::uint32_t pid);
  /// What a probe's query says.
  [[nodiscard]] router::ProbeAnswer answer(int index) const;

  /// Another process probes, and knows nothing yet.
  void proxy_restarted(const core::KnownClusters& known);
  /// Incidents begin (cluster_incidents.cpp).
  void begin();
  /// Everything comes back, with one primary; the incident that is under way still takes its course.
  void end_incidents() { incidents_left_ = 0; }
  /// No incident is under way and none will come.
  [[nodiscard]] bool calm() const { return calm_; }
  /// Of a quiet cluster: nothing that was acknowledged is missing.
  void check_end();

 private:
  struct Connection {
    std::weak_ptr<Link> link;
    int host;
  };
  // log and replication
  void apply(ClusterHost& target, std::size_t records);
  void rebuild(ClusterHost& target, std::size_t records);
  void acknowledge(int index, std::size_t records);
  void update_acknowledged(int index);
  void plan_shipping(int standby);
  void ship(int standby);
  void plan_replay(int standby);
  void replay(int standby);
  [[nodiscard]] bool can_follow(const ClusterHost& standby, const ClusterHost& primary) const;

  // what may happen to a host
  enum class Stop { Crash, Fast };
  void stop(int index, Stop how);
  void start(int index, Duration within = std::chrono::milliseconds(50));
  void freeze(int index);
  void thaw(int index);
  void cut(int index);
  void heal(int index);
  void pause_replay(int index, bool on);
  void promote(int index);
  void follow_leader(int index);
  void rejoin(int index, Duration starts_within = std::chrono::milliseconds(50));
  void write_something();
  void lose_standbys_later();

  // incidents
  void next_incident();
  void incident();
  void incident_over();
  void later(std::function<void()> then);
  void bring_back(int old);
  void crash_leader();
  void last_out(int old);
  void demote();
  void disturb_leader(bool by_freezing);
  void disturb_standby();
  void lag();
  void switch_over();
  void switch_over_by_console();
  void stop_in_order(int old);
  void crash_all();
  void split_brain();
  void promote_both();
  [[nodiscard]] std::optional<int> candidate() const;
  [[nodiscard]] std::optional<int> any_standby();

  World& world_;
  ClusterPlan plan_;
  std::vector<ClusterHost> hosts_;
  History history_;
  std::unique_ptr<Prober> prober_;
  std::vector<Connection> connections_;
  std::vector<std::vector<Backend*>> backends_;
  std::unique_ptr<Far> console_;
  int leader_ = 0;
  std::uint64_t last_record_ = 0;
  int incidents_left_ = 0;
  bool calm_ = true;
};

}  // namespace pgweir::sim
