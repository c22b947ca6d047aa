// What the session machines ask of the world: a socket (Port) and their worker's surroundings (Host). proxy/io carries
// these out with epoll, OpenSSL and threads, the simulator with virtual pipes and time. The machines call out through
// these narrow interfaces instead of returning lists of actions, because the byte path would pay for the lists with
// every message; the rule that keeps them pure is that neither interface ever calls back from within a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pool/pool_manager.hpp"
#include "pool/worker_leases.hpp"
#include "protocol/crypto.hpp"
#include "protocol/wire.hpp"
#include "proxy/core/certificate_names.hpp"
#include "proxy/core/config.hpp"
#include "proxy/core/host_group.hpp"
#include "proxy/core/key_derivations.hpp"
#include "proxy/core/password_check.hpp"
#include "router/host_tracker.hpp"

namespace pgweir::core {

using pool::TimePoint;
using protocol::ByteView;

/// Both ends of a connection as text, for the log and SHOW.
struct PeerAddress {
  std::string host;  ///< numeric, or "unix"
  int port = 0;
  std::string local_host;
  int local_port = 0;
  bool is_unix = false;
  int pid = 0;            ///< of the process behind a Unix socket, if known
  std::int64_t uid = -1;  ///< of that process, if known
};

/// A numeric address as it is written before a port: IPv6 in brackets.
[[nodiscard]] inline std::string bracketed(const std::string& host) {
  return host.find(':') == std::string::npos ? host : "[" + host + "]";
}

/// A server to connect to and how.
struct ServerTarget {
  HostPort host;
  SslMode sslmode = SslMode::Disable;
  std::string ca_file, cert_file, key_file;  ///< per database; the Host falls back to nothing else
};

class Connection;
struct DnsReport;  // admin_data.hpp
struct FdRow;      // handover.hpp

/// One socket. All calls from the owning worker; none of them calls back into the session.
class Port {
 public:
  virtual ~Port() = default;
  /// The session that gets this socket's events from now on.
  virtual void bind(Connection& session) { (void)session; }
  /// Takes as many bytes of the pieces, in order, as the socket accepts now, and says how many. A broken connection
  /// swallows them; the session learns of it by on_hangup.
  virtual std::size_t write(std::span<const ByteView> pieces) = 0;
  /// What the session wants to hear of. With `read` off, a peer that has gone for good is still reported; `hangup`
  /// says that the end of the peer's stream matters even though nothing is read.
  virtual void set_interest(bool read, bool write, bool hangup) = 0;
  /// Starts TLS as the server. Ends in Connection::on_tls_ready or on_hangup.
  virtual void start_tls_server(ByteView already_received) = 0;
  /// Starts TLS as the client, checking the certificate as `target` says. Ends as above.
  virtual void start_tls_client(const ServerTarget& target) = 0;
  [[nodiscard]] virtual bool is_tls() const = 0;
  /// PgBouncer's form, "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=prime256v1"; empty without TLS.
  [[nodiscard]] virtual std::string tls_info() const = 0;
  /// tls-server-end-point data of RFC 5929; empty without TLS.
  [[nodiscard]] virtual std::string tls_server_end_point() const = 0;
  /// The names in the certificate that the peer showed in its TLS handshake. None unless it showed one that the CAs of
  /// client_tls_ca_file, as it was then, vouch for.
  [[nodiscard]] virtual std::optional<CertificateNames> verified_certificate() const { return std::nullopt; }
  /// Its number, for people and for SHOW FDS; -1: none.
  [[nodiscard]] virtual int descriptor() const { return -1; }
  /// The same socket under another number, for another process; null if that fails.
  [[nodiscard]] virtual std::shared_ptr<const int> duplicate() const { return nullptr; }
  /// Sends the messages, each with its descriptor (may be null), and waits until they have left. Only for the console
  /// of the own user on a Unix socket. False: the connection is broken.
  [[nodiscard]] virtual bool send_descriptors(
      const std::vector<std::pair<std::string, std::shared_ptr<const int>>>& messages) {
    (void)messages;
    return false;
  }
  /// Another process has it now: nothing that is done here may be noticed at the other end.
  virtual void give_away() { close(); }
  /// Ends our direction; the end of the peer's is still reported. Nothing is written afterwards.
  virtual void shutdown_write() {}
  /// Ends the connection; nothing is reported afterwards. What was written is still delivered.
  virtual void close() = 0;
};

enum class LogLevel { Fatal, Error, Warning, Log, Debug, Noise };

class WorkerCore;
/// Something to do on another worker. Copyable because std::function asks for it; nobody copies one.
using Task = std::function<void(WorkerCore&)>;

/// A console command that concerns the whole process rather than the pools.
struct ProcessCommand {
  enum class Kind : std::uint8_t {
    Reload,
    Set,
    Suspend,
    Resume,           ///< of a SUSPEND
    AbandonSuspend,   ///< the console that suspended is gone, or was interrupted
    DescriptorsSent,  ///< SHOW FDS has reached another process
    ShutdownNow,
    ShutdownWaitForServers,
    ShutdownWaitForClients,
  };
  Kind kind{};
  std::string key, value;     ///< Set
  pool::WorkerId worker = 0;  ///< where the console that waits for the outcome lives
  pool::ClientId client{};    ///< answered through WorkerCore::process_command_done (Reload, Set, Suspend, Resume)
};

/// What the pools are told of before the worker says anything else to them.
struct LeaseTeller {
  pool::WorkerLeases& leases;
  const TimePoint& now;
  pool::Actions& actions;
};

/// The worker around the machines.
class Host {
 public:
  virtual ~Host() = default;

