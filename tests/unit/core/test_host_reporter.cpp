// The log's lines on the hosts of a group: each change once.
#include <catch2/catch.hpp>

#include "proxy/core/host_reporter.hpp"

using namespace pgweir::core;
using namespace pgweir::router;
using namespace std::chrono_literals;

namespace {

constexpr HostId kFirst{0}, kSecond{1};

struct Rig {
  HostTracker tracker{{"a:1", "b:2"}, TrackerPolicy{1000, 5s, 2}};
  HostReporter reporter{"app"};
  pgweir::router::Duration now = 0s;

  std::vector<HostLine> lines() { return reporter.lines(*tracker.table(), tracker.take_events()); }
  pgweir::router::TimePoint tick() { return pgweir::router::TimePoint(now += 1ms); }

  void answer(HostId host, bool standby, std::uint32_t timeline, std::uint64_t position, std::uint64_t system = 0) {
    ProbeAnswer answer;
    answer.system_identifier = system;
    answer.in_recovery = standby;
    answer.timeline = timeline;
    (standby ? answer.replay_lsn : answer.insert_lsn) = Lsn{position};
    const auto at = tick();
    tracker.probe_answered(host, answer, at, at);
  }
  void fail(HostId host, const char* text, ProbeFailure kind = ProbeFailure::Refused) {
    const auto at = tick();
    tracker.probe_failed(host, kind, at, at, text);
  }
  void begin() {
    answer(kFirst, false, 1, 100);
    answer(kSecond, true, 1, 100);
    (void)lines();
  }
};

using Lines = std::vector<HostLine>;

}  // namespace

TEST_CASE("the first answers") {
  Rig rig;
  CHECK(rig.lines().empty());
  rig.answer(kFirst, false, 1, 100);
  CHECK(rig.lines() == Lines{{LogLevel::Log, "app: a:1 is up: says primary on timeline 1"}});
  rig.answer(kSecond, true, 1, 100);
  CHECK(rig.lines() == Lines{{LogLevel::Log, "app: b:2 is up: a standby on timeline 1"},
                             {LogLevel::Log, "app: primary is a:1 (timeline 1)"},
                             {LogLevel::Log, "app: b:2: reads on"}});
  rig.answer(kFirst, false, 1, 200);
  rig.answer(kSecond, true, 1, 200);
  CHECK(rig.lines().empty());
}

TEST_CASE("a standby of another cluster is not said to be a primary") {
  Rig rig;
  rig.answer(kFirst, false, 1, 100, 7);
  (void)rig.lines();
  rig.answer(kSecond, true, 1, 100, 8);
  const Lines lines = rig.lines();
  REQUIRE(lines.size() == 3);
  CHECK(lines[0] == HostLine{LogLevel::Log, "app: b:2 is up"});
  CHECK(lines[1].text ==
        "app: b:2 is fenced: belongs to another cluster: its system identifier is 8, that of the primary 7");
  CHECK(lines[2] == HostLine{LogLevel::Log, "app: primary is a:1 (timeline 1)"});
}

TEST_CASE("a host that never answered says why, once for each reason") {
  Rig rig;
  rig.fail(kFirst, "Connection refused");
  CHECK(rig.lines() == Lines{{LogLevel::Warning, "app: a:1 cannot be asked: Connection refused"}});
  rig.fail(kFirst, "Connection refused");
  CHECK(rig.lines().empty());
  rig.fail(kFirst, "starting up");
  CHECK(rig.lines() == Lines{{LogLevel::Warning, "app: a:1 cannot be asked: starting up"}});
}

TEST_CASE("a failover") {
  Rig rig;
  rig.begin();
  rig.fail(kFirst, "Connection refused");
  CHECK(rig.lines() == Lines{{LogLevel::Warning, "app: a:1 is down: Connection refused"},
                             {LogLevel::Warning, "app: primary a:1 is lost: Connection refused"}});
  rig.fail(kFirst, "Connection refused");
  CHECK(rig.lines().empty());
  rig.answer(kSecond, false, 2, 110);
  CHECK(rig.lines() == Lines{{LogLevel::Log, "app: primary is b:2 (timeline 2)"}});
  rig.answer(kFirst, false, 1, 120);
  CHECK(rig.lines() ==
        Lines{{LogLevel::Log, "app: a:1 is up: says primary on timeline 1"},
              {LogLevel::Warning, "app: a:1 is fenced: says primary on timeline 1, but timeline 2 has taken writes"}});
}

TEST_CASE("reads of a standby") {
  Rig rig;
  rig.begin();
  SECTION("lag is told once, whatever its figures") {
    rig.answer(kFirst, false, 1, 5000);
    CHECK(rig.lines() ==
          Lines{{LogLevel::Warning, "app: b:2: reads off: lags by 4900 bytes, max_replica_lag_bytes is 1000"}});
    rig.answer(kFirst, false, 1, 6000);
    CHECK(rig.lines().empty());
    rig.answer(kSecond, true, 1, 6000);
    CHECK(rig.lines() == Lines{{LogLevel::Log, "app: b:2: reads on"}});
  }
  SECTION("a suspicion that the next answer clears is not told") {
    rig.tracker.witness(kSecond, Witness::ConnectionLost, rig.tick());
    CHECK(rig.lines().empty());
    rig.answer(kSecond, true, 1, 100);
    CHECK(rig.lines().empty());
  }
  SECTION("one probe without an answer is not told, two are") {
    rig.fail(kSecond, "no answer within 1s", ProbeFailure::Timeout);
    CHECK(rig.lines().empty());
    rig.fail(kSecond, "no answer within 1s", ProbeFailure::Timeout);
    CHECK(rig.lines() == Lines{{LogLevel::Warning, "app: b:2 is down: no answer within 1s"}});
  }
}

TEST_CASE("two primaries at the start") {
  Rig rig;
  rig.answer(kFirst, false, 3, 100);
  rig.answer(kSecond, false, 3, 200);
  const auto lines = rig.lines();
  CHECK(std::count(lines.begin(), lines.end(),
                   HostLine{LogLevel::Warning,
                            "app: a:1 says primary on timeline 3, and so do others: nobody takes writes"}) == 1);
}
