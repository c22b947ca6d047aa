// The inside of PoolManager: all slots, pools and accounts, and the steps that its public operations are made of. The
// public operations are in the manager_*.cpp files by subject:
//
//   pool_manager.cpp      construction, configuration, look-ups      manager_open.cpp     when to open or evict
//   manager_clients.cpp   clients, acquire, leaving                  manager_cancel.cpp   cancel requests
//   manager_servers.cpp   life of a server, handing it on            manager_console.cpp  PAUSE, KILL, waits
//   manager_time.cpp      deadlines                                  manager_report.cpp   snapshots
//   manager_unused.cpp    forgetting pools and databases             manager_restart.cpp  online restart
//   manager_leases.cpp    what workers decide by themselves          manager_check.cpp    check_invariants
//
// Rules that hold between public calls, unless the database is paused: no pool has a waiter and an idle server; no
// waiter that a new connection could serve lacks one that is logging in, but for limits, the login cap and the retry
// pause.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pool/cancel_registry.hpp"
#include "pool/invariant.hpp"
#include "pool/pool_manager.hpp"
#include "pool/pool_state.hpp"
#include "pool/slot_map.hpp"

namespace pgweir::pool {

/// Texts of CloseServer actions; PgBouncer logs the same.
namespace close_reason {
inline constexpr std::string_view kCloseNeeded = "close_needed";
inline constexpr std::string_view kConfigChanged = "database configuration changed";
inline constexpr std::string_view kRoleChanged = "host has changed its role";
inline constexpr std::string_view kEvicted = "evicted";
inline constexpr std::string_view kIdleTimeout = "server idle timeout";
inline constexpr std::string_view kLifetime = "server lifetime over";
inline constexpr std::string_view kPaused = "pause mode";
inline constexpr std::string_view kTooMany = "too many servers in the pool";
inline constexpr std::string_view kClientGone = "client disconnect while server was not ready";
inline constexpr std::string_view kDedicatedClientGone = "replication client was closed";
}  // namespace close_reason

/// PgBouncer's warning when the reserve pool is tapped; the `reason` of such an OpenServer.
inline constexpr std::string_view kReserveNotice = "taking connection from reserve_pool";

/// A pool or database that is due to be forgotten is asked for again after this time while a worker still needs it.
inline constexpr Duration kForgetRetry{1'000'000};

/// A peer and the cancel requests on their way to it.
struct PeerState {
  std::uint16_t id = 0;
  bool configured = true;  ///< false: it left [peers], and goes with the last request that is under way
  bool used = false;       ///< a request was passed on to it
  CancelLane cancels{};
};

struct PoolManager::Impl {
  struct Wait {
    WaitFor what{};
    DatabaseState* database = nullptr;  ///< nullptr: all
    const HostAccount* host = nullptr;  ///< nullptr: all of the database
    WorkerId worker = 0;
    std::uint64_t token = 0;
  };
  using HungryList =
      boost::intrusive::list<PoolState, boost::intrusive::member_hook<PoolState, Hook, &PoolState::hungry_hook>>;

  // The order matters for destruction: lists unlink what the slots contain.
  ManagerSettings settings;
  SlotMap<ClientSlot, ClientId> clients;
  CancelRegistry cancels;
  SlotMap<ServerSlot, ServerId> server_slots;
  std::map<std::string, std::unique_ptr<DatabaseState>, std::less<>> databases;
  std::map<std::string, std::unique_ptr<UserState>, std::less<>> users;
  std::vector<std::unique_ptr<PoolState>> pools;  ///< in no particular order
  struct PoolIndex {
    std::uint32_t generation = 1;
    PoolState* pool = nullptr;
  };
  std::vector<PoolIndex> pool_index;  ///< by PoolId
  std::vector<std::uint32_t> free_pool_ids;
  std::map<std::uint16_t, std::unique_ptr<PeerState>> peers;
  std::uint16_t peer_id = 0;  ///< our own; 0: nothing is passed on
  HungryList hungry;          ///< pools in which somebody waits
  DeadlineHeap deadlines;     ///< of pools
  DeadlineHeap database_deadlines;
  std::vector<Wait> waits;
  StateCounts servers;
  std::uint32_t close_needed = 0;
  std::uint32_t counted_clients = 0;  ///< those that max_client_conn counts
  std::uint32_t attached_clients = 0;
  std::uint32_t waiting_clients = 0;
  bool all_paused = false;
  bool opening = true;  ///< false: a restart is under way, none is opened
  TimePoint last_now{};
  std::uint64_t last_seq = 0;

  explicit Impl(ManagerSettings s) : settings(s) {}

