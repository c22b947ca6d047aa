#include <catch2/catch.hpp>

#include <random>

#include "router/host_tracker.hpp"

using namespace pgweir::router;
using namespace std::chrono_literals;
using Kind = HostEvent::Kind;

namespace {

constexpr HostId kA{0};
constexpr HostId kB{1};
constexpr HostId kC{2};

TimePoint at(Duration since_start) {
  return TimePoint{} + since_start;
}

ProbeAnswer primary(std::uint32_t timeline, std::uint64_t lsn) {
  ProbeAnswer answer;
  answer.timeline = timeline;
  answer.insert_lsn = Lsn{lsn};
  return answer;
}

ProbeAnswer standby(std::uint32_t timeline, std::uint64_t replayed, std::uint64_t received = 0) {
  ProbeAnswer answer;
  answer.in_recovery = true;
  answer.timeline = timeline;
  answer.replay_lsn = Lsn{replayed};
  answer.receive_lsn = Lsn{received == 0 ? replayed : received};
  return answer;
}

struct Rig {
  enum class Start { AllHeard, Fresh };
  /// AllHeard: every host has been asked in vain once, so that the first primary that answers is elected at once.
  explicit Rig(Start start = Start::AllHeard) {
    if (start == Start::Fresh) return;
    for (const HostId host : {kA, kB, kC}) fail(host);
  }

  HostTracker tracker{{"a:1", "b:2", "c:3"}, TrackerPolicy{1000, 5s, 2}};
  Duration now = 0s;

  void answer(HostId host, const ProbeAnswer& probe) {
    now += 1ms;
    tracker.probe_answered(host, probe, at(now), at(now));
  }
  void fail(HostId host, ProbeFailure failure = ProbeFailure::Refused) {
    now += 1ms;
    tracker.probe_failed(host, failure, at(now), at(now));
  }
  void see(HostId host, Witness witness) {
    now += 1ms;
    tracker.witness(host, witness, at(now));
  }
  const HostState& host(HostId id) const { return tracker.table()->host(id); }
  std::optional<HostId> primary_host() const { return tracker.table()->primary; }
  bool had(HostEvent event) {
    const auto events = tracker.take_events();
    return std::find(events.begin(), events.end(), event) != events.end();
  }
};

}  // namespace

TEST_CASE("a host that never answered gets nothing") {
  Rig rig;
  CHECK_FALSE(rig.primary_host());
  CHECK(rig.host(kA).health == HostHealth::Unknown);
  CHECK_FALSE(rig.host(kA).takes_reads());
  rig.fail(kA);
  CHECK(rig.host(kA).health == HostHealth::Unknown);
}

TEST_CASE("primary and standby are what they say") {
  Rig rig;
  rig.answer(kA, primary(1, 500));
  rig.answer(kB, standby(1, 500));
  CHECK(rig.primary_host() == kA);
  CHECK(rig.host(kB).takes_reads());
  CHECK_FALSE(rig.host(kA).takes_reads());
  CHECK_FALSE(rig.host(kC).takes_reads());
  CHECK(rig.had({Kind::PrimaryIs, kA}));
}

TEST_CASE("the first primary is elected when all hosts have been asked") {
  Rig rig(Rig::Start::Fresh);
  rig.answer(kA, primary(1, 500));
  CHECK_FALSE(rig.primary_host());
  rig.answer(kB, primary(2, 400));
  CHECK_FALSE(rig.primary_host());
  SECTION("the last answers") {
    rig.answer(kC, standby(2, 400));
  }
  SECTION("the last is not there") {
    rig.fail(kC, ProbeFailure::Timeout);
  }
  CHECK(rig.primary_host() == kB);
  CHECK(rig.host(kA).health == HostHealth::Fenced);
}

TEST_CASE("a standby waits for its first comparison with a primary") {
  Rig rig(Rig::Start::Fresh);
  rig.answer(kB, standby(1, 500));
  CHECK(rig.host(kB).refusal == ReadRefusal::LagUnknown);
  rig.fail(kA);
  rig.fail(kC);
  CHECK(rig.host(kB).takes_reads());  // all others were asked in vain
  CHECK_FALSE(rig.primary_host());
}

