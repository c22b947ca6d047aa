// Which value applies where a setting exists on several levels: user over database over global for the pool's shape,
// one level over global for the rest. Answers from a finished Config only.
#include "proxy/core/config_settings.hpp"

namespace pgweir::core {
namespace {

template <typename T>
const std::optional<T>* user_value(const Config& config, std::string_view name, std::optional<T> UserConfig::*member) {
  const auto found = config.users.find(name);
  if (found == config.users.end() || !(found->second.*member)) return nullptr;
  return &(found->second.*member);
}

template <typename T>
T user_or_global(const Config& config, std::string_view name, std::optional<T> UserConfig::*member, T global) {
  const auto* value = user_value(config, name, member);
  return value ? **value : global;
}

template <typename T>
T user_database_or_global(const Config& config, std::string_view name, std::optional<T> UserConfig::*member,
                          const std::optional<T>& database, T global) {
  return user_or_global(config, name, member, database.value_or(global));
}

}  // namespace

const DatabaseConfig* find_database(const Config& config, std::string_view name) {
  const auto found = config.databases.find(name);
  if (found != config.databases.end()) return &found->second;
  const bool possible = name != kConsoleDatabase && name.size() <= kMaxDatabaseName;
  return possible && config.fallback ? &*config.fallback : nullptr;
}

bool is_fallback(const Config& config, const DatabaseConfig& database) {
  return config.fallback && &*config.fallback == &database;
}

std::string_view effective_dbname(const DatabaseConfig& database, std::string_view requested) {
  return database.dbname ? std::string_view(*database.dbname) : requested;
}

PoolMode effective_pool_mode(const Config& config, const DatabaseConfig& database, std::string_view pool_user) {
  return user_database_or_global(config, pool_user, &UserConfig::pool_mode, database.pool_mode, config.pool_mode);
}

int effective_pool_size(const Config& config, const DatabaseConfig& database, std::string_view pool_user) {
  return user_database_or_global(config, pool_user, &UserConfig::pool_size, database.pool_size,
                                 config.default_pool_size);
}

int effective_reserve_pool_size(const Config& config, const DatabaseConfig& database, std::string_view pool_user) {
  return user_database_or_global(config, pool_user, &UserConfig::reserve_pool_size, database.reserve_pool_size,
                                 config.reserve_pool_size);
}

int effective_min_pool_size(const Config& config, const DatabaseConfig& database) {
  return database.min_pool_size.value_or(config.min_pool_size);
}

int effective_max_db_connections(const Config& config, const DatabaseConfig& database) {
  return database.max_db_connections.value_or(config.max_db_connections);
}

int effective_max_db_client_connections(const Config& config, const DatabaseConfig& database) {
  return database.max_db_client_connections.value_or(config.max_db_client_connections);
}

int effective_max_user_connections(const Config& config, std::string_view pool_user) {
  return user_or_global(config, pool_user, &UserConfig::max_user_connections, config.max_user_connections);
}

int effective_max_user_client_connections(const Config& config, std::string_view login_user) {
  return user_or_global(config, login_user, &UserConfig::max_user_client_connections,
                        config.max_user_client_connections);
}

Duration effective_query_wait_timeout(const Config& config, const DatabaseConfig& database,
                                      std::string_view login_user) {
  return user_database_or_global(config, login_user, &UserConfig::query_wait_timeout, database.query_wait_timeout,
                                 config.query_wait_timeout);
}

Duration effective_server_lifetime(const Config& config, const DatabaseConfig& database) {
  return database.server_lifetime.value_or(config.server_lifetime);
}

Duration effective_client_idle_timeout(const Config& config, std::string_view login_user) {
  return user_or_global(config, login_user, &UserConfig::client_idle_timeout, config.client_idle_timeout);
}

Duration effective_idle_transaction_timeout(const Config& config, std::string_view pool_user) {
  return user_or_global(config, pool_user, &UserConfig::idle_transaction_timeout, config.idle_transaction_timeout);
}

Duration effective_transaction_timeout(const Config& config, std::string_view pool_user) {
  return user_or_global(config, pool_user, &UserConfig::transaction_timeout, config.transaction_timeout);
}

Duration effective_query_timeout(const Config& config, std::string_view pool_user) {
  return user_or_global(config, pool_user, &UserConfig::query_timeout, config.query_timeout);
}

int effective_pool_size(const Config& config, const PeerConfig& peer) {
  return peer.pool_size.value_or(config.default_pool_size);
}

std::string_view effective_auth_user(const Config& config, const DatabaseConfig& database) {
  if (database.auth_user) return *database.auth_user;
  return config.auth_user ? std::string_view(*config.auth_user) : std::string_view{};
}

std::string_view effective_auth_query(const Config& config, const DatabaseConfig& database) {
  return database.auth_query ? *database.auth_query : config.auth_query;
}

std::string_view effective_auth_dbname(const Config& config, const DatabaseConfig& database) {
  if (database.auth_dbname) return *database.auth_dbname;
  return config.auth_dbname ? std::string_view(*config.auth_dbname) : std::string_view{};
}

SslMode effective_server_tls_sslmode(const Config& config, const DatabaseConfig& database) {
  return database.sslmode.value_or(config.server_tls_sslmode);
}

std::string_view effective_server_tls_ca_file(const Config& config, const DatabaseConfig& database) {
  return database.sslrootcert ? *database.sslrootcert : config.server_tls_ca_file;
}

std::string_view effective_server_tls_cert_file(const Config& config, const DatabaseConfig& database) {
  return database.sslcert ? *database.sslcert : config.server_tls_cert_file;
}

std::string_view effective_server_tls_key_file(const Config& config, const DatabaseConfig& database) {
  return database.sslkey ? *database.sslkey : config.server_tls_key_file;
}

}  // namespace pgweir::core
