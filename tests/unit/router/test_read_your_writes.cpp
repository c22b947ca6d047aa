#include <catch2/catch.hpp>

#include <random>

#include "router/host_tracker.hpp"
#include "router/read_your_writes.hpp"

using namespace pgweir::router;
using namespace std::chrono_literals;

TEST_CASE("what counts as a write") {
  const auto verdict = [](StatementClass cls, TransactionKind kind = TransactionKind::None,
                          AccessMode mode = AccessMode::Default) {
    return Verdict{cls, ClassReason::Select, kind, mode};
  };
  const Verdict read = verdict(StatementClass::Read);
  const Verdict unknown = verdict(StatementClass::Unknown);
  CHECK_FALSE(counts_as_write(HostRole::Standby, unknown));
  CHECK_FALSE(counts_as_write(HostRole::Primary, read));
  CHECK_FALSE(counts_as_write(
      HostRole::Primary, verdict(StatementClass::TransactionControl, TransactionKind::Begin, AccessMode::ReadOnly)));
  CHECK(counts_as_write(HostRole::Primary, unknown));
  CHECK(counts_as_write(HostRole::Primary, verdict(StatementClass::Write)));
  CHECK(counts_as_write(HostRole::Primary, verdict(StatementClass::SessionState)));
  CHECK(counts_as_write(HostRole::Primary, verdict(StatementClass::TransactionControl, TransactionKind::Begin)));
  CHECK(counts_as_write(HostRole::Primary, verdict(StatementClass::TransactionControl, TransactionKind::SetTransaction,
                                                   AccessMode::ReadOnly)));
  CHECK(counts_as_write(HostRole::Unknown, unknown));
}

TEST_CASE("a token is shown by a later sample only") {
  WriteToken token;
  HostState host;
  CHECK(token.shown_by(host));  // nothing was written
  token.write_acknowledged(TimePoint{} + 5s);
  CHECK_FALSE(token.shown_by(host));
  host.caught_up_to = TimePoint{} + 5s;
  CHECK_FALSE(token.shown_by(host));
  host.caught_up_to = TimePoint{} + 5s + 1us;
  CHECK(token.shown_by(host));
  token.write_acknowledged(TimePoint{} + 4s);  // tokens do not go back
  CHECK(token.last_write() == TimePoint{} + 5s);
}

namespace {

// A cluster with a real log: hosts write, replay, crash and are promoted; probes take time and are answered in any
// order. A client writes, and wants to know of every standby whether it shows the write.
struct World {
  struct Host {
    bool is_primary = false;
    bool up = true;
    std::uint32_t timeline = 1;
    std::uint64_t lsn = 100;  // written, or replayed
  };
  struct Probe {
    std::size_t host;
    TimePoint sent_at;
    std::optional<ProbeAnswer> answer;  // once the server has looked
    bool dead = false;
  };

  explicit World(unsigned seed) : random(seed) { hosts[0].is_primary = true; }

  std::uint64_t pick(std::uint64_t n) { return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random); }

  Host* primary() {
    Host* found = nullptr;
    for (Host& host : hosts) {
      if (host.is_primary && host.up && (found == nullptr || host.timeline > found->timeline)) found = &host;
    }
    return found;
  }

  void look(Probe& probe) const {
    const Host& host = hosts[probe.host];
    probe.dead = !host.up;
    ProbeAnswer answer;
    answer.in_recovery = !host.is_primary;
    answer.timeline = host.timeline;
    (host.is_primary ? answer.insert_lsn : answer.replay_lsn) = Lsn{host.lsn};
    probe.answer = answer;
  }

  void crash(std::size_t index) {
    Host& host = hosts[index];
    host.up = false;
    for (Probe& probe : probes) {
      if (probe.host == index && !probe.answer) probe.dead = true;
    }
    tracker.witness(static_cast<HostId>(index), Witness::ConnectionLost, now);
  }