TEST_CASE("a promotion counts from the first probe that says so") {
  Rig rig;
  rig.answer(kA, primary(1, 500));
  rig.answer(kB, standby(1, 500));
  rig.fail(kA);
  CHECK_FALSE(rig.primary_host());
  CHECK(rig.had({Kind::PrimaryLost, kA}));
  rig.answer(kB, primary(2, 510));
  CHECK(rig.primary_host() == kB);
  CHECK(rig.had({Kind::PrimaryIs, kB}));
}

TEST_CASE("of two primaries the one on the higher timeline takes writes") {
  Rig rig;
  rig.answer(kA, primary(1, 900));
  rig.answer(kB, primary(2, 500));
  CHECK(rig.primary_host() == kB);
  CHECK(rig.host(kA).health == HostHealth::Fenced);
  CHECK(rig.had({Kind::Fenced, kA}));
  SECTION("the old one is fenced even while the new one is silent") {
    rig.fail(kB);
    rig.answer(kA, primary(1, 950));
    CHECK_FALSE(rig.primary_host());
    CHECK(rig.host(kA).health == HostHealth::Fenced);
  }
  SECTION("and serves again as a standby of the new one") {
    rig.answer(kA, standby(2, 500));
    CHECK(rig.host(kA).health == HostHealth::Up);
    CHECK(rig.host(kA).takes_reads());
  }
  SECTION("restarts do not help it") {
    rig.fail(kA);
    CHECK(rig.host(kA).health == HostHealth::Down);
    rig.answer(kA, primary(1, 960));
    CHECK(rig.host(kA).health == HostHealth::Fenced);
    CHECK(rig.primary_host() == kB);
  }
}

TEST_CASE("what a process before this one knew keeps the past from coming back") {
  Rig rig(Rig::Start::Fresh);
  rig.tracker.remember({2, 7});
  rig.answer(kA, primary(1, 500));
  rig.answer(kC, standby(1, 500));
  rig.fail(kB, ProbeFailure::Timeout);
  CHECK_FALSE(rig.tracker.table()->primary);
  CHECK(rig.host(kA).health == HostHealth::Fenced);
  CHECK(rig.host(kC).refusal == ReadRefusal::Timeline);
  CHECK(rig.tracker.table()->cluster == KnownCluster{2, 7});
  rig.answer(kB, primary(2, 400));
  CHECK(rig.tracker.table()->primary == kB);
}

TEST_CASE("of what is remembered no lag follows") {
  Rig rig(Rig::Start::Fresh);
  rig.tracker.remember({1, 0});
  rig.answer(kB, standby(1, 500));
  CHECK(rig.host(kB).refusal == ReadRefusal::LagUnknown);
  rig.answer(kA, primary(1, 500));
  CHECK_FALSE(rig.tracker.table()->primary);  // another one might answer, too
  rig.fail(kC);
  CHECK(rig.tracker.table()->primary == kA);
  rig.answer(kB, standby(1, 500));
  CHECK(rig.host(kB).takes_reads());
}

TEST_CASE("of two primaries on one timeline who was it stays it") {
  Rig rig;
  rig.answer(kA, primary(3, 900));
  rig.answer(kB, primary(3, 950));
  CHECK(rig.primary_host() == kA);
  CHECK(rig.host(kB).health == HostHealth::Fenced);
  SECTION("the other does not inherit, its data are others") {
    rig.fail(kA);
    CHECK_FALSE(rig.primary_host());
    rig.answer(kB, primary(3, 960));
    CHECK_FALSE(rig.primary_host());
  }
  SECTION("unless it has followed in between") {
    rig.answer(kB, standby(3, 900));
    rig.fail(kA);
    rig.answer(kB, primary(4, 901));
    CHECK(rig.primary_host() == kB);
  }
}

TEST_CASE("of two primaries on one timeline that nobody has seen before neither takes writes") {
  Rig rig(Rig::Start::Fresh);
  rig.answer(kA, primary(3, 900));
  rig.answer(kB, primary(3, 950));
  rig.answer(kC, standby(3, 900));
  CHECK_FALSE(rig.primary_host());
  CHECK(rig.tracker.table()->conflict);
  const auto events = rig.tracker.take_events();
  CHECK(std::count(events.begin(), events.end(), HostEvent{Kind::Conflict, kA}) == 1);
  CHECK(std::count(events.begin(), events.end(), HostEvent{Kind::Conflict, kB}) == 1);
  // Once one of them gives in, the other is the only one.
  rig.answer(kB, standby(3, 900));
  CHECK(rig.primary_host() == kA);
  CHECK_FALSE(rig.tracker.table()->conflict);
}

