#include "tests/sim/history.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/cluster.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

namespace {
/// Three attempts, and one on the primary of what a standby has refused. A process that takes over begins to count
/// anew.
constexpr int kSentMax = 4;
}  // namespace

void HistoryCounts::add(const HistoryCounts& other) {
  reads += other.reads;
  reads_on_standby += other.reads_on_standby;
  writes += other.writes;
  acknowledged += other.acknowledged;
  resent_reads += other.resent_reads;
  refused += other.refused;
  conflicts += other.conflicts;
  promotions += other.promotions;
  switchovers += other.switchovers;
  incidents += other.incidents;
  lost_connections += other.lost_connections;
  timeouts += other.timeouts;
}

std::string HistoryCounts::text() const {
  return fmt::format(
      "{} reads, {} on standbys, {} sent again; {} writes, {} acknowledged, {} refused; {} conflicts, {} connections "
      "lost, {} timeouts; {} incidents, {} promotions, {} switchovers",
      reads, reads_on_standby, resent_reads, writes, acknowledged, refused, conflicts, lost_connections, timeouts,
      incidents, promotions, switchovers);
}

// ---- what the proxy does ----

void History::table_published(pool::WorkerId worker, const std::shared_ptr<const router::HostTable>& table) {
  if (table->primary) {
    const router::HostState& primary = table->host(*table->primary);
    if (primary.health == router::HostHealth::Fenced) world_.fail("a fenced host is the primary of the table");
    if (table->version > newest_table_) {
      if (primary.timeline < highest_timeline_) world_.fail("the primary's timeline went back");
      highest_timeline_ = primary.timeline;
    }
  }
  newest_table_ = std::max(newest_table_, table->version);
  if (table->primary) {
    without_primary_.erase(worker);
  } else {
    without_primary_.emplace(worker, world_.now());
  }
}

std::optional<pool::TimePoint> History::without_primary_since(pool::WorkerId worker) const {
  const auto it = without_primary_.find(worker);
  const auto known = world_.known_hosts(worker);
  if (!known || known->primary) return std::nullopt;
  return it == without_primary_.end() ? std::nullopt : std::optional(it->second);
}

bool History::catalog_known() const {
  return catalogs_ >= world_.plan().workers;
}

void History::proxy_restarted() {
  ++restarts_;
  catalogs_ = 0;
  highest_timeline_ = 0;
  newest_table_ = 0;
  without_primary_.clear();
}

int History::times_sent(const std::string& mark) const {
  const auto it = sent_.find(mark);
  return it == sent_.end() ? 0 : it->second;
}

void History::sent(const Sent& what) {
  for (const std::string& mark : what.marks) {
    reached_.insert(mark);
    if (mark.front() == 'w' && what.type != 'P') {
      check_allowed(what, mark);
      if (times_sent(mark) > 0) world_.fail("the write of " + mark + " was sent to servers twice");
    }
    check_proven(what, mark);
    if (what.type == 'P') continue;
    const int times = ++sent_[mark];
    if (times == 2 && mark.front() == 'c') ++counts.resent_reads;
    if (times > kSentMax && world_.plan().restarts == 0) world_.fail(mark + " is sent again and again");
  }
}

// While nothing is known of the catalogue, nothing that names an object is read from a standby.
void History::check_proven(const Sent& what, const std::string& mark) const {
  if (catalogs_ > 0 || what.in_block || !to_be_proven_.contains(mark)) return;
  const auto known = world_.known_hosts(what.worker);
  if (!known || known->primary == static_cast<router::HostId>(what.host)) return;
  world_.fail(fmt::format("{} was sent to host {} before anything was known of its names", mark, what.host));
}

void History::definition_acknowledged() {
  if (++definitions_ > asked_for_)
    world_.fail("a change of the catalogue is acknowledged, and nobody will read it again");
}

