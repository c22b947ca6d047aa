#include "router/host_tracker.hpp"

#include <algorithm>
#include <utility>

namespace pgweir::router {

namespace {
// At the default interval these reach back two minutes, far beyond any sensible lag limit.
constexpr std::size_t kSamplesMax = 256;
constexpr Duration kSamplesReach{120'000'000};
// A host that was down takes reads again after so many good probes in a row.
constexpr int kGoodProbes = 2;
}  // namespace

std::string_view probe_query() {
  // The control file learns of a new timeline only with the next checkpoint; the name of the current WAL file knows it
  // at once. A standby tells the timeline it streams.
  return R"sql(
SELECT r.on,
       CASE WHEN r.on THEN coalesce((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver),
                                    (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()))
            ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))
                 ::pg_catalog.bit(32)::pg_catalog.int4 END,
       CASE WHEN NOT r.on THEN pg_catalog.pg_current_wal_insert_lsn() END,
       CASE WHEN r.on THEN pg_catalog.pg_last_wal_receive_lsn() END,
       CASE WHEN r.on THEN pg_catalog.pg_last_wal_replay_lsn() END,
       CASE WHEN r.on THEN (extract(epoch FROM pg_catalog.clock_timestamp() -
                            pg_catalog.pg_last_xact_replay_timestamp()) * 1000)::pg_catalog.int8 END,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       pg_catalog.current_setting('wal_block_size'),
       pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))
  FROM (SELECT pg_catalog.pg_is_in_recovery()) AS r("on")
)sql";
}

HostTracker::HostTracker(const std::vector<std::string>& names, TrackerPolicy policy) : policy_(policy) {
  auto table = std::make_shared<HostTable>();
  for (const std::string& name : names) {
    hosts_.emplace_back().state.name = name;
    table->hosts.push_back(hosts_.back().state);
  }
  table_ = std::move(table);
}

void HostTracker::remember(const KnownCluster& cluster) {
  highest_timeline_ = cluster.timeline;
  system_identifier_ = cluster.system_identifier;
}

std::vector<HostId> HostTracker::take_probe_requests() {
  return std::exchange(probe_requests_, {});
}

std::vector<HostEvent> HostTracker::take_events() {
  return std::exchange(events_, {});
}

void HostTracker::request_probe(HostId id) {
  if (std::find(probe_requests_.begin(), probe_requests_.end(), id) == probe_requests_.end()) {
    probe_requests_.push_back(id);
  }
}

void HostTracker::set_health(HostId id, HostHealth health) {
  HostState& state = at(id).state;
  if (state.health == health) return;
  const bool was_serving = state.health == HostHealth::Up || state.health == HostHealth::Fenced;
  state.health = health;
  if (health == HostHealth::Down) {
    events_.push_back({HostEvent::Kind::Down, id});
  } else if (health == HostHealth::Fenced) {
    events_.push_back({HostEvent::Kind::Fenced, id});
  } else if (!was_serving) {
    events_.push_back({HostEvent::Kind::Up, id});
  }
}

void HostTracker::probe_answered(HostId id, const ProbeAnswer& answer, TimePoint sent_at, TimePoint now) {
  Host& host = at(id);
  if (sent_at < host.answered_at) return;
  host.answered_at = sent_at;
  host.failures = 0;
  host.failure.clear();
  host.state.last_probe = now;
  if (sent_at >= host.suspect_since) host.suspect = false;
  host.good_probes = std::min(host.good_probes + 1, kGoodProbes);
  host.says_primary = !answer.in_recovery;
  if (answer.in_recovery) host.barred_timeline = 0;
  // Without a primary to stream from, a standby falls back to the timeline of its last restartpoint, which may lie
  // before the switch. It would stop reads just when they can still be served; until it restarts it does not go back.
  host.followed_timeline = answer.in_recovery ? std::max(host.followed_timeline, answer.timeline) : 0;
  host.state.timeline = answer.in_recovery ? host.followed_timeline : answer.timeline;
  host.state.role = answer.in_recovery ? HostRole::Standby : HostRole::Primary;
  host.state.insert_lsn = answer.insert_lsn;
  host.state.replay_lsn = answer.replay_lsn;
  host.receive_lsn = answer.receive_lsn;
  host.replay_age = answer.replay_age;
  host.system_identifier = answer.system_identifier;
  if (is_stranger(host)) {
    set_health(id, HostHealth::Fenced);
  } else if (answer.in_recovery || host.state.health != HostHealth::Fenced) {
    set_health(id, HostHealth::Up);
  }
  fence_strangers();
  elect();
  if (primary_ == id) sample_primary(id, answer.insert_lsn, sent_at);
  publish(now);
}

