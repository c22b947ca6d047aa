#include "tests/sim/prober.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/core/host_group.hpp"
#include "tests/sim/cluster.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

namespace {

const core::DatabaseConfig& any_entry(const World& world) {
  return world.plan().settings->config->databases.begin()->second;
}

std::vector<std::string> names_of(const core::DatabaseConfig& entry) {
  std::vector<std::string> names;
  for (const core::HostPort& host : entry.hosts) names.push_back(fmt::format("{}:{}", host.host, host.port));
  return names;
}

router::TrackerPolicy policy_of(const core::Config& config) {
  router::TrackerPolicy policy;
  policy.lag_bytes_max = static_cast<std::uint64_t>(config.max_replica_lag_bytes);
  policy.lag_max = std::chrono::duration_cast<router::Duration>(config.max_replica_lag_ms);
  return policy;
}

}  // namespace

Prober::Prober(World& world, Cluster& cluster, std::vector<std::string> databases)
    : world_(world),
      cluster_(cluster),
      databases_(std::move(databases)),
      group_(core::host_group_name(any_entry(world))),
      tracker_(names_of(any_entry(world)), policy_of(*world.plan().settings->config)),
      probes_(static_cast<std::size_t>(cluster.size())) {}

router::TimePoint Prober::now() const {
  return core::router_time(world_.now());
}

