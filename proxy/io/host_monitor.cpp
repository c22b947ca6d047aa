#include "proxy/io/host_monitor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <optional>
#include <utility>

#include "proxy/core/host_group.hpp"
#include "proxy/core/position_demand.hpp"
#include "proxy/io/clock.hpp"
#include "proxy/io/logger.hpp"

namespace pgweir::io {

namespace {

/// The answers of several hosts that come together make one snapshot.
constexpr std::chrono::milliseconds kTick{2};
/// Standbys are asked so soon after the primary: what it had written by then they have replayed by then, mostly, and
/// reads of a client's own writes may go there half an interval earlier.
constexpr std::chrono::milliseconds kFollow{10};
/// In a round that clients wait for: what was acknowledged before it is on its way to the standbys, or there.
constexpr std::chrono::milliseconds kFollowClosely{1};
/// When the primary has been lost, those who may be promoted are asked so often, for so long: an automatic failover is
/// over by then. A list without any primary is none that waits for one.
constexpr std::chrono::milliseconds kUrgent{100};
constexpr std::chrono::seconds kFailover{60};

router::TimePoint router_now() {
  return core::router_time(monotonic_now());
}

std::vector<std::string> host_names(const std::vector<core::HostPort>& hosts) {
  std::vector<std::string> names;
  for (const core::HostPort& host : hosts) names.push_back(fmt::format("{}:{}", host.host, host.port));
  return names;
}

// What matters to those who read catalogues; positions, which move with every probe, do not.
bool same_roles(const router::HostTable& a, const router::HostTable& b) {
  return a.primary == b.primary &&
         std::equal(a.hosts.begin(), a.hosts.end(), b.hosts.begin(), b.hosts.end(), [](const auto& x, const auto& y) {
           return x.health == y.health && x.role == y.role && x.takes_reads() == y.takes_reads();
         });
}

}  // namespace

struct HostMonitor::Group {
  Group(boost::asio::io_context& context, std::string own_name, const core::MonitoredGroup& what,
        const router::TrackerPolicy& policy)
      : name(std::move(own_name)),
        plan(what),
        tracker(host_names(what.hosts), policy),
        reporter(what.databases),
        publish_timer(context) {}

