// The answers of the admin console as protocol bytes: columns, types, order and nulls of every SHOW command are those
// of PgBouncer, since monitoring tools read them by name and position. Decides nothing else; what the numbers are comes
// from the caller. Follows "Message Formats" of the PostgreSQL manual (RowDescription, DataRow, CommandComplete).
//
// Every function appends to `out`. An append_show_*() ends with CommandComplete, and the caller adds ReadyForQuery;
// only append_console_error() and append_console_done() are whole answers. Numbers that do not fit a column's type are
// printed as its largest value. Rows come out sorted where PgBouncer sorts them, else in the order given.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "proxy/core/admin_data.hpp"
#include "proxy/core/latency.hpp"

namespace pgweir::core {

// ---- Answers other than SHOW ----

/// The ParameterStatus messages of a console login; then those variables that the client set itself when it started,
/// as (name, value). AuthenticationOk, BackendKeyData and ReadyForQuery are not included.
void append_console_welcome(std::string& out, std::span<const std::pair<std::string, std::string>> client_parameters);
/// ErrorResponse with fields S, C, M, and ReadyForQuery. The session goes on.
void append_console_error(std::string& out, std::string_view text, std::string_view sqlstate = "08P01");
/// CommandComplete and ReadyForQuery: the answer to an action that succeeded. See command_tag().
void append_console_done(std::string& out, std::string_view tag);
/// A NOTICE of the console; no more.
void append_console_notice(std::string& out, std::string_view text);
/// The answer to AdminVerb::SetIgnored, up to CommandComplete.
void append_set_ignored(std::string& out);
/// The answer to AdminVerb::FakeShow, up to CommandComplete. `name` as AdminCommand::argument has it.
void append_fake_show(std::string& out, std::string_view name);

// ---- SHOW ----

void append_show_help(std::string& out);
void append_show_version(std::string& out);
void append_show_state(std::string& out, const StateData& state);
void append_show_databases(std::string& out, std::span<const DatabaseRow> rows);
void append_show_pools(std::string& out, std::span<const PoolRow> rows);
void append_show_peer_pools(std::string& out, std::span<const PeerPoolRow> rows);
void append_show_peers(std::string& out, std::span<const PeerRow> rows);
void append_show_users(std::string& out, std::span<const UserRow> rows);
void append_show_lists(std::string& out, const ListsData& lists);
void append_show_mem(std::string& out, std::span<const MemRow> rows);
void append_show_dns_hosts(std::string& out, std::span<const DnsHostRow> rows);
void append_show_dns_zones(std::string& out, std::span<const DnsZoneRow> rows);
void append_show_config(std::string& out, std::span<const SettingRow> rows);
enum class FdColumns : std::uint8_t { Pgbouncer, WithState };
void append_show_fds(std::string& out, std::span<const FdRow> rows, FdColumns columns = FdColumns::Pgbouncer);

// The same rows, of clients and servers mixed, may be given to all four: each picks those it lists.
void append_show_clients(std::string& out, std::span<const SocketRow> rows, const FormatTime& format_time);
void append_show_servers(std::string& out, std::span<const SocketRow> rows, const FormatTime& format_time);
void append_show_sockets(std::string& out, std::span<const SocketRow> rows, const FormatTime& format_time);
void append_show_active_sockets(std::string& out, std::span<const SocketRow> rows, const FormatTime& format_time);

void append_show_stats(std::string& out, std::span<const StatsRow> rows);
/// Ours: how long queries, transactions and waits took, by database, user, host and role. Times in microseconds.
/// As they are given.
void append_show_hosts(std::string& out, std::span<const HostRow> rows);
void append_show_routes(std::string& out, std::span<const RouteRow> rows);
void append_show_latency(std::string& out, const LatencyTable& table);
void append_show_stats_totals(std::string& out, std::span<const StatsRow> rows);
void append_show_stats_averages(std::string& out, std::span<const StatsRow> rows);
/// The sum over all rows.
void append_show_totals(std::string& out, std::span<const StatsRow> rows);

}  // namespace pgweir::core
