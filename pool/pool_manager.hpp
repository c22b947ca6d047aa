// All pools of the process as one pure state machine: events in, actions out. Decides which client gets which server
// connection, when one is opened, closed or moved to another worker, and holds every connection limit exactly: a permit
// is taken before a connect starts and returned when the close is complete. It knows nothing of sockets, threads or the
// protocol; production puts one mutex around it, the simulator calls it directly.
//
// Order of fairness: a free server goes to the oldest waiter of its pool, except that the oldest waiter on the server's
// own worker is preferred if it queued at most `fifo_slack` after the oldest of all, which saves a hand-over. For the
// same reason a server that is idle on another worker is not moved at once: that worker is asked (OfferIdle), and what
// is still idle there when it has looked at the input at hand goes to those who wait (offer_idle). Bursts would
// otherwise carry servers to and fro between workers that are about to need them.
//
// A client may want a server of its own (acquire_dedicated). That one is opened for it on its worker, is linked with it
// from then on and goes from Login to Active to Closing; it counts against every limit and never serves anybody else.
//
// States of a server connection (PgBouncer's console names in brackets):
//
//   Login [sv_login] -> Idle [sv_idle, sv_used] <-> Active [sv_active] -> Testing [sv_tested] -> Idle
//                        |  ^
//                        v  |             Active -> Canceling [sv_being_canceled] -> Idle
//                       Moving            any -> Closing (permit still held) -> slot free
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pool/ids.hpp"
#include "pool/pool_action.hpp"
#include "pool/time.hpp"