  // The write is in the log before it is acknowledged, the acknowledgement is noted after it came.
  void write() {
    Host* host = primary();
    if (host == nullptr || !tracker.table()->primary ||
        &hosts[static_cast<std::size_t>(*tracker.table()->primary)] != host) {
      return;
    }
    host->lsn += 1 + pick(50);
    written = host->lsn;
    written_timeline = host->timeline;
    now += Duration(pick(3000));
    token.write_acknowledged(now);
  }

  void promote(std::size_t index) {
    Host& host = hosts[index];
    if (host.is_primary || !host.up) return;
    for (std::size_t i = 0; i < hosts.size(); ++i) {
      if (hosts[i].is_primary && hosts[i].up) crash(i);
    }
    host.is_primary = true;
    host.timeline = ++newest;
    if (host.lsn < written) written = 0;  // lost with the old primary, nobody can show it
    host.lsn += 1;
    // Who is past the point where the new timeline forks can no longer follow: it is made anew.
    for (Host& other : hosts) {
      if (!other.is_primary && other.lsn > host.lsn) other.lsn = host.lsn;
    }
  }

  void step() {
    now += Duration(pick(20000));
    const std::size_t index = pick(hosts.size());
    Host& host = hosts[index];
    switch (pick(10)) {
      case 0:
        if (pick(4) == 0) write();
        break;
      case 1:
      case 2:
      case 3:
        if (Host* source = primary(); source != nullptr && !host.is_primary && host.up && host.lsn <= source->lsn) {
          host.timeline = source->timeline;
          host.lsn += pick(3) == 0 ? pick(source->lsn - host.lsn + 1) : source->lsn - host.lsn;
        }
        break;
      case 4:
        if (pick(25) == 0) promote(index);
        break;
      case 5:
        if (pick(15) == 0 && host.up && !host.is_primary) crash(index);
        break;
      case 6:
        if (!host.up) {
          // Back as a standby, perhaps at an earlier position than it had shown.
          host.up = true;
          if (host.is_primary) host.lsn = std::min<std::uint64_t>(host.lsn, 100);
          host.is_primary = host.is_primary && primary() == nullptr;
          if (!host.is_primary) host.lsn -= std::min<std::uint64_t>(host.lsn, pick(100));
        }
        break;
      case 7:
        if (probes.size() < 20) probes.push_back({index, now, std::nullopt});
        break;
      default:
        if (probes.empty()) break;
        const std::size_t at = pick(probes.size());
        if (!probes[at].answer && !probes[at].dead) {
          look(probes[at]);
          break;
        }
        const Probe probe = probes[at];
        probes.erase(probes.begin() + static_cast<std::ptrdiff_t>(at));
        if (probe.dead) {
          tracker.probe_failed(static_cast<HostId>(probe.host), ProbeFailure::Refused, probe.sent_at, now);
        } else {
          tracker.probe_answered(static_cast<HostId>(probe.host), *probe.answer, probe.sent_at, now);
        }
    }
  }

  std::mt19937 random;
  std::array<Host, 3> hosts{};
  HostTracker tracker{{"a", "b", "c"}, TrackerPolicy{1'000'000'000, 100000s, 2}};
  std::vector<Probe> probes;
  TimePoint now{};
  std::uint32_t newest = 1;
  WriteToken token;
  std::uint64_t written = 0;
  std::uint32_t written_timeline = 0;
};

}  // namespace

TEST_CASE("a standby that shows a token has replayed what was written, in any order of events") {
  World world(GENERATE(range(1U, 60U)));
  int shown = 0;
  int hidden = 0;
  for (int step = 0; step < 4000; ++step) {
    world.step();
    const auto table = world.tracker.table();
    for (std::size_t i = 0; i < world.hosts.size(); ++i) {
      const World::Host& host = world.hosts[i];
      if (!table->hosts[i].takes_reads() || host.is_primary || !host.up) continue;
      if (!world.token.shown_by(table->hosts[i])) {
        ++hidden;
        continue;
      }
      ++shown;
      INFO("step " << step << ", host " << i);
      REQUIRE(host.lsn >= world.written);
    }
  }
  CHECK(shown > 0);
  CHECK(hidden > 0);
}