  /// Must outlive the use of PoolLock with this host. Null: the worker decides nothing by itself.
  void set_lease_teller(LeaseTeller* teller) { lease_teller_ = teller; }
  /// Access to the pools of all workers; see PoolLock.
  virtual pool::PoolManager& lock_pools() = 0;
  virtual void unlock_pools() = 0;

  /// Starts a connect. Ends in WorkerCore::server_connected or server_connect_failed, unless abandoned.
  virtual void open_server(pool::ServerId server, const ServerTarget& target) = 0;
  virtual void abandon_server(pool::ServerId server) = 0;
  /// Starts a connect for a cancel request; `token` is the caller's. Ends in WorkerCore::cancel_connected or
  /// cancel_connect_failed, unless abandoned.
  virtual void open_cancel(std::uint64_t token, const ServerTarget& target) = 0;
  virtual void abandon_cancel(std::uint64_t token) = 0;

  /// Has a password judged by somebody else, which takes its time. Ends in WorkerCore::password_checked, unless
  /// abandoned; a client has one question at a time. False: too many wait already, and there will be no answer.
  [[nodiscard]] virtual bool check_password(pool::ClientId client, PasswordQuestion question) = 0;
  virtual void abandon_password(pool::ClientId client) = 0;
  /// Derives a key on another thread. Ends in WorkerCore::key_derived with the same number. A worker has one at a time.
  virtual void derive_key(std::uint64_t number, KeyQuestion question) = 0;
  /// Looks up the name of a client's address and whether that name has the address too. Ends in
  /// WorkerCore::host_name_found, which finds nobody if the client is gone by then. False as above.
  [[nodiscard]] virtual bool find_host_name(pool::ClientId client, const std::string& address) = 0;

  /// A server's port leaves this worker's event set, and enters the one of the worker that calls attach.
  virtual void detach(Port& port) = 0;
  virtual void attach(Port& port) = 0;