TEST_CASE("a host of another cluster gets nothing") {
  const auto of_system = [](ProbeAnswer answer, std::uint64_t system) {
    answer.system_identifier = system;
    return answer;
  };
  SECTION("a standby, known before the primary") {
    Rig rig(Rig::Start::Fresh);
    rig.answer(kB, of_system(standby(1, 100), 7));
    rig.answer(kC, of_system(standby(1, 100), 5));
    rig.answer(kA, of_system(primary(1, 100), 5));
    CHECK(rig.primary_host() == kA);
    CHECK(rig.host(kB).health == HostHealth::Fenced);
    CHECK_FALSE(rig.host(kB).takes_reads());
    CHECK(rig.host(kC).takes_reads());
    CHECK(rig.had({Kind::Fenced, kB}));
    rig.answer(kB, of_system(standby(1, 100), 7));
    CHECK_FALSE(rig.host(kB).takes_reads());
    CHECK(rig.tracker.take_events().empty());  // said once
    rig.answer(kB, of_system(standby(1, 100), 5));
    CHECK(rig.host(kB).takes_reads());
  }
  SECTION("a primary with a higher timeline") {
    Rig rig;
    rig.answer(kA, of_system(primary(1, 100), 5));
    rig.answer(kB, of_system(primary(9, 100), 7));
    CHECK(rig.primary_host() == kA);
    CHECK(rig.host(kB).health == HostHealth::Fenced);
    rig.fail(kA);
    rig.answer(kB, of_system(primary(10, 100), 7));
    CHECK_FALSE(rig.primary_host());
  }
  SECTION("two primaries of two clusters from the start") {
    Rig rig(Rig::Start::Fresh);
    rig.fail(kC);
    rig.answer(kA, of_system(primary(1, 100), 5));
    rig.answer(kB, of_system(primary(9, 100), 7));
    CHECK_FALSE(rig.primary_host());
    CHECK(rig.tracker.table()->conflict);
  }
}

TEST_CASE("answers that were overtaken do not count") {
  Rig rig;
  rig.tracker.probe_answered(kA, primary(2, 10), at(20ms), at(21ms));
  rig.tracker.probe_answered(kA, standby(1, 10), at(10ms), at(22ms));
  CHECK(rig.primary_host() == kA);
  rig.tracker.probe_failed(kA, ProbeFailure::Refused, at(15ms), at(23ms));
  CHECK(rig.primary_host() == kA);
}

TEST_CASE("one probe without answer is no death, two are; a refused connection is") {
  Rig rig;
  rig.answer(kA, primary(1, 10));
  rig.fail(kA, ProbeFailure::Timeout);
  CHECK(rig.primary_host() == kA);
  CHECK(rig.tracker.take_probe_requests() == std::vector{kA});
  rig.fail(kA, ProbeFailure::Timeout);
  CHECK_FALSE(rig.primary_host());
  rig.answer(kA, primary(1, 10));
  rig.fail(kA, ProbeFailure::Refused);
  CHECK_FALSE(rig.primary_host());
}

TEST_CASE("a host without a connection left for the prober is what it was") {
  Rig rig;
  rig.answer(kA, primary(1, 10));
  rig.answer(kB, standby(1, 10));
  for (int i = 0; i < 5; ++i) {
    rig.fail(kA, ProbeFailure::Busy);
    rig.fail(kB, ProbeFailure::Busy);
    rig.fail(kC, ProbeFailure::Busy);
  }
  CHECK(rig.primary_host() == kA);
  CHECK(rig.host(kB).takes_reads());
  CHECK(rig.host(kA).reason == "does not answer");
  CHECK(rig.tracker.take_probe_requests().empty());
  rig.answer(kA, primary(1, 100000));
  CHECK(rig.host(kB).refusal == ReadRefusal::LagBytes);  // nothing new is known of it
  rig.answer(kC, primary(2, 20));
  CHECK(rig.primary_host() == kC);
}

TEST_CASE("a standby out of the limits takes no reads, and comes back well within them") {
  Rig rig;
  rig.answer(kA, primary(1, 10000));
  rig.answer(kB, standby(1, 9000));
  CHECK(rig.host(kB).takes_reads());
  CHECK(rig.host(kB).lag_bytes == 1000);
  rig.answer(kB, standby(1, 8999));
  CHECK(rig.host(kB).refusal == ReadRefusal::LagBytes);
  CHECK(rig.had({Kind::ReadsOff, kB}));
  rig.answer(kB, standby(1, 9100));
  CHECK(rig.host(kB).refusal == ReadRefusal::Recovering);
  rig.answer(kB, standby(1, 9300));
  CHECK(rig.host(kB).takes_reads());
  rig.answer(kB, standby(1, 9050));
  CHECK(rig.host(kB).takes_reads());
}

