// Reads one command of the admin console. Decides what was asked for and whether it is well formed; not whether the
// database, client or setting that it names exists, nor what the command does. The language is PgBouncer's:
//
//   CMD [ARG] [;]                  each word [0-9a-z_]+ or "quoted" ("" inside), any case
//   SET KEY = VALUE [;]            value: a word, "quoted" or 'quoted' ('' inside); TO instead of = between blanks
//
// SELECT is another word for SHOW.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace pgweir::core {

enum class AdminVerb : std::uint8_t {
  Show,
  Set,
  Pause,
  Resume,
  Reload,
  Suspend,
  Kill,
  KillClient,
  Reconnect,
  Disable,
  Enable,
  WaitClose,
  Switchover,  ///< ours
  Shutdown,
  FakeShow,      ///< SHOW of a server setting that drivers ask for; `argument` is its name in lower case
  SetIgnored,    ///< SET of such a setting
  Invalid,       ///< not a command
  BadArguments,  ///< a word is longer than its limit
};

enum class ShowWhat : std::uint8_t {
  None,  ///< the verb is not Show
  Help,
  Version,
  State,
  Databases,
  Pools,
  PeerPools,
  Peers,
  Users,
  Clients,
  Servers,
  Sockets,
  ActiveSockets,
  Stats,
  StatsTotals,
  StatsAverages,
  Totals,
  Latency,  ///< ours, as what follows
  Hosts,
  Routes,
  Lists,
  Mem,
  DnsHosts,
  DnsZones,
  Config,
  Fds,
  Handover,  ///< ours: SHOW FDS with all that another pgweir needs to go on
};

enum class AdminShutdown : std::uint8_t { Now, WaitForServers, WaitForClients };

struct AdminCommand {
  AdminVerb verb = AdminVerb::Invalid;
  ShowWhat what = ShowWhat::None;
  AdminShutdown shutdown = AdminShutdown::Now;  ///< Shutdown
  std::uint64_t client_id = 0;                  ///< KillClient, if `error` is empty
  std::string argument;                         ///< a database name in its own case; empty: all
  std::string key, value;                       ///< Set, SetIgnored
  /// The text to answer instead of doing anything; empty if there is nothing to complain about. Where the command
  /// needs_admin, that comes first.
  std::string error;
};

/// A server setting that drivers read or set on every connection, and what the console claims it is.
struct FakeSetting {
  std::string_view name, value;
};
inline constexpr std::array<FakeSetting, 6> kFakeSettings{{
    {"client_encoding", "UTF-8"},
    {"default_transaction_isolation", "read committed"},
    {"standard_conforming_strings", "on"},
    {"datestyle", "ISO"},
    {"timezone", "GMT"},
    {"extra_float_digits", "1"},  // of JDBC
}};

/// `sql` is the text of one Query message. Takes time linear in its length; `error` stays below 490 bytes and is cut
/// between UTF-8 characters, however long the command is.
[[nodiscard]] AdminCommand parse_admin_command(std::string_view sql);

/// The command is refused to stats_users with "admin access needed".
[[nodiscard]] bool needs_admin(const AdminCommand& command);

/// The CommandComplete tag of a command that succeeded: "PAUSE", "SET key=value". Empty if it has none.
[[nodiscard]] std::string command_tag(const AdminCommand& command);

}  // namespace pgweir::core
