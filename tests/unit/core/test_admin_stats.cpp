// The counters, their averages, and the three naming schemes under which the console shows them.
#include <catch2/catch.hpp>
#include <limits>

#include "admin_test.hpp"
#include "proxy/core/admin_format.hpp"

using namespace pgweir::core;
using admin_test::read_table;
using admin_test::Row;

namespace {

/// Counters `first`, `first` + `step`, ... in the order of the columns.
PoolStats series(std::uint64_t first, std::uint64_t step) {
  return {.server_assignment_count = first,
          .xact_count = first + step,
          .query_count = first + 2 * step,
          .client_bytes = first + 3 * step,
          .server_bytes = first + 4 * step,
          .xact_time = first + 5 * step,
          .query_time = first + 6 * step,
          .wait_time = first + 7 * step,
          .client_parse_count = first + 8 * step,
          .server_parse_count = first + 9 * step,
          .bind_count = first + 10 * step,
          .client_login_count = first + 11 * step};
}

StatsRow sample(std::string database) {
  // 10 seconds in which the counters grew by 1000, 1100, ... 2100.
  return {std::move(database), series(1, 1), {series(5, 7), series(5, 7) + series(1000, 100), 10'000'000}};
}

const Row kSampleAverages{"100", "110", "120", "130", "140", "1", "1", "1", "180", "190", "200", "210"};

}  // namespace

TEST_CASE("counters add up and never go below zero", "[admin][stats]") {
  CHECK(series(1, 1) + series(10, 10) == series(11, 11));
  CHECK(series(11, 11) - series(1, 1) == series(10, 10));
  CHECK(series(1, 0) - series(2, 0) == PoolStats{});
  PoolStats one_shrunk = series(5, 0);
  one_shrunk.bind_count = 1;
  PoolStats expected = series(3, 0);
  expected.bind_count = 0;
  CHECK(one_shrunk - series(2, 0) == expected);
}