TEST_CASE("lag in time is that of the primary's position, on one clock") {
  Rig rig;
  rig.answer(kA, primary(1, 100));
  rig.answer(kB, standby(1, 100));
  CHECK(rig.host(kB).lag == 0s);
  rig.now += 3s;
  rig.answer(kA, primary(1, 200));
  CHECK(rig.host(kB).lag >= 3s);
  CHECK(rig.host(kB).takes_reads());
  rig.now += 3s;
  rig.answer(kA, primary(1, 300));
  CHECK(rig.host(kB).refusal == ReadRefusal::LagTime);
  rig.answer(kB, standby(1, 300));
  CHECK(rig.host(kB).lag == 0s);
  CHECK(rig.host(kB).takes_reads());
}

TEST_CASE("samples that come often still reach back") {
  Rig rig;
  for (std::uint64_t lsn = 1; lsn <= 3000; ++lsn) {  // a minute
    rig.now += 19ms;
    rig.answer(kA, primary(1, lsn));
  }
  rig.answer(kB, standby(1, 3000));
  CHECK(rig.host(kB).lag == 0s);
  rig.answer(kB, standby(1, 2900));
  CHECK(rig.host(kB).lag >= 2s);
  CHECK(rig.host(kB).lag < 2100ms);
  rig.answer(kB, standby(1, 1500));
  CHECK(rig.host(kB).lag >= 30s);
  CHECK(rig.host(kB).lag < 35s);
  CHECK(rig.host(kB).caught_up_to > at(24s));
}

TEST_CASE("on an idle primary nothing is late") {
  Rig rig;
  rig.answer(kA, primary(1, 100));
  auto replayed = standby(1, 100);
  replayed.replay_age = 3600s;
  for (int i = 0; i < 100; ++i) {
    rig.now += 60s;
    rig.answer(kA, primary(1, 100));
    rig.answer(kB, replayed);
    REQUIRE(rig.host(kB).takes_reads());
    REQUIRE(rig.host(kB).lag == 0s);
  }
  // The first write after the pause is not an hour late.
  rig.now += 500ms;
  rig.answer(kA, primary(1, 150));
  CHECK(rig.host(kB).lag < 1s);
}

TEST_CASE("without a primary the lag stands still and reads go on") {
  Rig rig;
  rig.answer(kA, primary(1, 100));
  rig.answer(kB, standby(1, 90));
  rig.fail(kA);
  rig.now += 3600s;
  rig.answer(kB, standby(1, 95));
  CHECK(rig.host(kB).takes_reads());
}

TEST_CASE("a standby farther back than the samples is as late as PostgreSQL says, or more") {
  Rig rig;
  rig.answer(kA, primary(1, 100));
  auto late = standby(1, 50);
  late.replay_age = 20s;
  rig.answer(kB, late);
  CHECK(rig.host(kB).lag == 20s);
  CHECK(rig.host(kB).refusal == ReadRefusal::LagTime);
}

TEST_CASE("a standby of another timeline is compared with nothing") {
  Rig rig;
  rig.answer(kA, primary(1, 100));
  rig.answer(kB, standby(1, 100));
  rig.answer(kC, standby(1, 100));
  rig.answer(kB, primary(2, 105));
  CHECK(rig.host(kC).refusal == ReadRefusal::Timeline);
  CHECK(rig.host(kC).caught_up_to == kLongAgo);
  rig.answer(kC, standby(1, 5000));
  CHECK(rig.host(kC).refusal == ReadRefusal::Timeline);
  rig.answer(kC, standby(2, 105));
  CHECK(rig.host(kC).takes_reads());
}