  std::string name;
  core::MonitoredGroup plan;
  router::HostTracker tracker;
  core::HostReporter reporter;
  core::ProbeRounds rounds;
  boost::asio::steady_timer publish_timer;
  bool publishing = false;  // the timer runs
  bool had_primary = false;
  std::chrono::steady_clock::time_point primary_lost_at{};
  std::chrono::steady_clock::time_point published_at{};
  std::shared_ptr<const router::HostTable> known_roles;  // those that the reader of catalogues has been told
  std::vector<bool> rights_told;
  std::shared_ptr<char> alive = std::make_shared<char>();  // what the timer has queued may outlive the group
  std::vector<std::unique_ptr<HostProber>> probers;        // by HostId; last, for they call back
};

HostMonitor::HostMonitor(Outlets outlets, core::KnownClusters known)
    : outlets_(std::move(outlets)),
      known_(std::move(known)),
      work_(boost::asio::make_work_guard(context_)),
      catalogs_(outlets_.catalog, outlets_.lookup),
      patroni_(
          context_,
          [this](const std::string& name, Resolver::Callback reply) {
            outlets_.lookup(name, context_, std::move(reply));
          },
          [this](const std::vector<core::PatroniMember>& members) { take_members(members); }) {}

HostMonitor::~HostMonitor() {
  context_.stop();
  if (thread_.joinable()) thread_.join();
}

// ---- what to watch ----

void HostMonitor::apply(const core::Settings& settings) {
  core::MonitorPlan plan = make_monitor_plan(settings);
  if (!thread_.joinable()) {
    if (plan.groups.empty()) return;
    thread_ = std::thread([this] { context_.run(); });
    catalogs_.start();
  }
  boost::asio::post(context_, [this, plan = std::move(plan)]() mutable { take_plan(std::move(plan)); });
}

void HostMonitor::take_plan(core::MonitorPlan plan) {
  plan_ = std::move(plan);
  for (auto group = groups_.begin(); group != groups_.end();) {
    if (plan_.groups.contains(group->first)) {
      ++group;
      continue;
    }
    drop_group(*group->second);
    group = groups_.erase(group);
  }
  catalogs_.set_groups(plan_.groups);
  for (const auto& [name, what] : plan_.groups) {
    if (const auto known = groups_.find(name); known != groups_.end()) {
      change_group(*known->second, what);
    } else {
      make_group(name, what);
    }
  }
  TlsSettings tls;
  tls.sslmode = "verify-full";
  tls.ca_file = plan_.patroni_ca_file;
  if (plan_.patroni_urls.empty()) members_.clear();
  if (plan_.patroni_is_source && !members_.empty()) outlets_.members(members_);
  patroni_.set(plan_.patroni_urls, timing(), tls);
}

void HostMonitor::make_group(const std::string& name, const core::MonitoredGroup& what) {
  Group& group = *(groups_[name] = std::make_unique<Group>(context_, name, what, plan_.policy));
  group.rights_told.resize(what.hosts.size());
  if (const auto known = known_.find(name); known != known_.end()) group.tracker.remember(known->second);
  const NameLookup lookup = [this](const std::string& host, Resolver::Callback reply) {
    outlets_.lookup(host, context_, std::move(reply));
  };
  for (std::size_t i = 0; i < what.hosts.size(); ++i) {
    const auto id = static_cast<router::HostId>(i);
    HostProber::Callbacks callbacks;
    callbacks.answered = [this, &group, id](const router::ProbeAnswer& answer, router::TimePoint sent_at) {
      answered(group, id, answer, sent_at);
    };
    callbacks.failed = [this, &group, id](router::ProbeFailure failure, const std::string& text,
                                          router::TimePoint sent_at) {
      group.tracker.probe_failed(id, failure, sent_at, router_now(), text);
      settle(group);
    };
    callbacks.lost = [this, &group, id] {
      group.tracker.witness(id, router::Witness::ConnectionLost, router_now());
      settle(group);
    };
    callbacks.lacks_monitor_role = [this, &group, id] { lacks_monitor_role(group, id); };
    group.probers.push_back(
        std::make_unique<HostProber>(context_, what.hosts[i], what.login, timing(), lookup, std::move(callbacks)));
  }
  publish(group);
  for (const auto& prober : group.probers) prober->start();
}

// The tracker stays: what it knows of these hosts is as true as before.
void HostMonitor::change_group(Group& group, const core::MonitoredGroup& what) {
  group.plan = what;
  group.reporter.set_databases(what.databases);
  group.tracker.set_policy(plan_.policy);
  for (const auto& prober : group.probers) {
    prober->set_timing(timing());
    prober->set_login(what.login);
  }
}

// Should the same list come back, nobody is to act upon what was known of it long ago.
void HostMonitor::drop_group(Group& group) {
  const router::HostTracker blank(host_names(group.plan.hosts), plan_.policy);
  outlets_.table(group.name, blank.table());
}

// ---- what the workers have seen ----

void HostMonitor::witness(const std::string& group, router::HostId host, router::Witness witness) {
  const Note note{group, host, witness};
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    // When thousand connections break at once, they all say the same.
    if (std::find(notes_.begin(), notes_.end(), note) != notes_.end()) return;
    first = notes_.empty() && wanted_.empty();
    notes_.push_back(note);
  }
  if (first) boost::asio::post(context_, [this] { take_notes(); });
}

void HostMonitor::positions_wanted(const std::string& group) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (std::find(wanted_.begin(), wanted_.end(), group) != wanted_.end()) return;
    first = notes_.empty() && wanted_.empty();
    wanted_.push_back(group);
  }
  if (first) boost::asio::post(context_, [this] { take_notes(); });
}

void HostMonitor::take_notes() {
  std::vector<Note> notes;
  std::vector<std::string> wanted;
  {
    const std::lock_guard lock(mutex_);
    notes.swap(notes_);
    wanted.swap(wanted_);
  }
  for (const std::string& name : wanted) {
    if (const auto found = groups_.find(name); found != groups_.end()) begin_round(*found->second);
  }
  for (const Note& note : notes) {
    const auto found = groups_.find(note.group);
    if (found == groups_.end()) continue;
    Group& group = *found->second;
    if (static_cast<std::size_t>(note.host) >= group.probers.size()) continue;
    group.tracker.witness(note.host, note.witness, router_now());
    settle(group);
  }
}

void HostMonitor::begin_round(Group& group) {
  const auto table = group.tracker.table();
  if (!table->primary) return;
  const auto pause =
      group.rounds.begin(*table, router_now(), std::chrono::duration_cast<router::Duration>(plan_.interval));
  if (pause) group.probers[static_cast<std::size_t>(*table->primary)]->probe_within(*pause);
}

void HostMonitor::catalog_changed(const std::string& group, const std::string& dbname) {
  catalogs_.changed(group, dbname);
}

void HostMonitor::addresses_changed(const std::string& name, const std::vector<std::string>& addresses) {
  boost::asio::post(context_, [this, name, addresses] {
    for (const auto& [group_name, group] : groups_) {
      for (const auto& prober : group->probers) prober->addresses_changed(name, addresses);
    }
  });
}

