// What PoolManager wants done. It decides under a lock and does nothing itself; the caller carries the actions out, in
// order, after unlocking: those for its own worker at once, the others through the mailbox of `worker`. Two workers'
// actions for a third may so overtake each other, which is why an action for a server or client that is unknown or
// already closing is to be ignored: server_ready answers with a second CloseServer if the first came too early, and
// grant_taken tells whether a Grant still holds.
#pragma once

#include <string>
#include <vector>

#include "pool/ids.hpp"

namespace pgweir::pool {

enum class ActionKind : std::uint8_t {
  OpenServer,     ///< connect and log in `server` for `pool`, for `client` alone if there is one; ends in server_ready
                  ///< or server_closed
  CloseServer,    ///< close the unlinked `server` because of `reason`; ends in server_closed
  FastClose,      ///< server_fast_close: close `server` and its client as soon as they are between transactions
  Grant,          ///< link `client` with `server`, both on this worker. Needs grant_taken; stale if that says so.
  MoveServer,     ///< detach `server` and hand it to worker `to`, which answers server_arrived
  OfferIdle,      ///< call offer_idle(worker, pool) when the input at hand on `worker` has been looked at
  RejectClient,   ///< `client`'s wait is over without a server: tell it `reason`, close it. It has left the queue.
  DropClient,     ///< close `client` in whatever state it is (KILL, database removed, ...) with `reason`
  StartCancel,    ///< `cancel`, which had to wait, may have its connection now
  AbandonCancel,  ///< `cancel` may no longer be sent: close its connection if there is one; end_cancel is not needed
  ForgetPool,     ///< nobody uses `pool`: forget it and answer pool_forgotten, unless a session still refers to it
  WaitOver,       ///< the console's wait `token` (PAUSE, WAIT_CLOSE, SHUTDOWN WAIT_...) is satisfied
};

struct Action {
  ActionKind kind{};
  bool needs_check = false;  ///< Grant: run server_check_query first
  WorkerId worker = 0;       ///< who has to do it
  WorkerId to = 0;           ///< MoveServer
  ServerId server{};
  ClientId client{};
  PoolId pool{};
  CancelId cancel{};
  std::uint64_t token = 0;  ///< WaitOver; OpenServer: the address whose turn it is, counted around
  std::string reason{};     ///< PgBouncer's text; SSO or empty on the hot path
};

/// Filled by PoolManager; the caller reuses one so that the hot path allocates nothing.
using Actions = std::vector<Action>;

}  // namespace pgweir::pool