// What a standby answers without a primary is the timeline of its last restartpoint.
TEST_CASE("a standby that has followed a timeline keeps it while its primary is lost") {
  Rig rig;
  rig.answer(kA, primary(2, 100));
  rig.answer(kB, standby(2, 100));
  REQUIRE(rig.host(kB).takes_reads());
  rig.fail(kA);
  rig.answer(kB, standby(1, 100));
  CHECK(rig.host(kB).timeline == 2);
  CHECK(rig.host(kB).takes_reads());

  SECTION("but not over a restart, which may have put other data there") {
    SECTION("that a probe has met") {
      rig.fail(kB, ProbeFailure::Timeout);
    }
    SECTION("that broke a connection") {
      rig.see(kB, Witness::ConnectionLost);
    }
    SECTION("that refused one") {
      rig.see(kB, Witness::CannotConnect);
    }
    rig.answer(kB, standby(1, 100));
    rig.answer(kB, standby(1, 100));
    CHECK(rig.host(kB).timeline == 1);
    CHECK(rig.host(kB).refusal == ReadRefusal::Timeline);
  }
  SECTION("nor when it was promoted meanwhile") {
    rig.answer(kB, primary(3, 120));
    CHECK(rig.host(kB).timeline == 3);
    rig.answer(kB, standby(2, 100));
    CHECK(rig.host(kB).timeline == 2);
  }
}

TEST_CASE("the wire's contradictions lead to a probe at once") {
  Rig rig;
  rig.answer(kA, primary(1, 100));
  rig.answer(kB, standby(1, 100));
  CHECK(rig.tracker.take_probe_requests().empty());
  SECTION("agreement does not") {
    rig.see(kA, Witness::NotInHotStandby);
    rig.see(kB, Witness::InHotStandby);
    rig.see(kB, Witness::ReadOnlyError);
    CHECK(rig.tracker.take_probe_requests().empty());
    CHECK(rig.host(kB).takes_reads());
  }
  SECTION("a primary that is a standby gets no writes meanwhile") {
    rig.see(kA, Witness::InHotStandby);
    CHECK_FALSE(rig.primary_host());
    CHECK(rig.tracker.take_probe_requests() == std::vector{kA});
    rig.answer(kA, primary(1, 100));
    CHECK(rig.primary_host() == kA);
  }
  SECTION("a promoted standby takes no reads as one until it has answered") {
    rig.see(kB, Witness::NotInHotStandby);
    CHECK(rig.host(kB).refusal == ReadRefusal::Suspect);
    CHECK(rig.tracker.take_probe_requests() == std::vector{kB});
    CHECK(rig.primary_host() == kA);
    rig.answer(kB, primary(2, 100));
    CHECK(rig.primary_host() == kB);
  }
  SECTION("25006 from the primary") {
    rig.see(kA, Witness::ReadOnlyError);
    rig.see(kA, Witness::ReadOnlyError);
    CHECK(rig.tracker.take_probe_requests() == std::vector{kA});
    CHECK(rig.primary_host() == kA);
  }
  SECTION("a broken connection") {
    rig.see(kA, Witness::ConnectionLost);
    CHECK(rig.primary_host() == kA);
    rig.see(kB, Witness::ConnectionLost);
    CHECK_FALSE(rig.host(kB).takes_reads());
    CHECK(rig.host(kB).caught_up_to == kLongAgo);
    CHECK(rig.tracker.take_probe_requests() == std::vector{kA, kB});
    rig.tracker.probe_answered(kB, standby(1, 100), at(rig.now - 500us), at(rig.now));  // sent before it broke
    CHECK_FALSE(rig.host(kB).takes_reads());
    rig.answer(kB, standby(1, 100));
    CHECK(rig.host(kB).takes_reads());
  }
  SECTION("57P03") {
    rig.see(kA, Witness::CannotConnect);
    CHECK_FALSE(rig.primary_host());
    CHECK(rig.host(kA).health == HostHealth::Down);
  }
}

