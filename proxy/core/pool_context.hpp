// What one worker knows about one (database, user) pool beyond the connections themselves: the settings that apply, how
// to log in to its server, what a welcome contains, and its counters. Every worker has its own copy, so nothing here is
// locked.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "protocol/auth_scram.hpp"
#include "protocol/session_parameters.hpp"
#include "proxy/core/config.hpp"
#include "proxy/core/hba_settings.hpp"
#include "proxy/core/host_group.hpp"
#include "proxy/core/latency.hpp"
#include "proxy/core/ldap_options.hpp"
#include "proxy/core/pool_stats.hpp"
#include "proxy/core/port.hpp"

namespace pgweir::core {

/// Configuration and user list in force. Immutable; sessions keep the one they began with only for as long as a step
/// takes and ask their worker again.
struct Settings {
  std::shared_ptr<const Config> config;
  std::shared_ptr<const std::map<std::string, std::string, std::less<>>> users;  ///< auth_file
  std::shared_ptr<const protocol::TrackedNames> tracked;
  std::shared_ptr<const HbaSettings> hba;    ///< null unless auth_type is hba
  std::shared_ptr<const LdapSettings> ldap;  ///< auth_ldap_options; null if it says nothing
};

/// What is needed to log in to a server as a pool's user, found out at client logins.
struct Credentials {
  std::optional<std::string> secret;              ///< from auth_query
  std::optional<protocol::ScramKeys> scram_keys;  ///< of a client that proved its password by SCRAM
  std::optional<std::string> password;            ///< of a client for whom PAM or a directory server has said yes
};

using ParameterList = std::vector<std::pair<std::string, std::string>>;

/// What a server reported at login: the untracked parameters in the server's order, and the tracked ones.
struct ServerReport {
  ParameterList untracked;
  protocol::ParameterSetPtr tracked;
  friend bool operator==(const ServerReport&, const ServerReport&) = default;
};

struct PoolContext {
  pool::PoolId id{};
  pool::LocalPool local;  ///< what of the pool lives on this worker
  std::string database;   ///< entry name that clients use
  std::string user;       ///< user of the server connections
  std::shared_ptr<const Settings> settings;
  const DatabaseConfig* entry = nullptr;  ///< inside `settings`; null once the database was removed

  // Resolved from the settings:
  std::string dbname;
  bool forced_user = false;
  PoolMode mode = PoolMode::Session;
  std::size_t max_prepared_statements = 0;  ///< 0: named statements pass through untouched
  Duration query_timeout{}, transaction_timeout{}, idle_transaction_timeout{};

  // Of a database that is routed by role (host_group.hpp). Clients belong to the context without a host, servers to
  // those of the hosts.
  HostGroup* group = nullptr;  ///< null: it is not routed
  Catalog* catalog = nullptr;  ///< of `dbname`
  router::RoutePolicy policy;
  std::shared_ptr<SharedWriteToken> writes;
  std::string host_name;                  ///< "host:port" of one that is for a single host
  std::optional<router::HostId> host_id;  ///< its place in the list; none once the list has lost it
  PoolContext* home = nullptr;            ///< the context without a host
  std::vector<PoolContext*> on_hosts;     ///< the other way round, by HostId; null where there was no need yet
  RouteStats routes;

  [[nodiscard]] bool routed() const { return group != nullptr; }
  /// Clients are told that they may write, whatever a single host of it is.
  [[nodiscard]] bool writable() const { return policy.read_write_split && routed(); }
  [[nodiscard]] PoolContext& client_side() { return home != nullptr ? *home : *this; }

  Credentials credentials;
  std::shared_ptr<const ServerReport> report;  ///< null until a server of this pool was seen here
  /// The beginning of a welcome that is the same for all its clients: what the report says of untracked parameters.
  struct SharedWelcome {
    std::shared_ptr<const ServerReport> report;
    bool writable = false;
    std::string text;
  } shared_welcome;
  PoolStats stats;
  StatsPeriod period;      ///< the last one that is over
  LatencyTable latencies;  ///< of this pool; server sessions point into it
  /// Those of that host in that role, made at need, for as long as the pool lives.
  Latencies& latencies_of(const HostPort& host, HostRole role) {
    return latencies[{database, user, host.host, host.port, role}];
  }

  /// Start-up parameter values that a server has accepted, by "name=value", with what the server made of them. Bounded.
  std::unordered_map<std::string, std::string> accepted_parameters;
  static constexpr std::size_t kAcceptedMax = 1000;
  /// How often that and `report` were forgotten.
  std::uint64_t forgotten = 0;

  [[nodiscard]] bool tracks_statements() const { return mode != PoolMode::Session && max_prepared_statements > 0; }
};

/// Fills the resolved part of a context from new settings. `entry` is left null if the database is gone.
void resolve(PoolContext& context, std::shared_ptr<const Settings> settings);

/// Names a pair of database and user.
[[nodiscard]] inline std::string pool_key(const std::string& database, const std::string& user) {
  return database + '\0' + user;
}

/// The limits of a pool for PoolManager, all inheritance resolved. `host`: its name if it is of a single host.
[[nodiscard]] pool::PoolSettings pool_settings(const Config& config, const DatabaseConfig& entry,
                                               const std::string& pool_user, std::string_view host = {});

/// The limits of a database and of a user for PoolManager.
[[nodiscard]] pool::DatabaseLimits database_limits(const Config& config, const DatabaseConfig& entry);
[[nodiscard]] pool::UserLimits user_limits(const Config& config, std::string_view user);

/// autodb_idle_timeout for a database of this entry: 0 (never) unless it is `*`.
[[nodiscard]] Duration autodb_idle_timeout(const Config& config, const DatabaseConfig& entry);

/// Host number `index` (modulo the list) of the pool's database and how to connect to it.
[[nodiscard]] ServerTarget server_target(const PoolContext& context, std::size_t index);
/// The same of another process that cancel requests are passed on to: without TLS, as PgBouncer does.
[[nodiscard]] ServerTarget peer_target(const Config& config, const PeerConfig& peer, std::size_t index);

/// What a reload means for the pools. Only when every worker has the new settings: one that has the old ones might make
/// a pool by them afterwards. Returns the databases whose servers are recycled; what workers have learned of those is
/// out of date.
[[nodiscard]] std::vector<std::string> apply_to_pools(pool::PoolManager& pools, const Config& before,
                                                      const Config& settings, TimePoint now, pool::Actions& actions);

/// Process id and peers for PoolManager. The own entry is among them.
[[nodiscard]] std::vector<pool::PeerLimits> peer_limits(const Config& config);

}  // namespace pgweir::core
