// What the pool manager remembers of one client, one server connection and one cancel request, and which changes of a
// server's state are legal. Plain data with list hooks; the rules are in the manager_*.cpp files.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstddef>
#include <cstdint>

#include "pool/pool_manager.hpp"

namespace pgweir::pool {

struct PoolState;
struct DatabaseState;
struct UserState;
struct ServerSlot;
struct CancelLane;

using Hook = boost::intrusive::list_member_hook<>;

enum class ServerState : std::uint8_t { Login, Idle, Active, Testing, Canceling, Moving, Closing };
inline constexpr std::size_t kServerStates = 7;

/// The state diagram in pool_manager.hpp as a table.
[[nodiscard]] bool legal_transition(ServerState from, ServerState to);

struct ClientSlot {
  ClientId id{};
  WorkerId worker = 0;
  bool exempt = false;     ///< does not count for max_client_conn
  bool dedicated = false;  ///< wants, or has, a server that serves nobody else (acquire_dedicated)
  bool console = false;    ///< its cancel key belongs to a console session
  bool has_key = false;
  bool grant_pending = false;  ///< the Grant action of `server` has not been taken yet
  bool waiting = false;        ///< in `queue_of`'s queue, or a server is moving to it or logs in for it
  std::uint64_t key = 0;
  ClientSlot* next_of_key = nullptr;  ///< CancelRegistry's
  DatabaseState* database = nullptr;
  UserState* user = nullptr;
  PoolState* attached = nullptr;  ///< where SHOW POOLS counts it; nullptr during login
  PoolState* queue_of = nullptr;  ///< the pool in whose queue it stands
  ServerSlot* server = nullptr;
  TimePoint since{};      ///< start of the present wait
  std::uint64_t seq = 0;  ///< decides between equal `since`
  Hook queue_hook, worker_hook;
};

/// True if `a` queued before `b`.
[[nodiscard]] inline bool queued_before(const ClientSlot& a, const ClientSlot& b) {
  return a.since != b.since ? a.since < b.since : a.seq < b.seq;
}

struct CancelSlot {
  CancelId id{};
  WorkerId worker = 0;           ///< who carries it out
  bool sent = false;             ///< confirmed: from now on the signal may arrive
  CancelLane* lane = nullptr;    ///< whose cap it counts against
  PoolState* pool = nullptr;     ///< whose lane that is; nullptr for a request to a peer
  ServerSlot* server = nullptr;  ///< nullptr once the server is gone, and for a peer
  Hook hook, lane_hook;

  /// It has no connection yet.
  [[nodiscard]] bool waiting() const { return lane_hook.is_linked(); }
};
using CancelList =
    boost::intrusive::list<CancelSlot, boost::intrusive::member_hook<CancelSlot, Hook, &CancelSlot::hook>>;

struct ServerSlot {
  ServerId id{};
  PoolState* pool = nullptr;
  ClientSlot* client = nullptr;  ///< set exactly when Active, and maybe when Moving, or when Login and dedicated
  WorkerId worker = 0;           ///< while Moving: where it comes from
  WorkerId move_to = 0;
  ServerState state = ServerState::Login;
  bool close_needed = false;
  bool dedicated = false;  ///< opened for one client: never idle, closed when that leaves it
  bool login_open = true;  ///< how the login ended is not known yet: neither ready nor closed nor given up by us
  bool used = false;       ///< a client has had it
  std::uint64_t address_turn = 0;  ///< which of the addresses it was opened to
  TimePoint created{};
  TimePoint idle_since{};
  TimePoint last_active{};  ///< last proof of life: login or release; decides about the check query
  BackendKey key{};
  CancelList cancels;
  std::uint32_t cancels_sent = 0;
  Hook pool_hook, idle_hook, idle_worker_hook;
};

using ServerList =
    boost::intrusive::list<ServerSlot, boost::intrusive::member_hook<ServerSlot, Hook, &ServerSlot::pool_hook>>;

}  // namespace pgweir::pool