namespace pgweir::pool {

struct LeaseBoard;

/// Settings of one (database, user) pool with all inheritance resolved. 0 means what it means in PgBouncer.
struct PoolSettings {
  std::uint32_t pool_size = 20;               ///< 0: unlimited
  std::uint32_t min_pool_size = 0;            ///< kept while a client is attached or `forced_user`
  std::uint32_t reserve_pool_size = 0;        ///< on top of pool_size
  std::uint32_t max_pool_logins = 4;          ///< server logins in progress at once, at least 1
  Duration reserve_pool_timeout{5'000'000};   ///< 0: no reserve
  Duration server_idle_timeout{600'000'000};  ///< 0: never
  Duration server_lifetime{3'600'000'000};    ///< 0: each connection is used once
  Duration server_login_retry{15'000'000};
  Duration server_check_delay{30'000'000};
  Duration pool_idle_timeout{0};    ///< unused for so long it is forgotten; 0: never
  bool server_fast_close = false;   ///< a client that keeps its server does not keep one that is to be closed
  bool server_check = true;         ///< a check query is configured
  bool server_round_robin = false;  ///< reuse the longest idle first instead of the newest
  bool forced_user = false;         ///< min_pool_size holds without clients too
  bool one_address = false;         ///< of several addresses the one in use is kept until a connection to it fails
  bool held = false;     ///< whoever queues here waits until the caller sends it to a pool of one host: none is opened
  bool patient = false;  ///< a server that cannot be reached fails nobody: its clients wait, or go elsewhere
};

/// Process-wide limits; 0 is unlimited except for max_client_conn.
struct ManagerSettings {
  WorkerId workers = 1;
  Duration fifo_slack{1'000};
  std::uint32_t max_client_conn = 100;
};

/// Limits of one database entry. 0: unlimited.
struct DatabaseLimits {
  std::uint32_t max_db_connections = 0;
  std::uint32_t max_db_client_connections = 0;
};

/// Limits of one user: connections as pool user, clients as login user. 0: unlimited.
struct UserLimits {
  std::uint32_t max_user_connections = 0;
  std::uint32_t max_user_client_connections = 0;
};

enum class AcquireStatus : std::uint8_t {
  Granted,  ///< `server` is linked, on the client's worker; use it now
  Queued,   ///< a Grant, RejectClient or DropClient action will come, unless the client leaves
  Failing,  ///< the last login failed, no server is left and the retry pause lasts: PgBouncer's fast failure
};

struct AcquireResult {
  AcquireStatus status = AcquireStatus::Queued;
  ServerId server{};
  bool needs_check = false;
};

enum class ClientLimit : std::uint8_t { Ok, Database, User };

/// How many clients a database and a user may have; 0: unlimited.
struct ClientLimits {
  std::uint32_t database = 0, user = 0;
};

/// How a linked or testing server is given back.
enum class ReleaseKind : std::uint8_t {
  Clean,      ///< ready for the next client
  NeedsTest,  ///< the worker now runs server_reset_query on it; a second release ends that
};

/// Why a server connection's slot ends.
enum class CloseKind : std::uint8_t {
  Normal,            ///< closed by us or by the server after a successful login
  LoginFailed,       ///< connect failed or timed out, DNS failure: waiters keep waiting, retry after server_login_retry
  LoginRejected,     ///< the server answered with an error: waiters are rejected with it if no server is left
  ServerNotReadyYet  ///< 57P03: waiters keep waiting
};

/// Backend pid and secret as the server sent them (secret: 4 to 256 bytes, 32 here at most since 3.0 sends 4).
struct BackendKey {
  std::uint32_t pid = 0;
  std::string secret{};
};

enum class CancelStatus : std::uint8_t {
  NotFound,      ///< unknown key, or the client runs nothing: drop the request
  Waiting,       ///< the client waits in a queue and must be told 57014 by its own worker; see `client`, `worker`
  Forward,       ///< `worker` connects to the server when it is the request's turn, then asks confirm_cancel
  Peer,          ///< the same with the peer of that id instead of a server; by the worker where the request came in
  Console,       ///< the client is a console connection: interrupt its pending command
  LimitReached,  ///< too many wait already
};

/// Whether a cancel request may have its connection.
enum class CancelTurn : std::uint8_t {
  Over,  ///< what it was for has ended: drop it; end_cancel is not needed
  Wait,  ///< as many as may be are under way: StartCancel or AbandonCancel will come
  Now,
};

struct CancelResult {
  CancelStatus status = CancelStatus::NotFound;
  CancelId cancel{};
  ClientId client{};
  WorkerId worker = 0;  ///< of the client
  ServerId server{};
  PoolId pool{};
  std::uint16_t peer = 0;
  BackendKey key{};            ///< Forward: the server's
  std::uint64_t peer_key = 0;  ///< Peer: what to send
};

struct CancelSnapshot {
  bool sent = false;
  PoolId pool{};  ///< none: it is for a peer
};

/// A server that its worker has handed on by itself (worker_leases.hpp): who has it now.
struct LeasedServer {
  ServerId server{};
  ClientId client{};       ///< none: nobody
  bool pending = false;    ///< the client has not taken it yet: as after a Grant, before grant_taken
  TimePoint waited_since;  ///< then: when the client began to wait
};

/// A client that has waited on its worker for one of that worker's servers, without the manager.
struct LocalWaiter {
  ClientId client{};
  TimePoint since{};
};

/// A server connection that another process has opened and logged in, and hands over with what it knows about it.
struct AdoptedServer {
  WorkerId worker = 0;
  BackendKey key{};
  TimePoint created{}, last_active{};
  bool close_needed = false;
};

/// Another process to which cancel requests are passed on.
struct PeerLimits {
  std::uint16_t id = 0;
  std::uint32_t pool_size = 0;  ///< connections at once; 0: kUnlimitedPoolCancels
};

/// Numbers of one peer for SHOW PEER_POOLS.
struct PeerSnapshot {
  std::uint16_t id = 0;
  std::uint32_t cl_active_cancel_req = 0, cl_waiting_cancel_req = 0, sv_active_cancel = 0, sv_login = 0;
};

/// Numbers of one pool for SHOW POOLS.
struct PoolSnapshot {
  PoolId id{};
  std::string database, user;
  std::string host{};  ///< as given to set_pool
  std::uint32_t cl_active = 0, cl_waiting = 0, cl_active_cancel_req = 0, cl_waiting_cancel_req = 0;
  std::uint32_t sv_active = 0, sv_active_cancel = 0, sv_being_canceled = 0, sv_idle = 0, sv_used = 0, sv_tested = 0,
                sv_login = 0;
  std::uint32_t closing = 0;  ///< closing connections; they still count against the limits
  Duration maxwait{0};
};

struct DatabaseSnapshot {
  std::string name;
  std::uint32_t current_connections = 0, current_client_connections = 0;
  bool paused = false, disabled = false;
};

struct UserSnapshot {
  std::string name;
  std::uint32_t current_connections = 0, current_client_connections = 0;
};

/// Counters for tests, SHOW LISTS and the simulator's checkers. `exempt_clients` are the consoles, `login_clients`
/// those of the others that belong to no pool yet; `clients` has them all.
struct Totals {
  std::uint32_t clients = 0, login_clients = 0, exempt_clients = 0, servers = 0, idle_servers = 0, waiting_clients = 0,
                pools = 0, cancels = 0;
};

class PoolManager {
 public:
  explicit PoolManager(ManagerSettings settings);
  ~PoolManager();
  PoolManager(const PoolManager&) = delete;
  PoolManager& operator=(const PoolManager&) = delete;