  // ---- look-ups (pool_manager.cpp) ----
  DatabaseState& database(std::string_view name);  ///< made if unknown, known for good from now on
  UserState& user(std::string_view name);          ///< as database()
  /// The database or user of this name, made as a transient one if unknown.
  template <class State>
  static State& named(std::map<std::string, std::unique_ptr<State>, std::less<>>& states, std::string_view name) {
    auto entry = states.find(name);
    if (entry == states.end()) {
      entry = states.emplace(std::string(name), std::make_unique<State>()).first;
      entry->second->name = name;
      entry->second->transient = true;
    }
    return *entry->second;
  }
  [[nodiscard]] DatabaseState* find_database(std::string_view name) const;
  [[nodiscard]] PoolState* find_pool(PoolId id) const {
    if (id.index >= pool_index.size() || pool_index[id.index].generation != id.generation) return nullptr;
    return pool_index[id.index].pool;
  }
  PoolState& add_pool(DatabaseState& db, UserState& owner, std::string_view host_name);
  void limits_changed(const Account& account);
  [[nodiscard]] bool paused(const PoolState& pool) const { return all_paused || pool.database.paused; }
  /// Workers read their clocks before they get the lock; here time never goes back.
  TimePoint tick(TimePoint now) { return last_now = now > last_now ? now : last_now; }

  // ---- waiting (manager_clients.cpp) ----
  void set_waiting(ClientSlot& client, bool waiting);
  void enqueue(ClientSlot& client, PoolState& pool);  ///< by its `since` and `seq`
  void dequeue(ClientSlot& client);
  AcquireResult acquire(ClientSlot& client, PoolState& pool, TimePoint now, Actions& out);
  [[nodiscard]] bool fails_fast(const ClientSlot& client, const PoolState& pool, TimePoint now) const;
  /// Takes the client out of its queue, or takes back a grant that it has not used.
  void withdraw(ClientSlot& client, TimePoint now, Actions& out);
  void reject_logins(PoolState& pool, std::string_view reason, Actions& out);
  void reject_waiters(PoolState& pool, WaiterQueue& queue, std::string_view reason, Actions& out);
  void reject(const ClientSlot& client, const PoolState& pool, std::string_view reason, Actions& out);

  // ---- servers (manager_servers.cpp) ----
  void set_state(ServerSlot& server, ServerState next);  ///< the only place that changes a state
  static void link(ClientSlot& client, ServerSlot& server);
  /// Also ends the cancel requests for what the client ran there. Answers the client, nullptr if there was none.
  ClientSlot* unlink(ServerSlot& server, Actions& out);
  /// Like unlink; a client that had not got the server yet goes back to where it stood in the queue.
  void unlink_and_requeue(ServerSlot& server, Actions& out);
  void start_move(ServerSlot& server, ClientSlot& client, Actions& out);
  void grant(ServerSlot& server, ClientSlot& client, TimePoint now, Actions& out);
  /// Decides what a server does that has no client and no work: parked, closed, handed to a waiter, or idle. May
  /// leave it Closing even after it has become idle (evicted for another pool).
  void settle(ServerSlot& server, TimePoint now, Actions& out);
  void serve(ServerSlot& server, ClientSlot& waiter, TimePoint now, Actions& out);
  void become_idle(ServerSlot& server, TimePoint now, Actions& out);
  /// Whether a free server of `pool` is to be closed because the permit is due to somebody who cannot use the server.
  [[nodiscard]] bool gives_way(const PoolState& pool, TimePoint now) const;
  /// The login of a dedicated server is complete: it goes to its client.
  void dedicated_ready(ServerSlot& server, TimePoint now, Actions& out);
  [[nodiscard]] std::string_view reason_to_close(const ServerSlot& server, TimePoint now) const;
  /// Not for one in transit: nobody could carry it out.
  void close(ServerSlot& server, std::string_view reason, TimePoint now, Actions& out);
  void end_login(ServerSlot& server);
  void mark_close_needed(ServerSlot& server, Actions& out);
  static void ask_fast_close(const ServerSlot& server, Actions& out);
  void login_failed(PoolState& pool, CloseKind kind, std::string_view message, TimePoint now, Actions& out);
  void free_server(ServerSlot& server);
  /// Gives idle servers to waiters; needed only where both can come together (RESUME, a client put back).
  void serve_from_idle(PoolState& pool, TimePoint now, Actions& out);
  /// Asks the workers of idle servers for as many as there are waiters, unless they were asked already. The answer is
  /// offer_idle.
  void ask_for_idle(PoolState& pool, Actions& out);

  /// The same of those idle on `worker`, in the order of fairness.
  void serve_from_own(PoolState& pool, WorkerId worker, TimePoint now, Actions& out);

  // ---- what workers decide by themselves (manager_leases.cpp) ----
  [[nodiscard]] bool may_lease(const PoolState& pool) const;
  [[nodiscard]] static Duration::rep oldest_waiter(const PoolState& pool);  ///< LeaseBoard::oldest
  static void publish_queue(PoolState& pool);
  static void publish_size(PoolState& pool);
  static void publish_idle(PoolState& pool, WorkerId worker);
  /// After a change of what may_lease looks at, or of pool_size.
  void publish_rules(PoolState& pool);
  /// Every server of the pool has to come by here before it serves its next client.
  static void end_leases(PoolState& pool);

