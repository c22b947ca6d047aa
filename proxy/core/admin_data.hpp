// What the SHOW commands of the admin console print, as plain values: collected from the workers and the pools by the
// caller, turned into result rows by admin_format.hpp. Holds no rules. Everything is copied, so rows may travel between
// workers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pool/pool_manager.hpp"
#include "pool/time.hpp"
#include "proxy/core/config.hpp"
#include "proxy/core/pool_stats.hpp"
#include "proxy/core/replication.hpp"

namespace pgweir::core {

/// Makes "YYYY-MM-DD HH:MM:SS TZ" in local time of microseconds since 1970. A callback because the time zone is the
/// system's business.
using FormatTime = std::function<std::string(std::int64_t unix_us)>;

/// States of client and server sockets. SHOW CLIENTS and SHOW SERVERS on one side and SHOW SOCKETS on the other
/// have different words for them, and do not list the same ones.
enum class SocketState : std::uint8_t {
  ClLogin,             ///< logging in
  ClActive,            ///< linked to a server
  ClIdle,              ///< logged in, needs no server now
  ClWaiting,           ///< waiting for a server, or for the first login of the pool
  ClActiveCancelReq,   ///< a cancel request that was passed on
  ClWaitingCancelReq,  ///< a cancel request that was not yet passed on
  SvLogin,
  SvActive,
  SvIdle,
  SvUsed,  ///< idle for longer than server_check_delay
  SvTested,
  SvActiveCancel,  ///< sends a cancel request
  SvBeingCanceled,
};

/// One row of SHOW CLIENTS, SERVERS, SOCKETS and ACTIVE_SOCKETS.
struct SocketRow {
  SocketState state = SocketState::ClLogin;
  std::string user;      ///< empty: unknown
  std::string database;  ///< empty: unknown, or a peer
  Replication replication = Replication::None;
  std::string addr;  ///< numeric, or "unix"
  int port = 0;
  std::string local_addr;
  int local_port = 0;
  std::int64_t connect_time = 0;  ///< unix microseconds
  std::int64_t request_time = 0;  ///< unix microseconds
  pool::Duration wait{0};         ///< since the running query started
  bool close_needed = false;
  std::uint64_t ptr = 0;    ///< any number that names the connection while it lives
  std::uint64_t link = 0;   ///< `ptr` of the partner; 0: none
  pool::CancelId cancel{};  ///< the cancel request that it carries, which makes partners of two rows
  std::uint64_t remote_pid = 0;
  std::string tls;
  std::string application_name;
  std::uint64_t prepared_statements = 0;
  std::uint64_t id = 0;   ///< what KILL_CLIENT takes
  std::string host;       ///< of a server: as the configuration has it
  std::string_view role;  ///< of a server: what it says of itself; empty: nothing
  std::uint64_t recv_pos = 0, pkt_pos = 0, pkt_remain = 0, send_pos = 0, send_remain = 0, pkt_avail = 0, send_avail = 0;
};

/// One row of SHOW DATABASES; all numbers as they are in effect.
struct DatabaseRow {
  std::string name;
  std::optional<std::string> host;  ///< null: the default Unix socket
  int port = 0;
  std::string database;  ///< name on the server
  std::optional<std::string> force_user;
  int pool_size = 0, min_pool_size = 0, reserve_pool_size = 0;
  pool::Duration server_lifetime{0};
  std::optional<PoolMode> pool_mode;                   ///< of the entry itself
  std::optional<LoadBalanceHosts> load_balance_hosts;  ///< only if there are several hosts
  int max_connections = 0;
  std::uint32_t current_connections = 0;
  int max_client_connections = 0;
  std::uint32_t current_client_connections = 0;
  bool paused = false, disabled = false;
};

/// One host of a list behind routed databases.
struct HostRow {
  std::string hosts;  ///< the whole list
  std::string host;
  int port = 0;
  std::string_view role, state;
  std::uint32_t timeline = 0;
  std::optional<std::uint64_t> lag_bytes;             ///< of a standby
  std::optional<std::int64_t> lag_ms, last_probe_ms;  ///< last_probe_ms: ago
  std::optional<std::string> replay_lsn;
  std::string reason;
};

struct RouteRow {
  std::string database;
  RouteStats counts;
};

struct PoolRow {
  pool::PoolSnapshot counts;
  std::optional<HostPort> host;                        ///< of a pool of one host
  std::optional<std::string_view> role{};              ///< what that host is now
  PoolMode pool_mode = PoolMode::Session;              ///< in effect
  std::optional<LoadBalanceHosts> load_balance_hosts;  ///< only if there are several hosts
};

/// One database with at least one pool, summed over its pools.
struct StatsRow {
  std::string database;
  PoolStats total;
  StatsPeriod period;  ///< the last one that is over
};

struct UserRow {
  std::string name;
  std::optional<int> pool_size, reserve_pool_size;  ///< of the user itself
  std::optional<PoolMode> pool_mode;                ///< of the user itself
  int max_user_connections = 0;
  std::uint32_t current_connections = 0;
  int max_user_client_connections = 0;
  std::uint32_t current_client_connections = 0;
};

struct PeerRow {
  int peer_id = 0;
  std::optional<std::string> host;  ///< null: the default Unix socket
  int port = 0;
  int pool_size = 0;
};

struct PeerPoolRow {
  int peer_id = 0;
  std::uint32_t cl_active_cancel_req = 0, cl_waiting_cancel_req = 0, sv_active_cancel = 0, sv_login = 0;
};

struct ListsData {
  std::uint64_t databases = 0, users = 0, peers = 0, pools = 0, peer_pools = 0, free_clients = 0, used_clients = 0,
                login_clients = 0, free_servers = 0, used_servers = 0, dns_names = 0, dns_zones = 0, dns_queries = 0,
                dns_pending = 0;
};

/// A kind of object: size of one in bytes, how many are in use and kept free, bytes of all.
struct MemRow {
  std::string name;
  std::uint64_t size = 0, used = 0, free = 0, memtotal = 0;
};

struct DnsHostRow {
  std::string hostname;
  std::int64_t ttl = 0;  ///< seconds left; negative: expired
  std::vector<std::string> addrs;
};

struct DnsZoneRow {
  std::string zonename;
  std::uint32_t serial = 0;
  std::uint64_t count = 0;
};

/// What is known of names; `ttl` of its rows counts from when it was made.
struct DnsReport {
  std::vector<DnsHostRow> hosts;
  std::vector<DnsZoneRow> zones;
  std::uint64_t queries = 0;  ///< names being looked up
  std::uint64_t waiting = 0;  ///< connections that wait for one
};

enum class PauseMode : std::uint8_t { Active, Paused, Suspended };

struct StateData {
  PauseMode mode = PauseMode::Active;
};

/// One row of SHOW FDS.
struct FdRow {
  int fd = -1;
  std::string task;  ///< "pooler", "client", "server"
  std::optional<std::string> user, database, addr;
  int port = 0;
  std::uint64_t cancel = 0;  ///< cancel key
  int link = 0;              ///< descriptor of the partner; 0: none
  std::optional<std::string> client_encoding, std_strings, datestyle, timezone, password;
  std::optional<std::string> scram_client_key, scram_server_key;  ///< raw bytes
  std::optional<std::string> state{};                             ///< ours, see handover.hpp; raw bytes
  std::shared_ptr<const int> descriptor{};  ///< the socket itself under another number, sent along; null: it is not
};

}  // namespace pgweir::core