void HostTracker::probe_failed(HostId id, ProbeFailure failure, TimePoint sent_at, TimePoint now,
                               std::string_view text) {
  Host& host = at(id);
  if (sent_at < host.answered_at) return;
  host.failure = !text.empty() ? text : failure == ProbeFailure::Refused ? "refuses connections" : "does not answer";
  // Taking a primary out because it is full would stop the very clients that fill it. One that is not the primary any
  // more tells so on every connection, and whoever follows it is on a higher timeline.
  if (failure == ProbeFailure::Busy && host.state.health == HostHealth::Up) return publish(now);
  host.followed_timeline = 0;
  if (host.state.health != HostHealth::Unknown) host.good_probes = 0;
  host.failures = std::min(host.failures + 1, policy_.failures_to_down);
  // A standby that fails to answer may come back at an earlier position: nothing is promised of it any more.
  host.suspect = true;
  host.suspect_since = std::max(host.suspect_since, sent_at);
  if (failure == ProbeFailure::Refused || host.failures >= policy_.failures_to_down) {
    host.says_primary = false;
    if (host.state.health != HostHealth::Unknown) set_health(id, HostHealth::Down);
  } else {
    request_probe(id);
  }
  elect();
  publish(now);
}

void HostTracker::witness(HostId id, Witness witness, TimePoint now) {
  Host& host = at(id);
  switch (witness) {
    case Witness::InHotStandby:
      if (host.state.role != HostRole::Primary) return;
      // It was restarted as a standby. Writes would fail there; let them wait for the probe.
      host.says_primary = false;
      host.state.role = HostRole::Unknown;
      elect();
      break;
    case Witness::NotInHotStandby:
      // A promotion, most likely: reads on it are as good as on a primary, but the table counts it as a standby.
      if (host.state.role != HostRole::Standby) return;
      break;
    case Witness::ReadOnlyError:
      if (host.state.role != HostRole::Primary) return;
      break;
    case Witness::ConnectionLost:
      host.followed_timeline = 0;
      break;
    case Witness::CannotConnect:
      host.followed_timeline = 0;
      host.says_primary = false;
      host.good_probes = 0;
      if (host.failure.empty()) host.failure = "refuses connections";
      if (host.state.health != HostHealth::Unknown) set_health(id, HostHealth::Down);
      elect();
      break;
  }
  host.suspect = true;
  host.suspect_since = now;
  request_probe(id);
  publish(now);
}

// A host of another cluster, listed by mistake, has other data, and its timelines and positions compare with nothing.
bool HostTracker::is_stranger(const Host& host) const {
  return system_identifier_ != 0 && host.system_identifier != 0 && host.system_identifier != system_identifier_;
}

void HostTracker::fence_strangers() {
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    Host& host = hosts_[i];
    if (!is_stranger(host)) continue;
    host.says_primary = false;
    host.state.role = HostRole::Unknown;
    if (host.state.health == HostHealth::Up) set_health(static_cast<HostId>(i), HostHealth::Fenced);
  }
}