  // ---- configuration (the caller has resolved all inheritance) ----
  void set_limits(std::uint32_t max_client_conn);
  void set_database_limits(std::string_view database, DatabaseLimits limits);
  /// For a database that came by `*`: unused for so long it is forgotten. 0: never.
  void set_autodb_idle_timeout(std::string_view database, Duration timeout, TimePoint now);
  void set_user_limits(std::string_view user, UserLimits limits);
  /// Creates the pool or gives it new settings; servers over a shrunken limit are closed as they become idle.
  /// `host`: the pool is the part on that host, any text, of the pool without one, which must exist. Each host has
  /// max_db_connections of its own; clients are attached to the pool without a host, and for them min_pool_size holds
  /// on each.
  PoolId set_pool(std::string_view database, std::string_view user, const PoolSettings& settings, TimePoint now,
                  Actions& out, std::string_view host = {});
  /// What is idle, or still logging in, is closed, what is in use when it comes free. Nothing happens if that has been
  /// done for this `version`, a number that never falls, or a later one: several workers say the same.
  void recycle_pool(PoolId pool, std::uint64_t version, TimePoint now, Actions& out);
  /// The server can be reached, others say: what is left of the pause after a failed login is cut to a moment, unless
  /// the server itself refused us.
  void end_login_pause(PoolId pool, TimePoint now, Actions& out);
  /// `worker` keeps things of its own about the pool, and is asked to forget them (ForgetPool) before the id dies.
  void hold_pool(PoolId pool, WorkerId worker);
  /// Answer to ForgetPool: `worker` is about to forget it. False: it must not, the pool is in use again.
  [[nodiscard]] bool pool_forgotten(PoolId pool, WorkerId worker, TimePoint now, Actions& out);
  /// The peers from now on, with the own id; 0 for none: then nothing is passed on. Requests that wait for a peer which
  /// is gone are abandoned; what is under way goes on.
  void set_peers(std::uint16_t own_id, std::span<const PeerLimits> peers, Actions& out);
  [[nodiscard]] PoolId find_pool(std::string_view database, std::string_view user, std::string_view host = {}) const;
  /// Every existing pool, for re-resolving the settings after a reload.
  [[nodiscard]] std::vector<PoolId> pools() const;
  [[nodiscard]] std::pair<std::string, std::string> pool_name(PoolId pool) const;  ///< database, user
  [[nodiscard]] std::string pool_host(PoolId pool) const;                          ///< empty: it is not of one host

  // ---- clients ----
  /// A client socket was accepted. nullopt: max_client_conn is reached. `exempt` (console logins) passes the limit.
  [[nodiscard]] std::optional<ClientId> add_client(WorkerId worker, bool exempt = false);
  /// Turns an accepted client into an exempt one (it logs in to the console); it no longer counts for max_client_conn.
  void exempt_client(ClientId client);
  /// The client named its database and user. Counts it there; on refusal nothing is counted. `exempt`: console admin.
  /// `limits`: in force from now on for this database and user; null: those they have. Names nobody else has asked for
  /// are forgotten with the client.
  [[nodiscard]] ClientLimit bind_client(ClientId client, std::string_view database, std::string_view user,
                                        const ClientLimits* limits = nullptr);
  /// Says that the login is complete and which pool the client belongs to (SHOW POOLS cl_active, min_pool_size).
  void attach_client(ClientId client, PoolId pool, TimePoint now, Actions& out);
  /// A process before this one has logged in to the pool's server: when that fails now, clients need not wait to learn
  /// whether it ever worked.
  void note_earlier_logins(PoolId pool);
  /// The client is gone: leaves every queue. A grant on its way to it is taken back. A server linked to it must have
  /// been released or closed by the worker before. Its cancel key stops working.
  void remove_client(ClientId client, TimePoint now, Actions& out);