// Where a write may go is for the worker's table to say, as it is when the last byte of the message is written. A
// transaction that began earlier may go on while there is no primary, as long as its host is not known to be the past.
void History::check_allowed(const Sent& what, const std::string& value) const {
  if (to_be_refused_.contains(value)) return;
  const auto known = world_.known_hosts(what.worker);
  const bool began_before = what.in_block || pinned_.contains(value);
  // A process before this one knew them. Of a pipeline it may have sent the first part of what is one transaction.
  if (!known && (began_before || world_.plan().restarts > 0)) return;
  if (!known) world_.fail(value + " was sent to a server though no hosts are known");
  const router::HostTable& table = *known;
  const auto host = static_cast<router::HostId>(what.host);
  if (table.primary == host) {
    if (!what.told_hot_standby) return;
    world_.fail(fmt::format("{} was sent on a connection that says in_hot_standby, to host {}", value, what.host));
  }
  const bool goes_on = began_before && !table.primary && table.host(host).health != router::HostHealth::Fenced;
  if (goes_on) return;
  world_.fail(fmt::format("{} was sent to host {}; the primary that worker {} knows is {}", value, what.host,
                          what.worker, table.primary ? static_cast<int>(*table.primary) : -1));
}

// ---- what servers do ----

void History::executed(int host, const std::string& value) {
  ++counts.writes;
  if (value.front() != 'w') return;
  const auto [it, fresh] = executed_.emplace(value, host);
  if (!fresh) world_.fail(fmt::format("{} is written twice, on host {} and on host {}", value, it->second, host));
}

void History::committed(const std::string& value, Position at) {
  committed_[value] = at;
}

void History::read(int, bool recovers) {
  ++counts.reads;
  if (recovers) ++counts.reads_on_standby;
}

// ---- what clients see ----

void History::acknowledged(const SessionName& session, const std::string& database, int key, const std::string& value) {
  ++counts.acknowledged;
  if (!committed_.contains(value)) world_.fail(value + " is acknowledged, but nobody has committed it");
  if (value.front() == 'w') acknowledged_.push_back({session, database, key, value});
}

Required History::required(const SessionName& session, const std::string& database, Freshness freshness) const {
  return {freshness, session, database, acknowledged_.size()};
}

// It is in the log of whoever may rightly be taken for the primary: of two promoted at once, one is given up later.
bool History::survives(const std::string& value) const {
  const Position at = committed_.at(value);
  for (int i = 0; i < cluster_.size(); ++i) {
    const ClusterHost& host = cluster_.host(i);
    if (i != cluster_.leader() && !host.to_be_given_up) continue;
    const auto it =
        std::lower_bound(host.log.begin(), host.log.end(), at.lsn,
                         [](const ClusterHost::Record& record, std::uint64_t lsn) { return record.at.lsn < lsn; });
    if (it == host.log.end() || it->at != at) return false;
  }
  return true;
}

bool History::is_older(const std::string& value, const std::string& other) const {
  const auto shown = committed_.find(value);
  const Position at = shown == committed_.end() ? Position{} : shown->second;
  return committed_.at(other) > at && survives(other);
}

std::string History::check_read(int key, const std::string& value, const Required& required) const {
  if (value != "0" && !committed_.contains(value)) return value + " was never committed";
  if (required.freshness == Freshness::Any) return {};
  for (std::size_t i = required.acknowledged; i-- > 0;) {
    const Acknowledged& one = acknowledged_[i];
    const bool counts_here =
        required.freshness == Freshness::Session ? one.session == required.session : one.database == required.database;
    if (!counts_here || one.key != key || !is_older(value, one.value)) continue;
    return fmt::format("register {} shows {}, but {} was acknowledged before", key, value, one.value);
  }
  return {};
}

void History::check_end() const {
  if (!cluster_.plan().synchronous) return;
  for (const Acknowledged& one : acknowledged_) {
    if (!survives(one.value)) world_.fail(one.value + " was acknowledged and is lost");
  }
}

}  // namespace pgweir::sim