TEST_CASE("each host says why it gets less than it could") {
  Rig rig(Rig::Start::Fresh);
  rig.tracker.witness(kA, Witness::ConnectionLost, at(rig.now));
  CHECK(rig.host(kA).reason == "not asked yet");
  CHECK(rig.host(kA).last_probe == kLongAgo);
  rig.answer(kA, primary(2, 10000));
  CHECK(rig.host(kA).reason == "says primary, but not all hosts have been asked yet");
  rig.answer(kB, standby(2, 10000));
  rig.tracker.probe_failed(kC, ProbeFailure::Refused, at(rig.now), at(rig.now), "Connection refused");
  CHECK(rig.host(kA).reason.empty());
  CHECK(rig.host(kB).reason.empty());
  CHECK(rig.host(kB).last_probe == at(rig.now));
  CHECK(rig.host(kC).reason == "Connection refused");
  CHECK(rig.host(kC).last_probe == kLongAgo);
  SECTION("a failure is told until the next answer") {
    rig.fail(kB, ProbeFailure::Timeout);
    CHECK(rig.host(kB).reason == "does not answer");
    rig.answer(kB, standby(2, 10000));
    rig.answer(kB, standby(2, 10000));
    CHECK(rig.host(kB).reason.empty());
    rig.see(kB, Witness::CannotConnect);
    CHECK(rig.host(kB).reason == "refuses connections");
  }
  SECTION("lag") {
    rig.answer(kB, standby(2, 8000));
    CHECK(rig.host(kB).reason == "lags by 2000 bytes, max_replica_lag_bytes is 1000");
    rig.tracker.set_policy({5000, 5s, 2});
    rig.now += 7s;
    rig.answer(kA, primary(2, 11000));
    CHECK(rig.host(kB).reason.find("s, max_replica_lag_ms is 5.0 s") != std::string::npos);
    rig.tracker.set_policy({5000, 60s, 2});
    rig.answer(kB, standby(2, 11000));
    CHECK(rig.host(kB).reason.empty());
  }
  SECTION("the wire, and another timeline") {
    rig.see(kB, Witness::ConnectionLost);
    CHECK(rig.host(kB).reason == "a server connection broke or contradicts; waiting for the next answer");
    rig.answer(kB, standby(1, 10000));
    CHECK(rig.host(kB).reason == "is on timeline 1, the primary's is 2");
    rig.see(kA, Witness::InHotStandby);
    CHECK(rig.host(kA).reason == "a server connection says it is a standby; waiting for the next answer");
  }
  SECTION("fences") {
    rig.answer(kC, primary(1, 5));
    CHECK(rig.host(kC).reason == "says primary on timeline 1, but timeline 2 has taken writes");
    rig.answer(kC, primary(2, 5));
    CHECK(rig.host(kC).reason == "says primary on timeline 2 beside a:1");
    rig.fail(kA);
    rig.answer(kC, primary(2, 5));
    CHECK(rig.host(kC).reason == "says primary on timeline 2, as it did beside another primary");
  }
}

// A cluster whose hosts really have a role and a log, asked at random: whatever the order, writes only ever go to the
// newest timeline seen, one host at most has them, and a table that is held does not change.
TEST_CASE("random histories of failover") {
  std::mt19937 random(GENERATE(range(1, 40)));
  const auto pick = [&](std::uint64_t n) { return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random); };
  Rig rig;
  std::array<ProbeAnswer, 3> truth = {primary(1, 100), standby(1, 100), standby(1, 100)};
  std::uint32_t timeline = 1;
  std::uint32_t last_primary_timeline = 0;
  for (int step = 0; step < 2000; ++step) {
    const auto held = rig.tracker.table();
    const auto version = held->version;
    const auto host = static_cast<HostId>(pick(3));
    ProbeAnswer& state = truth[static_cast<std::size_t>(host)];
    switch (pick(12)) {
      case 0:
        if (state.in_recovery && pick(4) == 0) state = primary(++timeline, state.replay_lsn.value + 1);
        break;
      case 1:
        if (!state.in_recovery && state.timeline < timeline) state = standby(timeline, pick(200));
        break;
      case 2:
        rig.fail(host, pick(2) == 0 ? ProbeFailure::Refused : ProbeFailure::Timeout);
        break;
      case 3:
        rig.see(host, static_cast<Witness>(pick(5)));
        break;
      case 4:
        state.insert_lsn.value += pick(500);
        break;
      case 5:
        state.replay_lsn.value += pick(500);
        break;
      default:
        rig.now += Duration(pick(700000));
        rig.answer(host, state);
    }
    const auto table = rig.tracker.table();
    REQUIRE(held->version == version);
    if (table->primary) {
      const HostState& writer = table->host(*table->primary);
      REQUIRE(writer.role == HostRole::Primary);
      REQUIRE(writer.health == HostHealth::Up);
      REQUIRE(writer.timeline >= last_primary_timeline);
      last_primary_timeline = writer.timeline;
    }
    for (const HostState& other : table->hosts) {
      if (other.takes_reads()) REQUIRE((other.role == HostRole::Standby && other.health == HostHealth::Up));
      if (other.takes_reads()) REQUIRE(other.lag_bytes <= 1000);
      if (other.takes_reads() && last_primary_timeline != 0) REQUIRE(other.timeline == last_primary_timeline);
    }
  }
}
