// Rows of SHOW DATABASES, POOLS, USERS and PEERS made of the configuration and the pools' numbers. Decides which of the
// values in effect a column shows and when it is null; not how rows are printed (admin_format.hpp) nor which entries
// there are. Pure; everything in a row is a copy.
#pragma once

#include <string_view>

#include "proxy/core/admin_data.hpp"
#include "proxy/core/host_group.hpp"

namespace pgweir::core {

/// `name` is what clients ask for; for a database made from `*` it differs from `database.name`. `counts` with only the
/// name set stands for a database that nobody has used.
[[nodiscard]] DatabaseRow database_row(const Config& config, const DatabaseConfig& database, std::string_view name,
                                       const pool::DatabaseSnapshot& counts);
/// The console itself, listed as the database `pgbouncer`.
[[nodiscard]] DatabaseRow console_database_row(const Config& config, std::uint32_t console_clients);

/// Also for a pool whose database has left the configuration since: then with the global pool mode.
[[nodiscard]] PoolRow pool_row(const Config& config, const pool::PoolSnapshot& counts);
/// The console's clients, listed as the pool `pgbouncer`/`pgbouncer`.
/// `now`: to say how long ago it was asked.
[[nodiscard]] HostRow host_row(const std::string& group, const router::HostTable& table, router::HostId host,
                               router::TimePoint now);
[[nodiscard]] PoolRow console_pool_row(std::uint32_t console_clients);

/// A user that is configured, that has a password in auth_file, or that `counts` knows.
[[nodiscard]] UserRow user_row(const Config& config, std::string_view name, const pool::UserSnapshot& counts);

[[nodiscard]] PeerRow peer_row(const Config& config, const PeerConfig& peer);

}  // namespace pgweir::core