// The higher timeline wins. On one timeline the host that was primary stays it; if none was, nobody is: both may have
// been written to. A timeline below the highest that ever took writes is the past, even while its successor is silent;
// and who lost against another primary stays barred until it follows somebody or has been promoted anew. The first
// election waits for all hosts: the one that answers first may be the one that is fenced.
void HostTracker::elect() {
  const bool first = !elected_;
  std::uint32_t best = highest_timeline_;
  for (const Host& host : hosts_) {
    if (host.says_primary) best = std::max(best, host.state.timeline);
  }
  std::vector<HostId> candidates;
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    const Host& host = hosts_[i];
    if (host.says_primary && host.state.timeline == best && best > host.barred_timeline) {
      candidates.push_back(static_cast<HostId>(i));
    }
  }
  if (first && !all_heard()) return;
  if (first && !candidates.empty()) {
    // Which of two clusters is meant nobody can tell.
    const std::uint64_t system = at(candidates.front()).system_identifier;
    for (std::size_t i = 0; i < hosts_.size(); ++i) {
      const auto id = static_cast<HostId>(i);
      const Host& host = hosts_[i];
      if (host.says_primary && host.system_identifier != system &&
          std::find(candidates.begin(), candidates.end(), id) == candidates.end()) {
        candidates.push_back(id);
      }
    }
  }
  const std::optional<HostId> before = primary_;
  const bool was_conflict = std::exchange(conflict_, false);
  if (candidates.size() == 1) {
    primary_ = candidates.front();
  } else if (!before || std::find(candidates.begin(), candidates.end(), *before) == candidates.end()) {
    primary_.reset();
    conflict_ = !candidates.empty();
  }
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    const auto id = static_cast<HostId>(i);
    if (!hosts_[i].says_primary) continue;
    if (primary_ && primary_ != id) hosts_[i].barred_timeline = hosts_[i].state.timeline;
    set_health(id, primary_ == id ? HostHealth::Up : HostHealth::Fenced);
    if (conflict_ && !was_conflict && hosts_[i].state.timeline == best) {
      events_.push_back({HostEvent::Kind::Conflict, id});
    }
  }
  elected_ = elected_ || primary_.has_value();
  if (primary_ && best > highest_timeline_) {
    highest_timeline_ = best;
    samples_.clear();  // positions on the old timeline say nothing about this one
  }
  if (primary_ && system_identifier_ == 0) {
    system_identifier_ = at(*primary_).system_identifier;
    fence_strangers();
  }
  if (primary_ == before) return;
  if (primary_) {
    events_.push_back({HostEvent::Kind::PrimaryIs, *primary_});
    sample_primary(*primary_, at(*primary_).state.insert_lsn, at(*primary_).answered_at);
  } else {
    events_.push_back({HostEvent::Kind::PrimaryLost, *before});
  }
}

void HostTracker::sample_primary(HostId id, Lsn lsn, TimePoint sent_at) {
  if (at(id).state.timeline != highest_timeline_) return;
  // The log only grows on one timeline; what says otherwise (a restored primary) makes all samples worthless.
  if (!samples_.empty() && lsn < samples_.back().lsn) samples_.clear();
  if (!samples_.empty() && samples_.back().lsn == lsn) {
    samples_.back().sent_at = sent_at;  // nothing was written in between: the later one says more
    return;
  }
  make_room_for_sample(sent_at);
  samples_.push_back({sent_at, lsn});
}

// Samples that clients ask for come many times as often as the interval. Those of the older half go that leave no gap
// which matters at their age: the lag of who is far behind is known less exactly then, but known.
void HostTracker::make_room_for_sample(TimePoint now) {
  constexpr int kGapsPerAge = 24;
  if (samples_.size() < kSamplesMax) return;
  if (now - samples_[1].sent_at > kSamplesReach) return samples_.pop_front();
  std::size_t kept = 1;
  for (std::size_t i = 1; i < samples_.size(); ++i) {
    const Sample sample = samples_[i];
    const bool old = i < kSamplesMax / 2;
    if (old && samples_[i + 1].sent_at - samples_[kept - 1].sent_at < (now - sample.sent_at) / kGapsPerAge) continue;
    samples_[kept++] = sample;
  }
  if (kept == samples_.size()) return samples_.pop_front();
  samples_.resize(kept);
}

