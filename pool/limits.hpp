// Permits of one database entry or one user: how many server connections it has, in which states, against which limit,
// and how many clients. A permit is taken when a connection slot is made and returned when the slot ends, so that a
// connecting or closing connection counts like any other.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pool/deadline_heap.hpp"
#include "pool/slots.hpp"

namespace pgweir::pool {

/// Server connections by state; the sum is what counts against limits.
struct StateCounts {
  std::array<std::uint32_t, kServerStates> by_state{};
  std::uint32_t total = 0;

  [[nodiscard]] std::uint32_t of(ServerState s) const { return by_state[static_cast<std::size_t>(s)]; }
  void enter(ServerState s) {
    ++by_state[static_cast<std::size_t>(s)];
    ++total;
  }
  void leave(ServerState s) {
    --by_state[static_cast<std::size_t>(s)];
    --total;
  }
  void move(ServerState from, ServerState to) {
    --by_state[static_cast<std::size_t>(from)];
    ++by_state[static_cast<std::size_t>(to)];
  }
  /// Every connection that has not begun to close.
  [[nodiscard]] std::uint32_t alive() const { return total - of(ServerState::Closing); }
  /// Every connection that is logged in and not closing.
  [[nodiscard]] std::uint32_t usable() const { return alive() - of(ServerState::Login); }

  friend bool operator==(const StateCounts&, const StateCounts&) = default;
};

/// One holder of permits, a database or a user.
struct Account {
  std::string name;
  StateCounts servers;
  std::uint32_t max_servers = 0;  ///< 0: unlimited
  std::uint32_t max_clients = 0;  ///< 0: unlimited
  std::uint32_t clients = 0;
  std::uint32_t hungry_pools = 0;  ///< its pools in which somebody waits
  std::uint32_t warm_pools = 0;    ///< its pools with a min_pool_size
  std::vector<PoolState*> pools{};
  bool transient = false;  ///< known only through clients that are logging in: forgotten with the last of them

  [[nodiscard]] bool limited() const { return max_servers != 0; }
  [[nodiscard]] bool full() const { return limited() && servers.total >= max_servers; }
  /// More live connections than a limit that was lowered.
  [[nodiscard]] bool excess() const { return limited() && servers.alive() > max_servers; }
  [[nodiscard]] bool clients_full() const { return max_clients != 0 && clients >= max_clients; }
};

/// One host of a database whose pools are per host: max_db_connections holds for each host by itself, so that what a
/// lost one still holds keeps nobody from the others.
struct HostAccount : Account {};

struct DatabaseState : Account, DeadlineEntry {
  bool paused = false;
  bool disabled = false;
  Duration idle_timeout{};                                        ///< unused for so long it is forgotten; 0: never
  TimePoint last_used{};                                          ///< while it is unused: since when
  std::uint32_t close_needed = 0;                                 ///< its servers that carry the mark
  std::map<std::string, PoolState*, std::less<>> pool_of_user{};  ///< by PoolState::key_of
  std::map<std::string, std::unique_ptr<HostAccount>, std::less<>> hosts{};
};

struct UserState : Account {};

}  // namespace pgweir::pool
