// Online restart in the simulated world: when the process is at rest, everything its sessions know goes through the
// bytes of the handover into workers and pools made anew, on the same connections. Clients and backends are to notice
// nothing.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "proxy/core/handover.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

namespace {
/// For coming to rest; if faults or long queries are in the way, it goes on as it was.
constexpr Duration kPatience = std::chrono::seconds(2);
}  // namespace

void World::restart(int times) {
  if (times == 0) return;
  at(Duration(rng_.between(1, 300'000)), [this, times] {
    trace("SUSPEND");
    set_suspending(true);
    suspended_ = true;
    freeze(now_ + kPatience, [this, times] { restart(times - 1); });
  });
}

void World::settle_all() {
  for (pool::WorkerId id = 0; id < plan_.workers; ++id) settle(id);
}

void World::set_suspending(bool on) {
  pools_->set_opening(!on, now_, cores_[0]->actions());
  for (const auto& core : cores_) core->set_suspending(on);
  settle_all();
}

// Stricter than the process: there, replication stays behind.
bool World::at_rest() {
  for (const auto& core : cores_) core->end_batch();
  if (under_way_ > 0 || !pools_->at_rest()) return false;
  return std::all_of(cores_.begin(), cores_.end(), [](const auto& core) {
    return core->at_rest() && std::all_of(core->clients().begin(), core->clients().end(),
                                          [](const auto& one) { return core::can_change_over(*one.second); });
  });
}

// As the process does it: all workers stop, one after the other, and then it is seen whether what was under way between
// them has begun something new.
void World::freeze(TimePoint give_up, std::function<void()> then) {
  for (pool::WorkerId id = 0; id < plan_.workers; ++id) {
    at(Duration(rng_.below(500)), [this, id] { cores_[id]->set_frozen(true); });
  }
  at(Duration(rng_.between(501, 3'000)), [this, give_up, then = std::move(then)] {
    if (at_rest()) return change_over(then);
    for (const auto& core : cores_) core->set_frozen(false);
    if (now_ >= give_up) {
      trace("RESUME of a SUSPEND");
      set_suspending(false);
      accept_pending();
      arm_pools();
      return then();
    }
    settle_all();
    arm_pools();
    at(Duration(2'000), [this, give_up, then] { freeze(give_up, then); });
  });
}

void World::accept_pending() {
  suspended_ = false;
  for (const auto& link : std::exchange(pending_, {})) accept(link);
}

// The other process is told; nothing may happen in this one any more, however long it takes to go.
void World::change_over(std::function<void()> then) {
  auto handed = std::make_shared<Handed>();
  auto& [clusters, links, rows] = *handed;
  core::ProcessHandover process;
  process.clusters = cores_[0]->known_clusters();
  const auto told = core::decode_process(encode(process));
  if (!told) fail("what a process tells of itself cannot be read");
  clusters = told->clusters;
  const auto keep = [&](auto& session) {
    const auto& link = static_cast<SimPort&>(session.port()).shared_link();
    links[link->number()] = link;
  };
  for (const auto& core : cores_) {
    for (const auto& [id, client] : core->clients()) keep(*client);
    for (const auto& [id, server] : core->servers()) keep(*server);
    auto own = core::handover_rows(*core, true);
    std::move(own.begin(), own.end(), std::back_inserter(rows));
  }
  handed_over_ = true;
  at(Duration(rng_.between(1, 3'000)), [this, handed, then = std::move(then)] {
    take_over(*handed);
    then();
  });
}

void World::check_in_charge(const char* what) const {
  if (handed_over_) fail(fmt::format("a process whose connections are another's {}", what));
}

void World::take_over(Handed& handed) {
  auto& [clusters, links, rows] = handed;
  handed_over_ = false;
  for (const auto& core : cores_) {
    core->forget_changed_over();
    if (!core->clients().empty() || !core->servers().empty()) fail("something at rest cannot change over");
  }
  trace(fmt::format("another process takes over {} sockets", rows.size()));
  start_process();
  if (cluster_) cluster_->proxy_restarted(clusters);
  set_suspending(true);
  std::map<int, core::FdRow*> servers;
  for (core::FdRow& row : rows) {
    if (row.task == "server") servers[row.fd] = &row;
  }
  const auto newcomer = [&](core::FdRow& row, pool::WorkerId worker) {
    const std::shared_ptr<Link>& link = links.at(row.fd);
    link->set_interest(true, false, false);
    link->set_worker(worker);
    core::PeerAddress address;
    address.host = "127.0.0.1";
    return core::Newcomer{std::move(row), std::make_unique<SimPort>(link), std::move(address)};
  };
  for (core::FdRow& row : rows) {
    const bool comes_with_client = servers.contains(row.fd) && row.link != 0;
    if (comes_with_client) continue;
    const auto worker = static_cast<pool::WorkerId>(rng_.below(plan_.workers));
    core::Newcomers newcomers;
    const int partner = row.link;
    auto& place = row.task == "client" ? newcomers.client : newcomers.server;
    place = newcomer(row, worker);
    if (partner != 0) newcomers.server = newcomer(*servers.at(partner), worker);
    cores_[worker]->take_over(std::move(newcomers));
    settle(worker);
  }
  set_suspending(false);
  accept_pending();
  arm_pools();
}

}  // namespace pgweir::sim
