#include <catch2/catch.hpp>

#include "proxy/core/position_demand.hpp"

namespace pgweir::core {
namespace {

using router::Duration;
using router::TimePoint;

constexpr Duration kInterval{500'000};

TimePoint at(int ms) {
  return TimePoint(Duration(1'000'000'000 + ms * 1000));
}

/// A primary and a standby that shows everything of before `shown`.
router::HostTable table(TimePoint shown, bool takes_reads = true) {
  router::HostTable table;
  table.primary = router::HostId{0};
  table.hosts.resize(2);
  table.hosts[1].caught_up_to = shown;
  if (takes_reads) table.hosts[1].refusal = router::ReadRefusal::None;
  return table;
}

}  // namespace

TEST_CASE("reads that are kept on the primary ask once per snapshot", "[position_demand]") {
  PositionDemand demand;
  CHECK(demand.read_kept(at(0)));
  CHECK_FALSE(demand.read_kept(at(1)));
  CHECK_FALSE(demand.table_came(table(at(0)), at(2)));
  CHECK(demand.read_kept(at(3)));
}

TEST_CASE("writes ask only where reads have been kept a moment ago", "[position_demand]") {
  PositionDemand demand;
  CHECK_FALSE(demand.write_acknowledged(at(0)));
  CHECK_FALSE(demand.table_came(table(router::kLongAgo), at(1)));
  CHECK(demand.read_kept(at(2)));
  CHECK_FALSE(demand.table_came(table(at(2)), at(4)));
  CHECK(demand.write_acknowledged(at(10)));
  CHECK_FALSE(demand.write_acknowledged(at(11)));
  CHECK_FALSE(demand.table_came(table(at(12)), at(13)));
  CHECK_FALSE(demand.write_acknowledged(at(3000)));
}

TEST_CASE("a snapshot that does not show the last write is not enough", "[position_demand]") {
  PositionDemand demand;
  CHECK(demand.read_kept(at(0)));
  CHECK_FALSE(demand.write_acknowledged(at(5)));
  CHECK(demand.table_came(table(at(4)), at(6)));
  CHECK(demand.table_came(table(at(5)), at(7)));  // the same moment is not after it
  CHECK(demand.table_came(table(at(6), false), at(8)));
  CHECK_FALSE(demand.table_came(table(at(6)), at(9)));
}

TEST_CASE("rounds of probes keep their distance while the standby keeps up", "[position_demand]") {
  ProbeRounds rounds;
  CHECK_FALSE(rounds.primary_answered());
  for (int ms = 0; ms < 200; ms += 20) {
    CHECK(rounds.begin(table(at(ms)), at(ms), kInterval) == Duration(0));
    CHECK_FALSE(rounds.begin(table(at(ms)), at(ms + 1), kInterval));
    CHECK(rounds.primary_answered());
    CHECK_FALSE(rounds.primary_answered());
    CHECK_FALSE(rounds.begin(table(at(ms)), at(ms + 2), kInterval));
    rounds.standby_answered();
  }
  CHECK(rounds.begin(table(at(185)), at(185), kInterval) == Duration(15'000));
}

TEST_CASE("a standby that stands still is asked less and less often", "[position_demand]") {
  ProbeRounds rounds;
  const auto whole_round = [&](TimePoint shown, TimePoint now) {
    const auto pause = rounds.begin(table(shown), now, kInterval);
    REQUIRE(pause);
    CHECK(rounds.primary_answered());
    rounds.standby_answered();
    return now + *pause;
  };
  TimePoint began = whole_round(at(0), at(0));
  for (const int pause : {40, 80, 160, 320, 500, 500}) {
    const TimePoint next = whole_round(at(0), began);
    CHECK(next == began + Duration(pause * 1000));
    began = next;
  }
  CHECK(whole_round(at(1), began) == began + Duration(20'000));
}

TEST_CASE("a host that does not answer ends no round for ever", "[position_demand]") {
  ProbeRounds rounds;
  CHECK(rounds.begin(table(at(0)), at(0), kInterval));
  CHECK_FALSE(rounds.begin(table(at(0)), at(499), kInterval));
  CHECK(rounds.begin(table(at(0)), at(500), kInterval));
}

}  // namespace pgweir::core