  // ---- servers for clients ----
  /// `client` (waiting in no queue, holding no server) needs a server of `pool`. O(1).
  [[nodiscard]] AcquireResult acquire(ClientId client, PoolId pool, TimePoint now, Actions& out);
  /// Like acquire for a client whose granted server proved dead before any byte of its request was sent: it waits
  /// again with its first waiting time, at the head of the queue. The dead server must have been reported before. Also
  /// for one that waited in the process from which it was taken over.
  [[nodiscard]] AcquireResult acquire_again(ClientId client, PoolId pool, TimePoint waiting_since, TimePoint now,
                                            Actions& out);
  /// `client` (waiting in no queue, holding no server) needs a server of `pool` that is opened for it alone, whatever
  /// is idle; where pool_size or another limit is in the way, idle ones are evicted. A Grant will come, or a
  /// RejectClient with the `message` of its failed login, or a DropClient; DropClient also ends it when the pool is
  /// reconnected, since it may never be given back. The server is closed when the client has left.
  void acquire_dedicated(ClientId client, PoolId pool, TimePoint now, Actions& out);
  /// The worker is about to link the two because of a Grant action. False: the grant has been taken back meanwhile
  /// (the server may already be another client's): leave both alone. A server granted by AcquireStatus::Granted needs
  /// no such call. Until it is called the client counts as waiting for cancel requests, and a server that dies puts
  /// its client back at the head of the queue.
  [[nodiscard]] bool grant_taken(ClientId client, ServerId server);
  /// Leaves the queue (query_wait_timeout, cancel while waiting). A grant on its way is taken back.
  void stop_waiting(ClientId client, TimePoint now, Actions& out);
  /// The worker gives an Active, Testing server back. Handled here: parked while a cancel is in flight, closed when
  /// recycled, too old, over the limit or its database is gone, handed to a waiter, or idle. Answers the action, if
  /// any, through `out`.
  void release(ServerId server, ReleaseKind kind, TimePoint now, Actions& out);

  // ---- servers that workers hand on by themselves (worker_leases.hpp) ----
  /// What workers may know of the pool without asking; for as long as they like.
  [[nodiscard]] std::shared_ptr<const LeaseBoard> lease_board(PoolId pool) const;
  /// The worker has handed these servers on since they were granted or last told of; all of them are its own, and
  /// Active here. To be called before anything else the worker has to say.
  /// `served`: who got one of them while waiting here.
  void tell_leases(std::span<const LeasedServer> servers, std::span<const ClientId> served, TimePoint now,
                   Actions& out);
  /// These clients of `worker` have waited there, for a server of `pool`, longest first; from now on they wait here.
  void enqueue(WorkerId worker, PoolId pool, std::span<const LocalWaiter> clients, TimePoint now, Actions& out);

  // ---- life of server connections ----
  /// Login complete: Login -> Idle or straight to a waiter.
  void server_ready(ServerId server, BackendKey key, TimePoint now, Actions& out);
  /// A moved server is registered on its new worker.
  void server_arrived(ServerId server, TimePoint now, Actions& out);
  /// Answer to OfferIdle: what is idle on `worker` goes to those who wait for it on others.
  void offer_idle(WorkerId worker, PoolId pool, TimePoint now, Actions& out);
  /// The worker has begun to close it (error, dirty, dead): no longer usable, the permit stays taken.
  /// A client whose Grant of it is under way goes back to the head of its queue.
  void server_closing(ServerId server, TimePoint now, Actions& out);
  /// The close is complete: returns the permit. `message` is kept as the "cached error" of the pool after a failed
  /// login; waiters rejected because of it get `message`. Also valid straight from any other state (EOF on an idle
  /// one).
  void server_closed(ServerId server, CloseKind kind, std::string_view message, TimePoint now, Actions& out);
  /// A server that must not serve another client (close at release): DNS change, stray message, SHOW's close_needed.
  void recycle_server(ServerId server, TimePoint now, Actions& out);
  [[nodiscard]] std::string last_login_error(PoolId pool) const;
  /// False until the first successful login of the pool, and after a failed one until the next success.
  [[nodiscard]] bool last_login_ok(PoolId pool) const;
  [[nodiscard]] bool close_needed(ServerId server) const;
  /// It serves nobody until the cancel requests for it have ended.
  [[nodiscard]] bool being_canceled(ServerId server) const;
  [[nodiscard]] WorkerId server_worker(ServerId server) const;

  // ---- online restart ----
  /// Takes over a connection, Active for `client` (waiting in no queue, holding no server; on the same worker) or, with
  /// none, free. It counts against the limits without asking them: it did so in the other process. What does not fit
  /// the limits of this one is closed when it becomes free.
  ServerId adopt_server(PoolId pool, AdoptedServer server, ClientId client, TimePoint now, Actions& out);
  /// Off: no server is opened for anybody who waits. While a process comes to rest, and while servers are adopted.
  void set_opening(bool on, TimePoint now, Actions& out);
  /// What another process is to know about a server.
  [[nodiscard]] AdoptedServer state_of(ServerId server) const;
  /// Nothing is on its way that ends by itself: no login, move, test, close, grant or cancel request.
  [[nodiscard]] bool at_rest() const;