  /// Runs `task` on worker `to` (also on the own one: later). Tasks from one worker to another keep their order.
  virtual void post(pool::WorkerId to, Task task) = 0;
  [[nodiscard]] virtual pool::WorkerId worker_count() const = 0;
  /// The next of one sequence for all connections of the process, 1 for the first: what SHOW and the log call them.
  [[nodiscard]] virtual std::uint64_t next_number() = 0;
  /// Carries out what the console asked for; see console.hpp. Process-wide.
  virtual void process_command(const ProcessCommand& command) = 0;

  /// What a server connection has let slip about a host of the group: the prober looks at it at once. Cheap.
  virtual void witness(const std::string& group, router::HostId host, router::Witness witness) {
    (void)group, (void)host, (void)witness;
  }
  /// Clients of the group wait to read what they have written: its hosts are asked for their positions soon. Cheap, but
  /// see PositionDemand.
  virtual void positions_wanted(const std::string& group) { (void)group; }
  /// Somebody has changed the catalogue of `dbname` on the primary of the group: it is to be read again. Cheap.
  virtual void catalog_changed(const std::string& group, const std::string& dbname) { (void)group, (void)dbname; }
  /// Of the database: the same object on every worker, for as long as the process lives. It begins with a write at the
  /// moment it is made: a process before this one may have acknowledged some. A Host of a single worker that comes
  /// after nobody may leave it to the worker to keep one.
  [[nodiscard]] virtual std::shared_ptr<SharedWriteToken> shared_writes(const std::string& database) {
    (void)database;
    return std::make_shared<SharedWriteToken>();
  }

  /// A wait of PoolManager::wait_for that no console asked for is over.
  virtual void wait_over(std::uint64_t token) { (void)token; }

  /// The clock itself, later than WorkerCore::now(), which is read once per batch of events.
  [[nodiscard]] virtual TimePoint clock() = 0;
  virtual void log(LogLevel level, std::string text) = 0;
  [[nodiscard]] virtual protocol::Crypto& crypto() = 0;
  /// Seconds and microseconds since 1970, for what people read (SHOW, SCRAM has no need of it).
  [[nodiscard]] virtual std::int64_t wall_clock_us() = 0;
  /// "YYYY-MM-DD HH:MM:SS TZ" in local time.
  [[nodiscard]] virtual std::string format_time(std::int64_t unix_us) = 0;
  /// User id of the process, for the console login over a Unix socket.
  [[nodiscard]] virtual std::int64_t own_uid() const = 0;
  /// The system's name of a user; empty if it has none.
  [[nodiscard]] virtual std::string user_name(std::int64_t uid) = 0;
  /// The names known to this worker; one worker of the process knows them all, the others none.
  [[nodiscard]] virtual DnsReport dns_report() = 0;
  /// The machine's own.
  [[nodiscard]] virtual std::string host_name() = 0;
  /// The listening sockets, for SHOW FDS; all of them on one worker, none on the others.
  [[nodiscard]] virtual std::vector<FdRow> listening_sockets() = 0;
  /// True if TLS can be offered to clients.
  [[nodiscard]] virtual bool tls_available() const = 0;

 private:
  friend class PoolLock;
  LeaseTeller* lease_teller_ = nullptr;
};

/// Holds the pools for a few list operations; never across a call into a Port. They know what the worker has decided by
/// itself as soon as it has them. Actions may follow from that.
class PoolLock {
 public:
  explicit PoolLock(Host& host) : host_(host), pools_(host.lock_pools()) {
    if (const LeaseTeller* teller = host.lease_teller_; teller != nullptr && teller->leases.untold()) {
      teller->leases.tell(pools_, teller->now, teller->actions);
    }
  }
  ~PoolLock() { host_.unlock_pools(); }
  PoolLock(const PoolLock&) = delete;
  PoolLock& operator=(const PoolLock&) = delete;
  pool::PoolManager* operator->() { return &pools_; }
  pool::PoolManager& operator*() { return pools_; }

 private:
  Host& host_;
  pool::PoolManager& pools_;
};

}  // namespace pgweir::core
