// SHOW STATS, STATS_TOTALS, STATS_AVERAGES and TOTALS. The same twelve counters go by three sets of names in
// PgBouncer's console, and scripts depend on each; see admin_format.hpp.
#include <algorithm>
#include <array>
#include <vector>

#include "proxy/core/admin_format.hpp"
#include "proxy/core/admin_result.hpp"

namespace pgweir::core {

namespace {

using Names = std::array<std::string_view, kPoolStatsFields.size()>;

// All in the order of kPoolStatsFields.
constexpr Names kStatsTotalNames{"total_server_assignment_count",
                                 "total_xact_count",
                                 "total_query_count",
                                 "total_received",
                                 "total_sent",
                                 "total_xact_time",
                                 "total_query_time",
                                 "total_wait_time",
                                 "total_client_parse_count",
                                 "total_server_parse_count",
                                 "total_bind_count",
                                 "total_client_login_count"};
constexpr Names kStatsAverageNames{"avg_server_assignment_count",
                                   "avg_xact_count",
                                   "avg_query_count",
                                   "avg_recv",
                                   "avg_sent",
                                   "avg_xact_time",
                                   "avg_query_time",
                                   "avg_wait_time",
                                   "avg_client_parse_count",
                                   "avg_server_parse_count",
                                   "avg_bind_count",
                                   "avg_client_login_count"};
constexpr Names kTotalsCommandNames{"server_assignment_count",
                                    "xact_count",
                                    "query_count",
                                    "bytes_received",
                                    "bytes_sent",
                                    "xact_time",
                                    "query_time",
                                    "wait_time",
                                    "client_parse_count",
                                    "server_parse_count",
                                    "bind_count",
                                    "client_login_count"};
constexpr Names kAveragesCommandNames{"server_assignment_count",
                                      "xact_count",
                                      "query_count",
                                      "bytes_received",
                                      "bytes_sent",
                                      "xact_time",
                                      "query_time",
                                      "wait_time",
                                      "avg_client_parse_count",
                                      "avg_server_parse_count",
                                      "avg_bind_count",
                                      "avg_client_login_count"};
/// Of SHOW TOTALS, after "total_" or "avg_".
constexpr Names kSumNames{"server_assignment_count",
                          "xact_count",
                          "query_count",
                          "client_bytes",
                          "server_bytes",
                          "xact_time",
                          "query_time",
                          "wait_time",
                          "ps_client_parse_count",
                          "ps_server_parse_count",
                          "ps_bind_count",
                          "client_login_count"};

std::vector<const StatsRow*> by_database(std::span<const StatsRow> rows) {
  std::vector<const StatsRow*> order;
  order.reserve(rows.size());
  for (const StatsRow& row : rows) order.push_back(&row);
  std::stable_sort(order.begin(), order.end(),
                   [](const StatsRow* a, const StatsRow* b) { return a->database < b->database; });
  return order;
}

std::vector<protocol::Column> stats_columns(std::initializer_list<Names> sets) {
  std::vector<protocol::Column> columns{text_column("database")};
  for (const Names& names : sets) {
    for (const std::string_view name : names) columns.push_back(numeric_column(name));
  }
  return columns;
}

void add_counters(AdminResult& result, const PoolStats& stats) {
  for (const auto field : kPoolStatsFields) result.number(stats.*field);
}

void add_sum_rows(AdminResult& result, std::string_view prefix, const PoolStats& stats) {
  for (std::size_t i = 0; i < kSumNames.size(); ++i) {
    std::string name(prefix);
    name += kSumNames[i];
    result.text(name).number(stats.*kPoolStatsFields[i]).end_row();
  }
}

/// All periods end together; a row without one (length 0) has counted nothing in it. What was counted is summed rather
/// than the two ends, so that one database whose counters shrank takes nothing away from the others.
StatsRow sum(std::span<const StatsRow> rows) {
  StatsRow all;
  for (const StatsRow& row : rows) {
    all.total += row.total;
    all.period.end += row.period.end - row.period.begin;
    all.period.length_us = std::max(all.period.length_us, row.period.length_us);
  }
  return all;
}

}  // namespace

void append_show_stats(std::string& out, std::span<const StatsRow> rows) {
  AdminResult result(out, stats_columns({kStatsTotalNames, kStatsAverageNames}));
  for (const StatsRow* row : by_database(rows)) {
    result.text(row->database);
    add_counters(result, row->total);
    add_counters(result, averages(row->period));
    result.end_row();
  }
  result.finish();
}

void append_show_stats_totals(std::string& out, std::span<const StatsRow> rows) {
  AdminResult result(out, stats_columns({kTotalsCommandNames}));
  for (const StatsRow* row : by_database(rows)) {
    result.text(row->database);
    add_counters(result, row->total);
    result.end_row();
  }
  result.finish();
}

void append_show_stats_averages(std::string& out, std::span<const StatsRow> rows) {
  AdminResult result(out, stats_columns({kAveragesCommandNames}));
  for (const StatsRow* row : by_database(rows)) {
    result.text(row->database);
    add_counters(result, averages(row->period));
    result.end_row();
  }
  result.finish();
}

void append_show_totals(std::string& out, std::span<const StatsRow> rows) {
  const StatsRow all = sum(rows);
  AdminResult result(out, {text_column("name"), numeric_column("value")});
  add_sum_rows(result, "total_", all.total);
  add_sum_rows(result, "avg_", averages(all.period));
  result.finish();
}

void append_show_latency(std::string& out, const LatencyTable& table) {
  AdminResult result(out, {text_column("database"),     text_column("user"),         text_column("host"),
                           int4_column("port"),         text_column("role"),         numeric_column("queries"),
                           numeric_column("query_p50"), numeric_column("query_p99"), numeric_column("query_p999"),
                           numeric_column("query_max"), numeric_column("xacts"),     numeric_column("xact_p50"),
                           numeric_column("xact_p99"),  numeric_column("xact_p999"), numeric_column("xact_max"),
                           numeric_column("waits"),     numeric_column("wait_p50"),  numeric_column("wait_p99"),
                           numeric_column("wait_p999"), numeric_column("wait_max")});
  for (const auto& [key, latencies] : table) {
    result.text(key.database).text(key.user).text(key.host).int4(key.port).text(role_name(key.role));
    for (const LatencyHistogram* times : {&latencies.query, &latencies.transaction, &latencies.wait}) {
      result.number(times->count()).number(times->quantile_us(500)).number(times->quantile_us(990));
      result.number(times->quantile_us(999)).number(times->max_us());
    }
    result.end_row();
  }
  result.finish();
}

}  // namespace pgweir::core
