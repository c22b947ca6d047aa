// One (database, user) pool: its servers, its waiters, and what it remembers about logins. Answers questions about
// itself; what follows from the answers is the manager's decision.
//
// Waiters are of two kinds. Those in `queue` take any server that comes free. Those in `dedicated` want a connection of
// their own, and only the permit for one helps them. Permits go to the oldest of both kinds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pool/cancel_lane.hpp"
#include "pool/deadline_heap.hpp"
#include "pool/idle_servers.hpp"
#include "pool/lease_board.hpp"
#include "pool/limits.hpp"
#include "pool/waiter_queue.hpp"

namespace pgweir::pool {

/// After an unexpected close min_pool_size is restored this much later, so that a server which drops every new
/// connection is not called in a tight loop. PgBouncer looks at min_pool_size three times a second.
inline constexpr Duration kMinPoolPause{333'000};

/// A server that others say can be reached is called again no sooner than this after a login that failed.
inline constexpr Duration kReachablePause{200'000};

/// Cancel requests in flight of a pool without a size limit.
inline constexpr std::uint32_t kUnlimitedPoolCancels = 100;

struct PoolState : DeadlineEntry {
  PoolState(PoolId pool_id, DatabaseState& db, HostAccount* on_host, UserState& owner, WorkerId workers,
            Duration fifo_slack)
      : id(pool_id),
        database(db),
        host(on_host),
        connections(on_host != nullptr ? static_cast<Account&>(*on_host) : db),
        user(owner),
        queue(workers),
        dedicated(workers),
        idle(workers),
        board(std::make_shared<LeaseBoard>(workers, fifo_slack)) {}

  /// The name of a pool within its database.
  [[nodiscard]] static std::string key_of(std::string_view user, std::string_view host) {
    std::string key(user);
    if (!host.empty()) key.append(1, '\0').append(host);
    return key;
  }
  [[nodiscard]] std::string key() const { return key_of(user.name, host != nullptr ? host->name : std::string_view()); }
  /// Calls `visit` for everybody whose limits or counts its connections concern: database, host if it is of one, user.
  template <class Visit>
  void each_account(Visit visit) const {
    visit(static_cast<Account&>(database));
    if (host != nullptr) visit(static_cast<Account&>(*host));
    visit(static_cast<Account&>(user));
  }

  PoolId id;
  DatabaseState& database;
  HostAccount* host;     ///< null: the pool is not of one host
  Account& connections;  ///< whose max_db_connections applies: the host's, or the database's
  UserState& user;
  PoolState* home = nullptr;         ///< of a pool of one host: the one that its clients are attached to
  std::vector<PoolState*> branches;  ///< the other way round
  PoolSettings settings{};

  WaiterQueue queue;
  WaiterQueue dedicated;
  IdleServers idle;
  std::shared_ptr<LeaseBoard> board;
  bool leases = false;  ///< workers may hand its servers on by themselves
  ServerList all_servers;
  StateCounts servers;

  std::uint32_t logins = 0;            ///< servers whose login has no result yet, and that may serve anybody then
  std::uint32_t dedicated_logins = 0;  ///< the same of those that were opened for one client
  std::uint32_t moving_to_client = 0;  ///< Moving servers with a client; those clients wait
  std::uint32_t attached = 0;          ///< clients whose login is complete and whose pool this is
  std::uint32_t attached_waiting = 0;  ///< those of them that wait, here or in another pool
  CancelLane cancels;

  std::uint64_t recycled = 0;  ///< version of the last recycle_pool
  bool ever_logged_in = false;
  bool last_login_failed = false;
  bool last_login_rejected = false;  ///< by the server, in words
  std::string last_error;
  std::uint64_t address_turn = 0;  ///< of the next server connection
  TimePoint failed_at{};           ///< of the last login that failed
  TimePoint retry_at{};            ///< end of the pause after a failed login

  bool closed_for_lifetime = false;  ///< last_lifetime_close is set
  TimePoint last_lifetime_close{};
  TimePoint min_pool_from{};  ///< not before this is min_pool_size restored
  TimePoint last_used{};      ///< while it is unused: since when
  std::uint64_t holders = 0;  ///< bit n: worker n keeps things of its own about this pool
  WorkerId next_worker = 0;   ///< for servers opened for nobody in particular

  Hook hungry_hook;  ///< linked while somebody waits

  [[nodiscard]] bool login_paused(TimePoint now) const { return last_login_failed && now < retry_at; }
  /// min_pool_size as far as it applies now.
  [[nodiscard]] std::uint32_t min_servers() const;
  [[nodiscard]] bool nobody_waits() const { return queue.empty() && dedicated.empty(); }
  [[nodiscard]] WaiterQueue& queue_for(const ClientSlot& client) { return client.dedicated ? dedicated : queue; }
  [[nodiscard]] std::uint32_t all_logins() const { return logins + dedicated_logins; }
  /// Clients wait for connections of their own, and pool_size has no room for all of them beside those it has.
  [[nodiscard]] bool lacks_room() const {
    return !dedicated.empty() && settings.pool_size != 0 && servers.alive() + dedicated.size() > settings.pool_size;
  }
  /// Waiters for whom no login is in progress and to whom no server is on its way.
  [[nodiscard]] std::uint32_t uncovered() const;
  /// The oldest of them, or nullptr.
  [[nodiscard]] const ClientSlot* first_uncovered() const;
  /// How many servers the pool would open at `now` if only its own limits counted (pause of the database apart).
  [[nodiscard]] std::uint32_t openable(TimePoint now) const;
  /// When the reserve pool becomes usable for the first uncovered waiter; kNever if that is not what it waits for.
  [[nodiscard]] TimePoint reserve_from() const;
  [[nodiscard]] bool uses_reserve() const { return settings.pool_size != 0 && servers.total >= settings.pool_size; }
  /// More live connections than the pool or one of its accounts may have.
  [[nodiscard]] bool excess() const;
  [[nodiscard]] Duration lifetime_gap() const;
  /// True if `server` is older than server_lifetime and its turn to be closed for that has come.
  [[nodiscard]] bool lifetime_over(const ServerSlot& server, TimePoint now) const;
  [[nodiscard]] bool needs_check(const ServerSlot& server, TimePoint now) const;
  /// Nobody has anything of it, and nothing is to be kept warm.
  [[nodiscard]] bool unused() const {
    return attached == 0 && servers.total == 0 && nobody_waits() && cancels.empty() && min_servers() == 0;
  }
  [[nodiscard]] std::uint32_t cancels_max() const {
    return settings.pool_size == 0 ? kUnlimitedPoolCancels : 2 * settings.pool_size;
  }

 private:
  /// Servers that will become free for a waiter without being opened.
  [[nodiscard]] std::uint32_t supply() const {
    return logins + servers.of(ServerState::Idle) + servers.of(ServerState::Moving) - moving_to_client;
  }
  [[nodiscard]] std::uint32_t logins_max() const;
};

}  // namespace pgweir::pool
