// Console answers that are not tables of sockets or statistics; see admin_format.hpp.
#include "proxy/core/admin_format.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "pgweir_version.hpp"
#include "protocol/message_builder.hpp"
#include "proxy/core/admin_command.hpp"
#include "proxy/core/admin_result.hpp"

namespace pgweir::core {

namespace {

constexpr std::string_view kServerVersion = "1.25.2/bouncer";

constexpr std::pair<std::string_view, std::string_view> kWelcomeParameters[] = {
    {"server_version", kServerVersion},
    {"client_encoding", "UTF8"},
    {"server_encoding", "UTF8"},
    {"DateStyle", "ISO"},
    {"TimeZone", "GMT"},
    {"standard_conforming_strings", "on"},
    {"is_superuser", "on"},
};

constexpr std::string_view kHelp =
    "\n\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION|STATE"
    "\n\tSHOW PEERS|PEER_POOLS|LISTS|MEM|FDS|SOCKETS|ACTIVE_SOCKETS|DNS_HOSTS|DNS_ZONES"
    "\n\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS|LATENCY|HOSTS|ROUTES"
    "\n\tSET key = value"
    "\n\tRELOAD"
    "\n\tPAUSE [<db>]"
    "\n\tRESUME [<db>]"
    "\n\tDISABLE <db>"
    "\n\tENABLE <db>"
    "\n\tRECONNECT [<db>]"
    "\n\tKILL [<db>]"
    "\n\tKILL_CLIENT <client_id>"
    "\n\tSWITCHOVER <db>"
    "\n\tSUSPEND"
    "\n\tWAIT_CLOSE [<db>]"
    "\n\tSHUTDOWN"
    "\n\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS";

template <class Enum>
void add_word(AdminResult& result, const std::optional<Enum>& value) {
  if (value) {
    result.text(to_string(*value));
  } else {
    result.null();
  }
}

std::int64_t whole_seconds(pool::Duration time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time).count();
}

/// SHOW USERS prints sizes as text: padded, or empty for "not set".
std::string size_text(const std::optional<int>& size) {
  return size ? fmt::format("{:>9}", *size) : std::string();
}

template <class Row, class Key>
std::vector<const Row*> sorted(std::span<const Row> rows, Key key) {
  std::vector<const Row*> order;
  order.reserve(rows.size());
  for (const Row& row : rows) order.push_back(&row);
  std::stable_sort(order.begin(), order.end(), [&](const Row* a, const Row* b) { return key(*a) < key(*b); });
  return order;
}

}  // namespace

void append_console_welcome(std::string& out, std::span<const std::pair<std::string, std::string>> client_parameters) {
  for (const auto& [name, value] : kWelcomeParameters) protocol::append_parameter_status(out, name, value);
  for (const auto& [name, value] : client_parameters) protocol::append_parameter_status(out, name, value);
}

void append_console_error(std::string& out, std::string_view text, std::string_view sqlstate) {
  protocol::append_error(out, "ERROR", sqlstate, text);
  protocol::append_ready_for_query(out, 'I');
}

void append_console_done(std::string& out, std::string_view tag) {
  protocol::append_command_complete(out, tag);
  protocol::append_ready_for_query(out, 'I');
}

void append_console_notice(std::string& out, std::string_view text) {
  protocol::append_notice(out, "NOTICE", "00000", text);
}

void append_set_ignored(std::string& out) {
  append_console_notice(out, "SET ignored");
  protocol::append_command_complete(out, "SET");
}

void append_fake_show(std::string& out, std::string_view name) {
  AdminResult result(out, {text_column(name)});
  for (const FakeSetting& setting : kFakeSettings) {
    if (setting.name == name) result.text(setting.value).end_row();
  }
  result.finish();
}

void append_show_help(std::string& out) {
  protocol::append_notice(out,
                          {.severity = "NOTICE", .sqlstate = "00000", .message = "Console usage", .detail = kHelp});
  protocol::append_command_complete(out, "SHOW");
}

void append_show_version(std::string& out) {
  AdminResult result(out, {text_column("version")});
  result.text("PgWeir " PGWEIR_VERSION).end_row();
  result.finish();
}

void append_show_state(std::string& out, const StateData& state) {
  AdminResult result(out, {text_column("key"), text_column("value")});
  const auto row = [&](std::string_view key, PauseMode mode) {
    result.text(key).text(state.mode == mode ? "yes" : "no").end_row();
  };
  row("active", PauseMode::Active);
  row("paused", PauseMode::Paused);
  row("suspended", PauseMode::Suspended);
  result.finish();
}