void Prober::begin() {
  for (int host = 0; host < cluster_.size(); ++host) probe(host);
  world_.at(Duration(world_.rng().between(1, 200'000)), [this, process = process_] {
    if (process == process_) read_catalog();
  });
}

void Prober::check_group(const std::string& group) const {
  if (group != group_) world_.fail("a witness of a group that is not there: " + group);
}

void Prober::witness(const std::string& group, router::HostId host, router::Witness witness) {
  check_group(group);
  world_.at(Duration(world_.rng().between(1, world_.plan().mailbox_max.count())),
            [this, host, witness, process = process_] {
              if (process != process_) return;
              world_.trace(fmt::format("witness {} of host {}", static_cast<int>(witness), static_cast<int>(host)));
              tracker_.witness(host, witness, now());
              told_something();
            });
}

void Prober::positions_wanted(const std::string& group) {
  check_group(group);
  world_.at(Duration(world_.rng().between(1, world_.plan().mailbox_max.count())), [this, process = process_] {
    if (process == process_) begin_round();
  });
}

void Prober::begin_round() {
  const auto table = tracker_.table();
  if (!table->primary) return;
  const auto interval =
      std::chrono::duration_cast<router::Duration>(world_.plan().settings->config->role_check_interval);
  const auto pause = rounds_.begin(*table, now(), interval);
  if (!pause) return;
  world_.trace(fmt::format("positions are asked for in {} us", pause->count()));
  world_.at(*pause, [this, host = static_cast<int>(*table->primary)] { probe(host); });
}

void Prober::go_on_with_round(int host) {
  const auto table = tracker_.table();
  if (table->primary != static_cast<router::HostId>(host)) return rounds_.standby_answered();
  if (!rounds_.primary_answered()) return;
  for (int other = 0; other < cluster_.size(); ++other) {
    if (other != host) probe(other);
  }
}

void Prober::catalog_changed(const std::string& group, const std::string& dbname) {
  check_group(group);
  if (std::find(databases_.begin(), databases_.end(), dbname) == databases_.end())
    world_.fail("a change of a catalogue that is not there: " + dbname);
  cluster_.history().catalog_asked_for();
  world_.at(Duration(world_.rng().between(1, 100'000)), [this] { read_catalog(); });
}

void Prober::read_catalog() {
  catalog_ = router::CatalogKnowledge::build(register_catalog(), ++generation_, classifier_);
  for (pool::WorkerId worker = 0; worker < world_.plan().workers; ++worker) {
    world_.tell(worker, [this, catalog = catalog_, process = process_](core::WorkerCore& core) {
      if (process != process_) return;
      cluster_.history().catalog_published();
      for (const std::string& database : databases_) core.set_catalog(group_, database, catalog);
    });
  }
}

void Prober::begin_anew(const core::KnownClusters& known) {
  tracker_ = router::HostTracker(names_of(any_entry(world_)), policy_of(*world_.plan().settings->config));
  if (const auto own = known.find(group_); own != known.end()) tracker_.remember(own->second);
  rounds_ = {};
  ++process_;
  for (Probe& probe : probes_) {
    ++probe.number;  // answers to the old process find nobody
    probe.under_way = probe.connected = false;
  }
  begin();
}

// ---- probes ----

void Prober::host_stopped(int host) {
  Probe& probe = probes_[static_cast<std::size_t>(host)];
  if (!probe.connected || cluster_.is_cut(host)) return;
  probe.connected = false;
  world_.at(Duration(world_.rng().between(1, cluster_.plan().probe_max)), [this, host] {
    if (cluster_.is_cut(host)) return;
    tracker_.witness(static_cast<router::HostId>(host), router::Witness::ConnectionLost, now());
    told_something();
  });
}

void Prober::probe(int host) {
  Probe& probe = probes_[static_cast<std::size_t>(host)];
  if (probe.under_way) {
    probe.again = true;
    return;
  }
  probe.under_way = true;
  probe.again = false;
  probe.sent_at = now();
  const std::uint64_t number = ++probe.number;
  world_.at(world_.plan().settings->config->role_check_timeout,
            [this, host, number] { failed(host, number, router::ProbeFailure::Timeout); });
  if (world_.faults() && world_.rng().chance(cluster_.plan().probe_loss)) return;
  world_.at(Duration(world_.rng().between(1, cluster_.plan().probe_max)), [this, host, number] { ask(host, number); });
}

// The question has arrived, if it can.
void Prober::ask(int host, std::uint64_t number) {
  Probe& probe = probes_[static_cast<std::size_t>(host)];
  if (!probe.under_way || probe.number != number) return;
  const ClusterHost& target = cluster_.host(host);
  if (target.cut || target.frozen) {
    world_.at(Duration(5'000), [this, host, number] { ask(host, number); });
    return;
  }
  const Duration back(world_.rng().between(1, cluster_.plan().probe_max));
  if (!target.up || target.starting) {
    probe.connected = false;
    world_.at(back, [this, host, number] { failed(host, number, router::ProbeFailure::Refused); });
    return;
  }
  probe.connected = true;
  world_.at(back, [this, host, number, answer = cluster_.answer(host)] { answered(host, number, answer); });
}

void Prober::answered(int host, std::uint64_t number, const router::ProbeAnswer& answer) {
  Probe& probe = probes_[static_cast<std::size_t>(host)];
  if (!probe.under_way || probe.number != number) return;
  if (cluster_.is_cut(host)) {
    world_.at(Duration(5'000), [this, host, number, answer] { answered(host, number, answer); });
    return;
  }
  tracker_.probe_answered(static_cast<router::HostId>(host), answer, probe.sent_at, now());
  ended(host);
  go_on_with_round(host);
}

void Prober::failed(int host, std::uint64_t number, router::ProbeFailure failure) {
  Probe& probe = probes_[static_cast<std::size_t>(host)];
  if (!probe.under_way || probe.number != number) return;
  probe.connected = false;
  world_.trace(fmt::format("probe of host {} fails", host));
  tracker_.probe_failed(static_cast<router::HostId>(host), failure, probe.sent_at, now());
  ended(host);
}

void Prober::ended(int host) {
  Probe& ended = probes_[static_cast<std::size_t>(host)];
  ended.under_way = false;
  const bool again = ended.again;
  told_something();
  if (again && !ended.under_way) probe(host);
  const std::uint64_t number = ended.number;
  world_.at(world_.plan().settings->config->role_check_interval, [this, host, number] {
    if (probes_[static_cast<std::size_t>(host)].number == number) probe(host);
  });
}

void Prober::told_something() {
  for (const router::HostEvent& event : tracker_.take_events()) {
    world_.trace(fmt::format("tracker: host {} event {}", static_cast<int>(event.host), static_cast<int>(event.kind)));
  }
  const auto table = tracker_.table();
  for (pool::WorkerId worker = 0; worker < world_.plan().workers; ++worker) {
    world_.tell(worker, [this, table, worker, process = process_](core::WorkerCore& core) {
      if (process != process_) return;
      cluster_.history().table_published(worker, table);
      core.set_host_table(group_, table);
    });
  }
  for (const router::HostId host : tracker_.take_probe_requests()) probe(static_cast<int>(host));
}

}  // namespace pgweir::sim
