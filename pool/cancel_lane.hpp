// The cancel requests that are on their way to one place, the servers of a pool or a peer: how many have a connection
// of their own, and who waits for one. Plain data; CancelRegistry moves requests from one stage to the next.
#pragma once

#include <cstdint>

#include "pool/slots.hpp"

namespace pgweir::pool {

/// Requests that may wait in one lane; more are dropped. The connections they came on may be gone by then, so nothing
/// else bounds their number.
inline constexpr std::uint32_t kCancelQueueMax = 1000;

struct CancelLane {
  using Queue =
      boost::intrusive::list<CancelSlot, boost::intrusive::member_hook<CancelSlot, Hook, &CancelSlot::lane_hook>>;

  std::uint32_t max = 0;         ///< connections at once
  std::uint32_t connecting = 0;  ///< requests with a connection over which nothing was sent yet
  std::uint32_t sent = 0;        ///< requests that may have arrived
  Queue waiting;                 ///< oldest first; not empty only while all connections are taken

  [[nodiscard]] bool has_room() const { return connecting + sent < max; }
  [[nodiscard]] bool empty() const { return connecting + sent == 0 && waiting.empty(); }
};

}  // namespace pgweir::pool
