#include "tests/sim/cluster.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/prober.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

namespace {
constexpr std::uint64_t kSystemIdentifier = 7'000'000'001;
}  // namespace

// ---- BackendData ----

bool BackendData::recovers() const {
  return cluster_.host(host_).recovers;
}

std::optional<Failure> BackendData::interference() {
  Rng& rng = cluster_.world().rng();
  if (!recovers() || !cluster_.world().faults() || !rng.per_mille(cluster_.plan().conflicts)) return std::nullopt;
  ++cluster_.history().counts.conflicts;
  const bool ends = rng.chance(20);
  return Failure{"40001",
                 ends ? "terminating connection due to conflict with recovery"
                      : "canceling statement due to conflict with recovery",
                 ends, rng.chance(50)};
}

std::string BackendData::read(int key) {
  cluster_.history().read(host_, recovers());
  return cluster_.host(host_).cells[key].value;
}

void BackendData::written(const std::string& value) {
  cluster_.history().executed(host_, value);
}

void BackendData::refused() {
  ++cluster_.history().counts.refused;
}

bool BackendData::commit(Changes changes) {
  return cluster_.commit(host_, std::move(changes), pid_);
}

// ---- Cluster ----

Cluster::Cluster(World& world, const ClusterPlan& plan, std::vector<std::string> databases)
    : world_(world),
      plan_(plan),
      hosts_(static_cast<std::size_t>(plan.hosts)),
      history_(world, *this),
      backends_(hosts_.size()),
      incidents_left_(plan.incidents) {
  hosts_[0].recovers = false;
  hosts_[0].waits_for_standby = plan.synchronous;
  for (int i = 1; i < size(); ++i) host(i).upstream = 0;
  prober_ = std::make_unique<Prober>(world, *this, std::move(databases));
}

Cluster::~Cluster() = default;

Cluster::Connect Cluster::connect(int index) const {
  const ClusterHost& target = host(index);
  if (target.cut) return Connect::Hangs;
  if (!target.up) return Connect::Refused;
  if (target.frozen && !target.accepts_frozen) return Connect::Hangs;
  return Connect::Accepted;
}

void Cluster::proxy_restarted(const core::KnownClusters& known) {
  history_.proxy_restarted();
  prober_->begin_anew(known);
}

void Cluster::add_link(int index, const std::shared_ptr<Link>& link) {
  std::erase_if(connections_, [](const Connection& one) { return one.link.expired(); });
  connections_.push_back({link, index});
}

void Cluster::add_backend(int index, Backend& backend) {
  backends_[static_cast<std::size_t>(index)].push_back(&backend);
}

void Cluster::remove_backend(int index, Backend& backend) {
  std::erase(backends_[static_cast<std::size_t>(index)], &backend);
}

router::ProbeAnswer Cluster::answer(int index) const {
  const ClusterHost& target = host(index);
  router::ProbeAnswer answer;
  answer.in_recovery = target.recovers;
  answer.timeline = target.timeline;
  answer.system_identifier = kSystemIdentifier;
  if (target.recovers) {
    answer.receive_lsn = {target.end().lsn};
    answer.replay_lsn = {target.applied == 0 ? 0 : target.log[target.applied - 1].at.lsn};
    answer.replay_age = router::Duration(0);
  } else {
    answer.insert_lsn = {target.end().lsn};
  }
  return answer;
}

// ---- log ----

void Cluster::apply(ClusterHost& target, std::size_t records) {
  for (; target.applied < records; ++target.applied) {
    const ClusterHost::Record& record = target.log[target.applied];
    for (const auto& [key, value] : record.changes) target.cells[key] = {value, record.at};
  }
}

// As after a crash, which may lose what was not on disk yet.
void Cluster::rebuild(ClusterHost& target, std::size_t records) {
  target.cells.clear();
  target.applied = 0;
  apply(target, records);
}

