// Identities that cross layers and threads. Each kind is a type of its own, and each is a slot index plus the slot's
// generation: a slot is reused with the next generation, so that an id kept too long finds nothing instead of somebody
// else.
#pragma once

#include <cstdint>
#include <functional>

namespace pgweir::pool {

template <class Tag>
struct SlotId {
  std::uint32_t index = 0;
  std::uint32_t generation = 0;  ///< 0 names nothing
  [[nodiscard]] explicit operator bool() const { return generation != 0; }
  friend bool operator==(SlotId, SlotId) = default;
  friend auto operator<=>(SlotId, SlotId) = default;
};

using ClientId = SlotId<struct ClientTag>;  ///< one client connection, from accept to close
using ServerId = SlotId<struct ServerTag>;  ///< one server connection, from the permit to the complete close
using PoolId = SlotId<struct PoolTag>;      ///< one (database, user) pool
using CancelId = SlotId<struct CancelTag>;  ///< one cancel request being forwarded

/// Number of a worker, 0-based.
using WorkerId = std::uint16_t;

}  // namespace pgweir::pool

template <class Tag>
struct std::hash<pgweir::pool::SlotId<Tag>> {
  std::size_t operator()(pgweir::pool::SlotId<Tag> id) const noexcept {
    return std::hash<std::uint64_t>{}((std::uint64_t{id.generation} << 32) | id.index);
  }
};