  // ---- opening (manager_open.cpp) ----
  [[nodiscard]] std::uint32_t openable(const PoolState& pool, TimePoint now) const;
  static bool permits_free(const PoolState& pool) { return !pool.connections.full() && !pool.user.full(); }
  /// `own`: the client (in no queue) for which it is opened alone; nullptr: for anybody.
  /// A permit, taken for a connection whose login is about to begin.
  ServerSlot& add_server(PoolState& pool, WorkerId worker, TimePoint created);
  void open(PoolState& pool, WorkerId worker, ClientSlot* own, TimePoint now, Actions& out);
  /// Opens what the first uncovered waiter needs; there must be one.
  void open_for_first(PoolState& pool, TimePoint now, Actions& out);
  /// Evicts the pool's own idle servers, but for those that waiters were promised, where clients wait for a connection
  /// of their own and pool_size is in the way.
  void make_room(PoolState& pool, TimePoint now, Actions& out);
  /// Opens what the pool's waiters need, or evicts for them; arms the pool's timer for what has to wait.
  void open_wanted(PoolState& pool, TimePoint now, Actions& out);
  /// After permits have come free: the same for all pools that share a limit with `pool`, oldest waiter first.
  void feed(PoolState& pool, TimePoint now, Actions& out);
  void evict_for(PoolState& pool, TimePoint now, Actions& out);
  /// How many connections the waiters under `account` would open if its limit allowed.
  [[nodiscard]] std::uint32_t demand(const Account& account, TimePoint now) const;
  bool evict_longest_idle(Account& account, TimePoint now, Actions& out);
  /// open_wanted for all pools with waiters that share a limit with `around`.
  void open_wanted_around(const PoolState& around, TimePoint now, Actions& out);
  [[nodiscard]] PoolState* oldest_openable(const PoolState& around, TimePoint now);
  /// A server of `pool` has become idle: evicts it if that helps waiters of other pools under a full limit.
  void offer_to_other_pools(PoolState& pool, TimePoint now, Actions& out);
  void keep_min_pool(PoolState& pool, TimePoint now, Actions& out);
  void keep_min_pools_around(PoolState& pool, TimePoint now, Actions& out);

  // ---- time (manager_time.cpp) ----
  void arm(PoolState& pool, TimePoint when) { deadlines.not_later_than(pool, when); }
  void arm_with_branches(PoolState& pool, TimePoint when) {
    arm(pool, when);
    for (PoolState* branch : pool.branches) arm(*branch, when);
  }
  void arm_waiting(PoolState& pool, TimePoint now);  ///< retry pause, reserve pool
  void arm_idle(PoolState& pool, const ServerSlot& server);
  void close_expired(PoolState& pool, TimePoint now, Actions& out);
  void run_pool(PoolState& pool, TimePoint now, Actions& out);
  [[nodiscard]] TimePoint idle_deadline(PoolState& pool) const;

  // ---- unused pools and databases (manager_unused.cpp) ----
  /// Somebody has stopped using `pool`, or a limit of how long it may be unused has changed.
  void note_use(PoolState& pool, TimePoint now);
  void note_use(DatabaseState& db, TimePoint now);
  /// Looks at `db` when it will have been unused for too long.
  void plan_end(DatabaseState& db);
  [[nodiscard]] bool unused(const DatabaseState& db) const;
  /// Forgets them if they have been unused for too long, or plans to look again. `pool` or `db` may be gone then.
  void expire(PoolState& pool, TimePoint now, Actions& out);
  void expire(DatabaseState& db, TimePoint now, Actions& out);
  void ask_to_forget(PoolState& pool, TimePoint now, Actions& out);
  void erase_pool(PoolState& pool);
  void erase_database(DatabaseState& db);

  // ---- cancel requests (manager_cancel.cpp) ----
  [[nodiscard]] const ClientSlot* owner_of(std::uint64_t key) const;
  [[nodiscard]] CancelResult pass_to_peer(std::uint64_t key, WorkerId worker);
  void drop_old_peers();

  // ---- console (manager_console.cpp) ----
  void drop_client(ClientSlot& client, std::string_view reason, TimePoint now, Actions& out);
  void kill_servers(PoolState& pool, std::string_view reason, TimePoint now, Actions& out);
  void close_unused(PoolState& pool, TimePoint now, Actions& out);
  void recycle(PoolState& pool, std::string_view reason, TimePoint now, Actions& out);
  void wake_pools(const std::vector<PoolState*>& of, TimePoint now, Actions& out);
  [[nodiscard]] bool satisfied(const Wait& wait) const;
  void check_waits_slow(Actions& out);
  void check_waits(Actions& out) {
    if (!waits.empty()) [[unlikely]]
      check_waits_slow(out);
  }

  // ---- reports and checks ----
  [[nodiscard]] PoolSnapshot snapshot(const PoolState& pool, TimePoint now) const;
  void check_client(const ClientSlot& client) const;
  void check_server(const ServerSlot& server) const;
  void check_pool(const PoolState& pool, TimePoint now) const;
  void check_accounts() const;
  void check_cancels() const;
  void check_totals() const;
};

}  // namespace pgweir::pool