  // ---- cancel requests ----
  /// Registers the client's cancel key (8 bytes as sent in BackendKeyData). False: the key is taken, draw another.
  [[nodiscard]] bool set_cancel_key(ClientId client, std::uint64_t key, bool console);
  /// Whose key this is, and on which worker that client is; nullopt: nobody's here.
  [[nodiscard]] std::optional<std::pair<ClientId, WorkerId>> owner_of_key(std::uint64_t key) const;
  /// The key of a client; 0: it has none.
  [[nodiscard]] std::uint64_t cancel_key(ClientId client) const;
  /// A cancel request came in on any worker. Forward counts it against 2 x pool_size of the pool, Peer against the
  /// pool_size of the peer; those beyond wait for their turn.
  [[nodiscard]] CancelResult begin_cancel(std::uint64_t key, WorkerId worker, TimePoint now);
  /// To be asked once by the worker that carries the request out, before it connects.
  [[nodiscard]] CancelTurn cancel_turn(CancelId cancel) const;
  /// How far a request has come; nullopt: it has ended.
  [[nodiscard]] std::optional<CancelSnapshot> cancel_snapshot(CancelId cancel) const;
  /// Just before the request is sent. False: the query it was meant for is over, do not send it (the cancel has ended).
  /// True: from now on the server is not handed on until end_cancel.
  [[nodiscard]] bool confirm_cancel(CancelId cancel);
  /// The cancel connection ended. `delivered`: the server closed it after our request, so the signal has been sent;
  /// otherwise its fate is unknown and the server connection is recycled.
  void end_cancel(CancelId cancel, bool delivered, TimePoint now, Actions& out);

  // ---- console ----
  enum class DatabaseResult : std::uint8_t { Ok, NotFound, Already };
  DatabaseResult pause(std::string_view database, TimePoint now, Actions& out);  ///< closes its idle servers
  DatabaseResult resume(std::string_view database, TimePoint now, Actions& out);
  DatabaseResult pause_all(TimePoint now, Actions& out);
  DatabaseResult resume_all(TimePoint now, Actions& out);
  DatabaseResult set_disabled(std::string_view database, bool disabled, TimePoint now);
  [[nodiscard]] bool is_disabled(std::string_view database) const;
  [[nodiscard]] bool is_paused(std::string_view database) const;  ///< by itself or globally
  [[nodiscard]] bool all_paused() const;
  /// Makes a database known so that it can be paused or disabled before any client came. True if nobody but clients in
  /// their login knew it.
  bool add_database(std::string_view database);
  /// Tags every server of the database (empty: all) to be closed when free; idle ones close now, and the clients of
  /// dedicated ones are dropped.
  void reconnect(std::string_view database, TimePoint now, Actions& out);
  /// Drops all clients and servers of the database with `reason`. Servers in use are closed by their worker when the
  /// client is dropped.
  void kill(std::string_view database, std::string_view reason, TimePoint now, Actions& out);
  /// Rejects all waiting clients with `reason` (SHUTDOWN WAIT_FOR_SERVERS).
  void reject_waiting(std::string_view reason, TimePoint now, Actions& out);

  /// What a console command waits for. The WaitOver action comes at once if the condition already holds.
  enum class WaitFor : std::uint8_t {
    NoActiveServers,  ///< PAUSE: none Active or Testing
    NoServers,        ///< SHUTDOWN WAIT_FOR_SERVERS
    NoClients,        ///< SHUTDOWN WAIT_FOR_CLIENTS
    NoCloseNeeded,    ///< WAIT_CLOSE
  };
  /// `host`: only what runs on that host of the database; of NoActiveServers.
  void wait_for(WaitFor what, std::string_view database /* empty: all */, WorkerId worker, std::uint64_t token,
                TimePoint now, Actions& out, std::string_view host = {});
  void stop_wait(std::uint64_t token);

  [[nodiscard]] std::vector<PoolSnapshot> pool_snapshots(TimePoint now) const;
  [[nodiscard]] std::vector<DatabaseSnapshot> database_snapshots() const;
  [[nodiscard]] std::vector<UserSnapshot> user_snapshots() const;
  /// Peers that a request was passed on to, by id.
  [[nodiscard]] std::vector<PeerSnapshot> peer_snapshots() const;
  [[nodiscard]] Totals totals() const;
  [[nodiscard]] std::optional<PoolSnapshot> pool_snapshot(PoolId pool, TimePoint now) const;

  // ---- time ----
  /// When on_time wants to be called next; kNever if nothing is due. Lazily kept: it may be early, never late.
  [[nodiscard]] TimePoint next_deadline() const;
  /// Reserve pool, login retries, min_pool_size, idle and lifetime limits that are due at `now`, and what has been
  /// unused for too long.
  void on_time(TimePoint now, Actions& out);

  /// Aborts through std::abort if an internal rule is broken; for tests and the simulator. Walks everything.
  void check_invariants(TimePoint now) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pgweir::pool