// ---- what the probes say ----

void HostMonitor::answered(Group& group, router::HostId host, const router::ProbeAnswer& answer,
                           router::TimePoint sent_at) {
  group.tracker.probe_answered(host, answer, sent_at, router_now());
  settle(group);
  if (group.tracker.table()->primary == host) {
    follow_primary(group, group.rounds.primary_answered() ? kFollowClosely : kFollow);
  } else if (group.tracker.table()->host(host).role == router::HostRole::Standby) {
    group.rounds.standby_answered();
  }
}

void HostMonitor::follow_primary(Group& group, pool::Duration delay) {
  const auto table = group.tracker.table();
  for (std::size_t i = 0; i < group.probers.size(); ++i) {
    const router::HostState& host = table->hosts[i];
    if (host.role == router::HostRole::Standby && host.health == router::HostHealth::Up) {
      group.probers[i]->follow_within(delay);
    }
  }
}

void HostMonitor::lacks_monitor_role(Group& group, router::HostId host) {
  const auto index = static_cast<std::size_t>(host);
  if (group.rights_told[index]) return;
  group.rights_told[index] = true;
  log().warning(
      "{}: user {} is not a member of pg_monitor on {}: after a failover this host takes no reads before its next "
      "restartpoint, because the timeline that it streams is hidden",
      group.plan.databases, group.plan.login.user, group.tracker.table()->host(host).name);
}

// ---- what Patroni says ----

// Whatever has changed there, the hosts themselves are asked what it means.
void HostMonitor::take_members(const std::vector<core::PatroniMember>& members) {
  if (members == members_) return;
  for (const core::PatroniMember& member : members) {
    const auto known =
        std::find_if(members_.begin(), members_.end(), [&](const auto& one) { return one.host == member.host; });
    if (known == members_.end() && !plan_.patroni_is_source) tell_unlisted(member);
    if (member.leads() && (known == members_.end() || !known->leads())) {
      log().info("Patroni: {} at {}:{} leads", member.name, member.host.host, member.host.port);
    }
  }
  members_ = members;
  if (plan_.patroni_is_source) outlets_.members(members_);
  for (const auto& [name, group] : groups_) {
    for (const auto& prober : group->probers) prober->probe_now();
  }
}

void HostMonitor::tell_unlisted(const core::PatroniMember& member) const {
  const bool listed = std::any_of(groups_.begin(), groups_.end(), [&](const auto& group) {
    const auto& hosts = group.second->plan.hosts;
    return std::find(hosts.begin(), hosts.end(), member.host) != hosts.end();
  });
  if (listed) return;
  log().warning("Patroni: {} at {}:{} is a member of the cluster, but in the host list of no database", member.name,
                member.host.host, member.host.port);
}

// After each event of a tracker: probes that it wants, lines for the log, a snapshot for the workers.
void HostMonitor::settle(Group& group) {
  for (const router::HostId id : group.tracker.take_probe_requests()) {
    group.probers[static_cast<std::size_t>(id)]->probe_now();
  }
  const auto table = group.tracker.table();
  hurry(group);
  publish_soon(group);
  for (const core::HostLine& line : group.reporter.lines(*table, group.tracker.take_events())) {
    log().write(static_cast<LogLevel>(line.level), line.text);
  }
}

void HostMonitor::hurry(Group& group) {
  const auto table = group.tracker.table();
  const auto now = std::chrono::steady_clock::now();
  if (std::exchange(group.had_primary, table->primary.has_value()) && !table->primary) group.primary_lost_at = now;
  if (table->primary || now >= group.primary_lost_at + kFailover) return;
  for (std::size_t i = 0; i < group.probers.size(); ++i) {
    if (table->hosts[i].health == router::HostHealth::Up) group.probers[i]->probe_within(kUrgent);
  }
}

// ---- to the workers ----

void HostMonitor::publish_soon(Group& group) {
  if (group.publishing) return;
  const auto earliest = group.published_at + kTick;
  if (std::chrono::steady_clock::now() >= earliest) return publish(group);
  group.publishing = true;
  group.publish_timer.expires_at(earliest);
  group.publish_timer.async_wait(
      [this, &group, alive = std::weak_ptr<char>(group.alive)](const boost::system::error_code& error) {
        if (error || alive.expired()) return;
        group.publishing = false;
        publish(group);
      });
}

void HostMonitor::publish(Group& group) {
  group.published_at = std::chrono::steady_clock::now();
  const auto table = group.tracker.table();
  outlets_.table(group.name, table);
  if (group.known_roles && same_roles(*group.known_roles, *table)) return;
  group.known_roles = table;
  catalogs_.set_table(group.name, table);
}

}  // namespace pgweir::io