// Lag in bytes is the distance to the primary's last known position. Lag in time is how long ago the primary stood
// where the standby is now: the age of the newest sample that is replayed. It is 0 once the newest sample is replayed,
// however long ago the last commit was: on an idle primary pg_last_xact_replay_timestamp() grows old without anything
// being late. And it compares times of one clock only. While there is no primary it stands still: nothing new can be
// missed.
void HostTracker::measure(Host& host, TimePoint now) const {
  HostState& state = host.state;
  state.lag_bytes = 0;
  state.lag = Duration(0);
  state.caught_up_to = kLongAgo;
  if (state.role != HostRole::Standby) return;
  const Duration replay_age = host.replay_age.value_or(Duration(0));
  if (!elected_) {
    // No primary to compare with: what has been received and not replayed is all there is to know.
    state.lag_bytes = bytes_behind(state.replay_lsn, host.receive_lsn);
    if (state.lag_bytes > 0) state.lag = replay_age;
    return;
  }
  if (state.timeline != highest_timeline_ || samples_.empty()) return;
  state.lag_bytes = bytes_behind(state.replay_lsn, samples_.back().lsn);
  const auto beyond = std::upper_bound(samples_.begin(), samples_.end(), state.replay_lsn,
                                       [](Lsn replayed, const Sample& sample) { return replayed < sample.lsn; });
  if (beyond != samples_.begin() && !host.suspect) state.caught_up_to = std::prev(beyond)->sent_at;
  if (beyond == samples_.end()) return;
  const TimePoint reference = primary_ ? now : samples_.back().sent_at;
  if (beyond == samples_.begin()) {
    // Farther back than the samples: only PostgreSQL may know.
    state.lag = std::max(reference - samples_.front().sent_at, replay_age);
  } else {
    state.lag = reference - std::prev(beyond)->sent_at;
  }
}

// Before the first primary is seen the lag is not known, unless all other hosts have been asked in vain.
bool HostTracker::lag_is_known() const {
  return elected_ || all_heard();
}

bool HostTracker::all_heard() const {
  return std::all_of(hosts_.begin(), hosts_.end(),
                     [](const Host& host) { return host.state.health != HostHealth::Unknown || host.failures > 0; });
}

ReadRefusal HostTracker::judge(const Host& host) const {
  const HostState& state = host.state;
  if (state.role != HostRole::Standby) return ReadRefusal::NoStandby;
  if (state.health != HostHealth::Up) return ReadRefusal::NotUp;
  if (host.suspect) return ReadRefusal::Suspect;
  if (highest_timeline_ != 0 && state.timeline != highest_timeline_) return ReadRefusal::Timeline;
  if (!lag_is_known()) return ReadRefusal::LagUnknown;
  if (state.lag_bytes > policy_.lag_bytes_max) return ReadRefusal::LagBytes;
  if (state.lag > policy_.lag_max) return ReadRefusal::LagTime;
  if (host.good_probes < kGoodProbes) return ReadRefusal::Recovering;
  // Who fell out of the limits comes back well within them, or it would go in and out with every probe.
  const bool fell_out = state.refusal != ReadRefusal::None && state.refusal != ReadRefusal::NoStandby;
  const bool near_limit = state.lag_bytes > policy_.lag_bytes_max / 4 * 3 || state.lag > policy_.lag_max / 4 * 3;
  return fell_out && near_limit ? ReadRefusal::Recovering : ReadRefusal::None;
}

void HostTracker::publish(TimePoint now) {
  auto table = std::make_shared<HostTable>();
  // Also later than those of a tracker before this one, for the same hosts.
  table->version = std::max(table_->version + 1, static_cast<std::uint64_t>(now.time_since_epoch().count()));
  table->cluster = {highest_timeline_, system_identifier_};
  table->primary = primary_;
  table->conflict = conflict_;
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    Host& host = hosts_[i];
    measure(host, now);
    const bool took = host.state.takes_reads();
    host.state.refusal = judge(host);
    if (took != host.state.takes_reads()) {
      events_.push_back({took ? HostEvent::Kind::ReadsOff : HostEvent::Kind::ReadsOn, static_cast<HostId>(i)});
    }
    host.state.reason = reason_of(static_cast<HostId>(i));
    table->hosts.push_back(host.state);
  }
  table_ = std::move(table);
}

}  // namespace pgweir::router