bool Cluster::commit(int index, std::vector<std::pair<int, std::string>> changes, std::uint32_t pid) {
  ClusterHost& primary = host(index);
  if (primary.recovers) world_.fail("a standby commits");
  const Position at{primary.timeline, primary.end().lsn + static_cast<std::uint64_t>(world_.rng().between(50, 5'000))};
  for (const auto& [key, value] : changes) history_.committed(value, at);
  primary.log.push_back({at, ++last_record_, std::move(changes)});
  for (int i = 0; i < size(); ++i) plan_shipping(i);
  const bool waits = primary.waits_for_standby && pid != 0;
  if (waits) {
    primary.waiters_.push_back({primary.log.size(), pid});
  } else if (!primary.waits_for_standby) {
    acknowledge(index, primary.log.size());
  }
  return waits;
}

void Cluster::acknowledge(int index, std::size_t records) {
  ClusterHost& primary = host(index);
  primary.acknowledged = std::max(primary.acknowledged, records);
  apply(primary, primary.acknowledged);
  std::erase_if(primary.waiters_, [&](const ClusterHost::Waiter& waiter) {
    if (waiter.records > primary.acknowledged) return false;
    for (Backend* backend : backends_[static_cast<std::size_t>(index)]) {
      if (backend->pid() == waiter.pid) backend->commit_done();
    }
    return true;
  });
}

// What a standby has received it keeps, whatever becomes of it.
void Cluster::update_acknowledged(int index) {
  const ClusterHost& primary = host(index);
  if (!primary.serves() || primary.recovers) return;
  std::size_t received = 0;
  for (const ClusterHost& standby : hosts_) {
    if (standby.upstream == index && can_follow(standby, primary)) received = std::max(received, standby.log.size());
  }
  if (received > primary.acknowledged) acknowledge(index, received);
  if (plan_.synchronous && received == primary.log.size()) host(index).waits_for_standby = true;
}

// ---- replication ----

bool Cluster::can_follow(const ClusterHost& standby, const ClusterHost& primary) const {
  if (standby.log.size() > primary.log.size()) return false;
  return standby.log.empty() || standby.log.back().id == primary.log[standby.log.size() - 1].id;
}

void Cluster::plan_shipping(int index) {
  ClusterHost& standby = host(index);
  if (standby.shipping_ || !standby.upstream || !standby.recovers || !standby.serves()) return;
  const ClusterHost& primary = host(*standby.upstream);
  if (!primary.serves() || standby.log.size() >= primary.log.size()) return;
  standby.shipping_ = true;
  world_.at(Duration(world_.rng().between(1, plan_.ship_max)), [this, index] { ship(index); });
}

void Cluster::ship(int index) {
  ClusterHost& standby = host(index);
  standby.shipping_ = false;
  if (!standby.upstream || !standby.recovers || !standby.serves()) return;
  const int upstream = *standby.upstream;
  const ClusterHost& primary = host(upstream);
  if (!primary.serves() || primary.recovers || !can_follow(standby, primary)) return;
  const auto missing = static_cast<std::int64_t>(primary.log.size() - standby.log.size());
  if (missing > 0) {
    const auto first = primary.log.begin() + static_cast<std::ptrdiff_t>(standby.log.size());
    standby.log.insert(standby.log.end(), first, first + world_.rng().between(1, missing));
  }
  standby.timeline = primary.timeline;
  plan_replay(index);
  plan_shipping(index);
  world_.at(Duration(world_.rng().between(1, plan_.ship_max)), [this, upstream] { update_acknowledged(upstream); });
}

void Cluster::plan_replay(int index) {
  ClusterHost& standby = host(index);
  if (standby.replaying_ || !standby.recovers || standby.applied >= standby.log.size()) return;
  standby.replaying_ = true;
  world_.at(Duration(world_.rng().between(1, plan_.replay_max)), [this, index] { replay(index); });
}

void Cluster::replay(int index) {
  ClusterHost& standby = host(index);
  standby.replaying_ = false;
  if (!standby.recovers || !standby.serves() || standby.replay_paused || standby.applied >= standby.log.size()) return;
  const auto missing = static_cast<std::int64_t>(standby.log.size() - standby.applied);
  apply(standby, standby.applied + static_cast<std::size_t>(world_.rng().between(1, missing)));
  plan_replay(index);
}

// ---- what may happen to a host ----

void Cluster::stop(int index, Stop how) {
  ClusterHost& target = host(index);
  if (!target.up) return;
  world_.trace(fmt::format("host {} {}", index, how == Stop::Crash ? "crashes" : "is shut down"));
  target.up = target.frozen = target.starting = false;
  target.waiters_.clear();
  for (Backend* backend : std::vector<Backend*>(backends_[static_cast<std::size_t>(index)])) {
    if (how == Stop::Crash) {
      backend->crash();
    } else {
      backend->die();
    }
  }
  prober_->host_stopped(index);
}

void Cluster::start(int index, Duration within) {
  ClusterHost& target = host(index);
  if (target.up) return;
  world_.trace(fmt::format("host {} starts as a {} on timeline {}", index, target.recovers ? "standby" : "primary",
                           target.timeline));
  target.up = target.starting = true;
  if (target.recovers) {
    // What was replayed and not on disk is replayed again.
    const auto back = static_cast<std::size_t>(world_.rng().below(20));
    rebuild(target, target.applied - std::min(target.applied, back));
  } else {
    apply(target, target.log.size());
  }
  world_.at(Duration(world_.rng().between(1, within.count())), [this, index] {
    ClusterHost& started = host(index);
    started.starting = false;
    plan_shipping(index);
    plan_replay(index);
    for (int i = 0; i < size(); ++i) {
      if (host(i).upstream == index) plan_shipping(i);
    }
  });
}

void Cluster::freeze(int index) {
  ClusterHost& target = host(index);
  if (!target.up) return;
  target.frozen = true;
  target.accepts_frozen = world_.rng().chance(50);
  world_.trace(fmt::format("host {} freezes", index));
}

void Cluster::thaw(int index) {
  ClusterHost& target = host(index);
  if (!target.frozen) return;
  world_.trace(fmt::format("host {} thaws", index));
  target.frozen = false;
  for (Backend* backend : std::vector<Backend*>(backends_[static_cast<std::size_t>(index)])) backend->thaw();
  for (const Connection& one : std::vector<Connection>(connections_)) {
    if (const auto link = one.link.lock(); link && one.host == index) link->resume();
  }
  plan_replay(index);
  update_acknowledged(index);
  for (int i = 0; i < size(); ++i) plan_shipping(i);
}

void Cluster::cut(int index) {
  world_.trace(fmt::format("nothing passes between the proxy and host {}", index));
  host(index).cut = true;
}

void Cluster::heal(int index) {
  if (!host(index).cut) return;
  world_.trace(fmt::format("the network to host {} works again", index));
  host(index).cut = false;
  for (const Connection& one : std::vector<Connection>(connections_)) {
    if (const auto link = one.link.lock(); link && one.host == index) link->resume();
  }
}

void Cluster::pause_replay(int index, bool on) {
  world_.trace(fmt::format("replay of host {} {}", index, on ? "pauses" : "goes on"));
  host(index).replay_paused = on;
  if (!on) plan_replay(index);
}

// The standby replays all it has, and is a primary at once. Those that can follow it do; the old primary gets no
// receipts from standbys any more.
void Cluster::promote(int index) {
  ClusterHost& target = host(index);
  target.recovers = false;
  target.replay_paused = false;
  target.upstream.reset();
  apply(target, target.log.size());
  target.acknowledged = target.log.size();
  ++target.timeline;
  target.waits_for_standby = false;
  world_.trace(fmt::format("host {} is promoted to timeline {}", index, target.timeline));
  ++history_.counts.promotions;
  leader_ = index;
  for (int i = 0; i < size(); ++i) {
    if (i == index || !host(i).recovers) continue;
    host(i).upstream.reset();
    if (can_follow(host(i), target)) follow_leader(i);
  }
  for (Backend* backend : backends_[static_cast<std::size_t>(index)]) backend->set_hot_standby(false);
  const std::int64_t archived = world_.rng().between(1, 100'000);
  world_.at(Duration(archived), [this] { write_something(); });
}

void Cluster::follow_leader(int index) {
  host(index).upstream = leader_;
  world_.at(Duration(world_.rng().between(1, plan_.ship_max * 10)), [this, index] { ship(index); });
}

// A host that is down comes back as a standby of the leader, rewound to where their ways parted.
void Cluster::rejoin(int index, Duration starts_within) {
  // Another incident may have made it the leader, or started it.
  if (index == leader_) return start(index, starts_within);
  stop(index, Stop::Crash);
  ClusterHost& target = host(index);
  const ClusterHost& primary = host(leader_);
  const auto [mine, theirs] =
      std::mismatch(target.log.begin(), target.log.end(), primary.log.begin(), primary.log.end(),
                    [](const ClusterHost::Record& a, const ClusterHost::Record& b) { return a.id == b.id; });
  target.log.erase(mine, target.log.end());
  target.recovers = true;
  target.waits_for_standby = target.to_be_given_up = false;
  target.timeline = target.log.empty() ? 1 : target.log.back().at.timeline;
  target.applied = std::min(target.applied, target.log.size());
  start(index, starts_within);
  follow_leader(index);
}

// A commit that no client waits for, as a checkpoint's record.
void Cluster::write_something() {
  ClusterHost& primary = host(leader_);
  if (primary.serves() && !primary.recovers) (void)commit(leader_, {}, 0);
}

// As a cluster manager does: a primary whose standbys are gone for long goes on alone.
void Cluster::lose_standbys_later() {
  world_.at(Duration(world_.rng().between(10'000, plan_.incident_max + 20'000)), [this] {
    ClusterHost& primary = host(leader_);
    const bool followed = std::any_of(hosts_.begin(), hosts_.end(), [&](const ClusterHost& one) {
      return one.upstream == leader_ && one.serves() && !one.starting && can_follow(one, primary);
    });
    if (followed || !primary.serves() || primary.recovers || !primary.waits_for_standby) return;
    world_.trace(fmt::format("host {} no longer waits for standbys", leader_));
    primary.waits_for_standby = false;
    acknowledge(leader_, primary.log.size());
  });
}

void Cluster::check_end() {
  history_.check_end();
}

}  // namespace pgweir::sim
