// What happens to the hosts of the simulated cluster, one incident after the other, each with an operator (or a cluster
// manager) who reacts late. Every incident ends with one primary that all others follow.
#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/cluster.hpp"
#include "tests/sim/console_client.hpp"
#include "tests/sim/prober.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

void Cluster::begin() {
  calm_ = incidents_left_ == 0;
  prober_->begin();
  next_incident();
}

void Cluster::next_incident() {
  if (incidents_left_ <= 0) {
    calm_ = true;
    return;
  }
  world_.at(Duration(world_.rng().between(1, plan_.calm_max)), [this] {
    if (incidents_left_ <= 0) {
      calm_ = true;
      return;
    }
    --incidents_left_;
    ++history_.counts.incidents;
    incident();
  });
}

void Cluster::incident() {
  write_something();
  switch (world_.rng().below(15)) {
    case 0:
    case 1:
      return crash_leader();
    case 2:
      return disturb_leader(true);
    case 3:
    case 4:
      return disturb_leader(false);
    case 5:
    case 6:
      return disturb_standby();
    case 7:
      return lag();
    case 8:
      return switch_over();
    case 9:
      return crash_all();
    case 10:
    case 11:
      return switch_over_by_console();
    case 12:
      return demote();
    case 13:
      return plan_.synchronous ? split_brain() : promote_both();
    default:
      return split_brain();
  }
}

void Cluster::incident_over() {
  lose_standbys_later();
  next_incident();
}

void Cluster::later(std::function<void()> then) {
  // Some steps follow each other closely, others give everybody time to notice.
  const std::int64_t most = world_.rng().chance(30) ? plan_.incident_max : plan_.incident_max / 10;
  world_.at(Duration(world_.rng().between(1'000, most + 1'000)), std::move(then));
}

// Who may become primary: nothing that clients were told about is missing there, and the leader cannot go on alone.
std::optional<int> Cluster::candidate() const {
  const ClusterHost& primary = host(leader_);
  if (plan_.synchronous && !primary.waits_for_standby) return std::nullopt;
  std::optional<int> best;
  for (int i = 0; i < size(); ++i) {
    const ClusterHost& one = host(i);
    if (i == leader_ || !one.recovers || !one.serves() || one.starting || !can_follow(one, primary)) continue;
    if (plan_.synchronous && one.log.size() < primary.acknowledged) continue;
    if (!best || one.log.size() > host(*best).log.size()) best = i;
  }
  return best;
}

std::optional<int> Cluster::any_standby() {
  std::vector<int> standbys;
  for (int i = 0; i < size(); ++i) {
    if (i != leader_ && host(i).recovers && host(i).serves()) standbys.push_back(i);
  }
  if (standbys.empty()) return std::nullopt;
  return standbys[world_.rng().below(standbys.size())];
}

// An old primary beside a new one: for a while it may go on to believe that it is one.
void Cluster::bring_back(int old) {
  if (old == leader_) {
    start(old);
    return incident_over();
  }
  if (world_.rng().chance(60)) {
    stop(old, Stop::Crash);
    later([this, old] {
      rejoin(old);
      incident_over();
    });
    return;
  }
  start(old);
  later([this, old] {
    stop(old, world_.rng().chance(50) ? Stop::Crash : Stop::Fast);
    later([this, old] {
      rejoin(old);
      incident_over();
    });
  });
}

void Cluster::crash_leader() {
  const int old = leader_;
  stop(old, world_.rng().chance(70) ? Stop::Crash : Stop::Fast);
  if (world_.rng().chance(20)) return last_out(old);
  later([this, old] {
    const auto next = candidate();
    if (next && world_.rng().chance(80)) promote(*next);
    later([this, old] { bring_back(old); });
  });
}

// Nobody takes over, and it comes back when those who waited for it have given up.
void Cluster::last_out(int old) {
  constexpr Duration longest = std::chrono::seconds(5);
  const Duration wait = world_.plan().settings->config->failover_wait_timeout;
  const Duration out = std::min(wait, longest) + std::chrono::seconds(5);
  world_.at(out, [this, old] { bring_back(old); });
}