void append_show_databases(std::string& out, std::span<const DatabaseRow> rows) {
  AdminResult result(out, {text_column("name"), text_column("host"), int4_column("port"), text_column("database"),
                           text_column("force_user"), int4_column("pool_size"), int4_column("min_pool_size"),
                           int4_column("reserve_pool_size"), int4_column("server_lifetime"), text_column("pool_mode"),
                           text_column("load_balance_hosts"), int4_column("max_connections"),
                           int4_column("current_connections"), int4_column("max_client_connections"),
                           int4_column("current_client_connections"), int4_column("paused"), int4_column("disabled")});
  for (const DatabaseRow* row : sorted(rows, [](const DatabaseRow& r) { return std::string_view(r.name); })) {
    result.text(row->name).text(row->host).int4(row->port).text(row->database).text(row->force_user);
    result.int4(row->pool_size).int4(row->min_pool_size).int4(row->reserve_pool_size);
    result.int4(whole_seconds(row->server_lifetime));
    add_word(result, row->pool_mode);
    add_word(result, row->load_balance_hosts);
    result.int4(row->max_connections).int4(row->current_connections);
    result.int4(row->max_client_connections).int4(row->current_client_connections);
    result.int4(row->paused).int4(row->disabled).end_row();
  }
  result.finish();
}

void append_show_pools(std::string& out, std::span<const PoolRow> rows) {
  AdminResult result(out, {text_column("database"),
                           text_column("user"),
                           int4_column("cl_active"),
                           int4_column("cl_waiting"),
                           int4_column("cl_active_cancel_req"),
                           int4_column("cl_waiting_cancel_req"),
                           int4_column("sv_active"),
                           int4_column("sv_active_cancel"),
                           int4_column("sv_being_canceled"),
                           int4_column("sv_idle"),
                           int4_column("sv_used"),
                           int4_column("sv_tested"),
                           int4_column("sv_login"),
                           int4_column("maxwait"),
                           int4_column("maxwait_us"),
                           text_column("pool_mode"),
                           text_column("load_balance_hosts"),
                           text_column("host"),
                           int4_column("port"),
                           text_column("role")});
  const auto name = [](const PoolRow& row) { return std::tie(row.counts.database, row.counts.user, row.counts.host); };
  for (const PoolRow* row : sorted(rows, name)) {
    const pool::PoolSnapshot& counts = row->counts;
    result.text(counts.database).text(counts.user);
    result.int4(counts.cl_active).int4(counts.cl_waiting);
    result.int4(counts.cl_active_cancel_req).int4(counts.cl_waiting_cancel_req);
    result.int4(counts.sv_active).int4(counts.sv_active_cancel).int4(counts.sv_being_canceled);
    result.int4(counts.sv_idle).int4(counts.sv_used).int4(counts.sv_tested).int4(counts.sv_login);
    result.int4(whole_seconds(counts.maxwait)).int4(std::int64_t{counts.maxwait.count() % 1'000'000});
    result.text(to_string(row->pool_mode));
    add_word(result, row->load_balance_hosts);
    if (row->host) {
      result.text(row->host->host).int4(row->host->port).text(row->role.value_or("unknown"));
    } else {
      result.null().null().null();
    }
    result.end_row();
  }
  result.finish();
}

void append_show_hosts(std::string& out, std::span<const HostRow> rows) {
  AdminResult result(out,
                     {text_column("hosts"), text_column("host"), int4_column("port"), text_column("role"),
                      int4_column("timeline"), text_column("state"), int8_column("lag_bytes"), int8_column("lag_ms"),
                      text_column("replay_lsn"), int8_column("last_probe_ms"), text_column("reason")});
  const auto number = [&](const auto& value) {
    if (value) {
      result.number(*value);
    } else {
      result.null();
    }
  };
  for (const HostRow& row : rows) {
    result.text(row.hosts).text(row.host).int4(row.port).text(row.role).int4(row.timeline).text(row.state);
    number(row.lag_bytes);
    number(row.lag_ms);
    result.text(row.replay_lsn);
    number(row.last_probe_ms);
    result.text(row.reason).end_row();
  }
  result.finish();
}

void append_show_routes(std::string& out, std::span<const RouteRow> rows) {
  AdminResult result(
      out, {text_column("database"), int8_column("reads_standby"), int8_column("reads_primary_no_standby"),
            int8_column("reads_primary_read_your_writes"), int8_column("reads_primary_other"), int8_column("writes"),
            int8_column("retries"), int8_column("learned")});
  for (const RouteRow& row : rows) {
    const RouteStats& counts = row.counts;
    result.text(row.database).number(counts.reads_standby).number(counts.reads_primary_no_standby);
    result.number(counts.reads_primary_read_your_writes).number(counts.reads_primary_other);
    result.number(counts.writes).number(counts.retries).number(counts.learned).end_row();
  }
  result.finish();
}

void append_show_peer_pools(std::string& out, std::span<const PeerPoolRow> rows) {
  AdminResult result(out,
                     {int4_column("peer_id"), int4_column("cl_active_cancel_req"), int4_column("cl_waiting_cancel_req"),
                      int4_column("sv_active_cancel"), int4_column("sv_login")});
  for (const PeerPoolRow& row : rows) {
    result.int4(row.peer_id).int4(row.cl_active_cancel_req).int4(row.cl_waiting_cancel_req);
    result.int4(row.sv_active_cancel).int4(row.sv_login).end_row();
  }
  result.finish();
}