TEST_CASE("rates are per second, times per event", "[admin][stats]") {
  StatsPeriod period;
  period.length_us = 60'000'000;
  period.end = {.server_assignment_count = 600,
                .xact_count = 1200,
                .query_count = 2400,
                .client_bytes = 6'000'000,
                .server_bytes = 119,  // 1.98 a second
                .xact_time = 1'200'000,
                .query_time = 7'201,  // 3.0004 a query
                .wait_time = 599,     // less than 1 an assignment
                .client_parse_count = 60,
                .server_parse_count = 59,
                .bind_count = 120,
                .client_login_count = 180};
  const PoolStats expected{.server_assignment_count = 10,
                           .xact_count = 20,
                           .query_count = 40,
                           .client_bytes = 100'000,
                           .server_bytes = 1,
                           .xact_time = 1000,
                           .query_time = 3,
                           .wait_time = 0,
                           .client_parse_count = 1,
                           .server_parse_count = 0,
                           .bind_count = 2,
                           .client_login_count = 3};
  CHECK(averages(period) == expected);
  // Only the difference counts, also for the divisors of the times.
  const PoolStats earlier = series(1'000'000'000, 17);
  CHECK(averages({earlier, earlier + period.end, period.length_us}) == expected);
}

TEST_CASE("periods in which nothing can be divided", "[admin][stats]") {
  CHECK(averages({}) == PoolStats{});
  CHECK(averages({series(1, 1), series(1, 1), 1'000'000}) == PoolStats{});
  // Times without events: a transaction that goes on since the period before.
  StatsPeriod running;
  running.length_us = 1'000'000;
  running.end = {.xact_time = 500, .query_time = 400, .wait_time = 300};
  CHECK(averages(running) == PoolStats{});
  // No period yet: times per event are still known, rates are not.
  StatsPeriod none;
  none.end = {.xact_count = 2, .xact_time = 10};
  CHECK(averages(none) == PoolStats{.xact_time = 5});
}

TEST_CASE("averages of huge numbers do not overflow", "[admin][stats]") {
  constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();
  StatsPeriod period;
  period.end.client_bytes = kMax;
  period.length_us = 1'000'000;
  CHECK(averages(period).client_bytes == kMax);
  period.length_us = 2'000'000;
  CHECK(averages(period).client_bytes == kMax / 2);
  period.length_us = 1;
  CHECK(averages(period).client_bytes == kMax);
  period.length_us = kMax;
  CHECK(averages(period).client_bytes == 1'000'000);
}

TEST_CASE("SHOW STATS", "[admin][stats]") {
  std::string out;
  append_show_stats(out, std::vector{sample("b"), sample("a")});
  const auto table = read_table(out);
  CHECK(table.columns == std::vector<std::string>{"database t",
                                                  "total_server_assignment_count n",
                                                  "total_xact_count n",
                                                  "total_query_count n",
                                                  "total_received n",
                                                  "total_sent n",
                                                  "total_xact_time n",
                                                  "total_query_time n",
                                                  "total_wait_time n",
                                                  "total_client_parse_count n",
                                                  "total_server_parse_count n",
                                                  "total_bind_count n",
                                                  "total_client_login_count n",
                                                  "avg_server_assignment_count n",
                                                  "avg_xact_count n",
                                                  "avg_query_count n",
                                                  "avg_recv n",
                                                  "avg_sent n",
                                                  "avg_xact_time n",
                                                  "avg_query_time n",
                                                  "avg_wait_time n",
                                                  "avg_client_parse_count n",
                                                  "avg_server_parse_count n",
                                                  "avg_bind_count n",
                                                  "avg_client_login_count n"});
  Row row{"a", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"};
  row.insert(row.end(), kSampleAverages.begin(), kSampleAverages.end());
  REQUIRE(table.rows.size() == 2);
  CHECK(table.rows[0] == row);
  CHECK(table.rows[1][0] == "b");
}

TEST_CASE("SHOW STATS_TOTALS", "[admin][stats]") {
  std::string out;
  append_show_stats_totals(out, std::vector{sample("b"), sample("a")});
  const auto table = read_table(out);
  CHECK(table.columns == std::vector<std::string>{"database t", "server_assignment_count n", "xact_count n",
                                                  "query_count n", "bytes_received n", "bytes_sent n", "xact_time n",
                                                  "query_time n", "wait_time n", "client_parse_count n",
                                                  "server_parse_count n", "bind_count n", "client_login_count n"});
  REQUIRE(table.rows.size() == 2);
  CHECK(table.rows[0] == Row{"a", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"});
  CHECK(table.rows[1][0] == "b");
}

TEST_CASE("SHOW STATS_AVERAGES has a prefix on the last four only", "[admin][stats]") {
  std::string out;
  append_show_stats_averages(out, std::vector{sample("b"), sample("a")});
  const auto table = read_table(out);
  CHECK(table.columns == std::vector<std::string>{"database t", "server_assignment_count n", "xact_count n",
                                                  "query_count n", "bytes_received n", "bytes_sent n", "xact_time n",
                                                  "query_time n", "wait_time n", "avg_client_parse_count n",
                                                  "avg_server_parse_count n", "avg_bind_count n",
                                                  "avg_client_login_count n"});
  Row row{"a"};
  row.insert(row.end(), kSampleAverages.begin(), kSampleAverages.end());
  REQUIRE(table.rows.size() == 2);
  CHECK(table.rows[0] == row);
  CHECK(table.rows[1][0] == "b");
}

TEST_CASE("SHOW TOTALS is one column of sums", "[admin][stats]") {
  std::vector<StatsRow> rows{sample("b"), sample("a")};
  // Freed pools took their counters along; that must not lower the sum of the others.
  rows.push_back({"shrunk", PoolStats{}, {series(1'000'000, 0), PoolStats{}, 10'000'000}});
  std::string out;
  append_show_totals(out, rows);
  const auto table = read_table(out);
  CHECK(table.columns == std::vector<std::string>{"name t", "value n"});
  CHECK(table.rows == std::vector<Row>{{"total_server_assignment_count", "2"},
                                       {"total_xact_count", "4"},
                                       {"total_query_count", "6"},
                                       {"total_client_bytes", "8"},
                                       {"total_server_bytes", "10"},
                                       {"total_xact_time", "12"},
                                       {"total_query_time", "14"},
                                       {"total_wait_time", "16"},
                                       {"total_ps_client_parse_count", "18"},
                                       {"total_ps_server_parse_count", "20"},
                                       {"total_ps_bind_count", "22"},
                                       {"total_client_login_count", "24"},
                                       {"avg_server_assignment_count", "200"},
                                       {"avg_xact_count", "220"},
                                       {"avg_query_count", "240"},
                                       {"avg_client_bytes", "260"},
                                       {"avg_server_bytes", "280"},
                                       {"avg_xact_time", "1"},
                                       {"avg_query_time", "1"},
                                       {"avg_wait_time", "1"},
                                       {"avg_ps_client_parse_count", "360"},
                                       {"avg_ps_server_parse_count", "380"},
                                       {"avg_ps_bind_count", "400"},
                                       {"avg_client_login_count", "420"}});
}
