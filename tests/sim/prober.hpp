// What stands in for the prober of proxy/io: asks every host of the simulated cluster what it is, tells a real
// HostTracker, and brings its tables and the catalogue to the workers, all with delays.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "proxy/core/host_group.hpp"
#include "proxy/core/position_demand.hpp"
#include "router/host_tracker.hpp"
#include "router/statement_class.hpp"

namespace pgweir::sim {

class World;
class Cluster;

class Prober {
 public:
  /// `databases`: their names on the servers; all have the same hosts.
  Prober(World& world, Cluster& cluster, std::vector<std::string> databases);

  void begin();
  void witness(const std::string& group, router::HostId host, router::Witness witness);
  void positions_wanted(const std::string& group);
  void catalog_changed(const std::string& group, const std::string& dbname);
  /// Connections to it are broken.
  void host_stopped(int host);
  /// Of another process.
  void begin_anew(const core::KnownClusters& known);
  [[nodiscard]] const std::string& group() const { return group_; }

 private:
  struct Probe {
    std::uint64_t number = 0;
    bool under_way = false, again = false, connected = false;
    router::TimePoint sent_at{};
  };
  void probe(int host);
  void ask(int host, std::uint64_t number);
  void answered(int host, std::uint64_t number, const router::ProbeAnswer& answer);
  void failed(int host, std::uint64_t number, router::ProbeFailure failure);
  void ended(int host);
  void told_something();
  void begin_round();
  void go_on_with_round(int host);
  void read_catalog();
  void check_group(const std::string& group) const;
  [[nodiscard]] router::TimePoint now() const;

  World& world_;
  Cluster& cluster_;
  std::vector<std::string> databases_;
  std::string group_;
  router::HostTracker tracker_;
  core::ProbeRounds rounds_;
  router::Classifier classifier_;
  std::vector<Probe> probes_;
  std::shared_ptr<const router::CatalogKnowledge> catalog_;
  std::uint64_t generation_ = 0;
  int process_ = 0;  ///< counts restarts: what was under way to the old process is lost
};

}  // namespace pgweir::sim