void append_show_peers(std::string& out, std::span<const PeerRow> rows) {
  AdminResult result(out, {int4_column("peer_id"), text_column("host"), int4_column("port"), int4_column("pool_size")});
  for (const PeerRow& row : rows) result.int4(row.peer_id).text(row.host).int4(row.port).int4(row.pool_size).end_row();
  result.finish();
}

void append_show_users(std::string& out, std::span<const UserRow> rows) {
  AdminResult result(
      out, {text_column("name"), text_column("pool_size"), text_column("reserve_pool_size"), text_column("pool_mode"),
            int4_column("max_user_connections"), int4_column("current_connections"),
            int4_column("max_user_client_connections"), int4_column("current_client_connections")});
  for (const UserRow* row : sorted(rows, [](const UserRow& r) { return std::string_view(r.name); })) {
    result.text(row->name).text(size_text(row->pool_size)).text(size_text(row->reserve_pool_size));
    add_word(result, row->pool_mode);
    result.int4(row->max_user_connections).int4(row->current_connections);
    result.int4(row->max_user_client_connections).int4(row->current_client_connections).end_row();
  }
  result.finish();
}

void append_show_lists(std::string& out, const ListsData& lists) {
  AdminResult result(out, {text_column("list"), int4_column("items")});
  const auto row = [&](std::string_view name, std::uint64_t items) { result.text(name).int4(items).end_row(); };
  row("databases", lists.databases);
  row("users", lists.users);
  row("peers", lists.peers);
  row("pools", lists.pools);
  row("peer_pools", lists.peer_pools);
  row("free_clients", lists.free_clients);
  row("used_clients", lists.used_clients);
  row("login_clients", lists.login_clients);
  row("free_servers", lists.free_servers);
  row("used_servers", lists.used_servers);
  row("dns_names", lists.dns_names);
  row("dns_zones", lists.dns_zones);
  row("dns_queries", lists.dns_queries);
  row("dns_pending", lists.dns_pending);
  result.finish();
}

void append_show_mem(std::string& out, std::span<const MemRow> rows) {
  AdminResult result(out, {text_column("name"), int4_column("size"), int4_column("used"), int4_column("free"),
                           int4_column("memtotal")});
  for (const MemRow& row : rows) {
    result.text(row.name).int4(row.size).int4(row.used).int4(row.free).int4(row.memtotal).end_row();
  }
  result.finish();
}

void append_show_dns_hosts(std::string& out, std::span<const DnsHostRow> rows) {
  AdminResult result(out, {text_column("hostname"), int8_column("ttl"), text_column("addrs")});
  for (const DnsHostRow& row : rows) {
    result.text(row.hostname).number(std::max<std::int64_t>(row.ttl, 0));
    result.text(fmt::format("{}", fmt::join(row.addrs, ","))).end_row();
  }
  result.finish();
}

void append_show_dns_zones(std::string& out, std::span<const DnsZoneRow> rows) {
  AdminResult result(out, {text_column("zonename"), int8_column("serial"), int4_column("count")});
  for (const DnsZoneRow& row : rows) {
    result.text(row.zonename).number(std::uint64_t{row.serial}).int4(row.count).end_row();
  }
  result.finish();
}

void append_show_config(std::string& out, std::span<const SettingRow> rows) {
  AdminResult result(out,
                     {text_column("key"), text_column("value"), text_column("default"), text_column("changeable")});
  for (const SettingRow& row : rows) {
    result.text(row.key).text(row.value).text(row.default_value).text(row.changeable ? "yes" : "no").end_row();
  }
  result.finish();
}

void append_show_fds(std::string& out, std::span<const FdRow> rows, FdColumns columns) {
  std::vector<protocol::Column> all{int4_column("fd"),
                                    text_column("task"),
                                    text_column("user"),
                                    text_column("database"),
                                    text_column("addr"),
                                    int4_column("port"),
                                    int8_column("cancel"),
                                    int4_column("link"),
                                    text_column("client_encoding"),
                                    text_column("std_strings"),
                                    text_column("datestyle"),
                                    text_column("timezone"),
                                    text_column("password"),
                                    bytea_column("scram_client_key"),
                                    bytea_column("scram_server_key")};
  if (columns == FdColumns::WithState) all.push_back(bytea_column("state"));
  AdminResult result(out, all);
  for (const FdRow& row : rows) {
    result.int4(row.fd).text(row.task).text(row.user).text(row.database).text(row.addr).int4(row.port);
    result.number(static_cast<std::int64_t>(row.cancel)).int4(row.link);
    result.text(row.client_encoding).text(row.std_strings).text(row.datestyle).text(row.timezone);
    result.text(row.password).bytes(row.scram_client_key).bytes(row.scram_server_key);
    if (columns == FdColumns::WithState) result.bytes(row.state);
    result.end_row();
  }
  result.finish();
}

}  // namespace pgweir::core