// A standby is promoted, and the primary is a standby at once, before the proxy has noticed.
void Cluster::demote() {
  const int old = leader_;
  stop_in_order(old);
  const auto next = candidate();
  if (!next) return bring_back(old);
  world_.at(Duration(world_.rng().between(1, 2'000)), [this, old, index = *next] {
    if (!host(index).serves()) return bring_back(old);
    promote(index);
    rejoin(old, Duration(world_.rng().between(1, 2'000)));
    incident_over();
  });
}

// It stands still, or the proxy does not reach it; perhaps somebody else takes over meanwhile.
void Cluster::disturb_leader(bool by_freezing) {
  const int old = leader_;
  if (by_freezing) {
    freeze(old);
  } else {
    cut(old);
  }
  later([this, old] {
    const auto next = candidate();
    if (next && world_.rng().chance(60)) promote(*next);
    later([this, old] {
      thaw(old);
      heal(old);
      if (old == leader_) return incident_over();
      later([this, old] {
        stop(old, Stop::Crash);
        later([this, old] { bring_back(old); });
      });
    });
  });
}

void Cluster::disturb_standby() {
  const auto standby = any_standby();
  if (!standby) return incident_over();
  lose_standbys_later();
  const std::uint64_t how = world_.rng().below(4);
  if (how == 0) freeze(*standby);
  if (how == 1) cut(*standby);
  if (how == 2) stop(*standby, Stop::Crash);
  if (how == 3) stop(*standby, Stop::Fast);
  later([this, index = *standby] {
    thaw(index);
    heal(index);
    start(index);
    incident_over();
  });
}

void Cluster::lag() {
  const auto standby = any_standby();
  if (!standby) return incident_over();
  pause_replay(*standby, true);
  next_incident();
  later([this, index = *standby] {
    if (host(index).recovers) pause_replay(index, false);
  });
}

// The primary ends only after its standbys have received everything.
void Cluster::stop_in_order(int old) {
  stop(old, Stop::Fast);
  for (int i = 0; i < size(); ++i) {
    ClusterHost& standby = host(i);
    if (!standby.recovers || !standby.serves() || standby.upstream != old || !can_follow(standby, host(old))) continue;
    standby.log = host(old).log;
    plan_replay(i);
  }
}

// With the proxy's help: no client is to hear of it.
void Cluster::switch_over_by_console() {
  // Also when the console has given up, the operator finishes what was begun before anything else happens.
  auto under_way = std::make_shared<int>(1);
  const auto part_done = [this, under_way] {
    if (--*under_way == 0) later([this] { incident_over(); });
  };
  const auto promote_it = [this, under_way, part_done](int next) {
    const int old = leader_;
    if (next == old || !host(next).recovers) world_.fail("the console names a host that is no standby");
    ++*under_way;
    // A host whose probes are lost is taken for lost, and so are its transactions.
    history_.set_quiet(!world_.disturbed() && plan_.probe_loss == 0);
    stop_in_order(old);
    later([this, old, next, part_done] {
      promote(next);
      later([this, old, part_done] {
        rejoin(old);
        part_done();
      });
    });
  };
  const auto over = [this, part_done](bool done) {
    if (done) ++history_.counts.switchovers;
    history_.set_quiet(false);
    part_done();
  };
  auto console = std::make_unique<ConsoleClient>(world_, ConsoleClient::Reactions{promote_it, over});
  console->switch_over("app");
  console_ = std::move(console);
}

void Cluster::switch_over() {
  const int old = leader_;
  stop_in_order(old);
  const auto next = candidate();
  later([this, old, next] {
    if (next && host(*next).serves()) promote(*next);
    bring_back(old);
  });
}

void Cluster::crash_all() {
  std::vector<int> order;
  for (int i = 0; i < size(); ++i) {
    stop(i, world_.rng().chance(70) ? Stop::Crash : Stop::Fast);
    order.insert(order.begin() + static_cast<std::ptrdiff_t>(world_.rng().below(order.size() + 1)), i);
  }
  for (const int index : order) later([this, index] { start(index); });
  world_.at(Duration(plan_.incident_max * 2), [this] { incident_over(); });
}

// A standby is promoted though nothing is wrong with the primary.
void Cluster::split_brain() {
  const int old = leader_;
  const auto next = candidate();
  if (!next) return incident_over();
  promote(*next);
  later([this, old] {
    stop(old, world_.rng().chance(50) ? Stop::Crash : Stop::Fast);
    later([this, old] { bring_back(old); });
  });
}

// Two standbys are promoted to the same timeline; one of them has to give in.
void Cluster::promote_both() {
  const int old = leader_;
  std::vector<int> standbys;
  for (int i = 0; i < size(); ++i) {
    if (i != old && host(i).recovers && host(i).serves() && can_follow(host(i), host(old))) standbys.push_back(i);
  }
  if (standbys.size() < 2) return split_brain();
  stop(old, Stop::Crash);
  later([this, old, standbys] {
    const auto up = [&](int i) { return host(i).recovers && host(i).serves() && !host(i).starting; };
    if (!up(standbys[0]) || !up(standbys[1])) return bring_back(old);
    promote(standbys[1]);
    host(standbys[1]).to_be_given_up = true;
    promote(standbys[0]);
    later([this, old, loser = standbys[1]] {
      stop(loser, Stop::Crash);
      later([this, old, loser] {
        rejoin(loser);
        bring_back(old);
      });
    });
  });
}

}  // namespace pgweir::sim
