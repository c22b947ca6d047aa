// Which client a cancel key belongs to, and the cancel requests in flight. The key table is the process's only way
// from a key to a client; the manager decides what a request found there may do.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "pool/pool_state.hpp"
#include "pool/slot_map.hpp"

namespace pgweir::pool {

class CancelRegistry {
 public:
  /// False if another client has `key`. The client's former key stops working.
  [[nodiscard]] bool set_key(ClientSlot& client, std::uint64_t key);
  void forget_key(ClientSlot& client);
  [[nodiscard]] ClientSlot* client_of(std::uint64_t key) const;

  /// A request for the query that runs on `server` now; counts against the pool's cap.
  CancelSlot& add(ServerSlot& server, WorkerId worker);
  [[nodiscard]] CancelSlot* find(CancelId id) { return slots_.find(id); }
  /// From now on the signal may be on its way.
  void confirm(CancelSlot& cancel);
  /// Ends the request, whatever has become of its server.
  void remove(CancelSlot& cancel);
  /// The query is over: removes the requests of `server` that were not confirmed and asks their workers to stop.
  void abandon_pending(ServerSlot& server, Actions& out);
  /// The server connection is gone; its confirmed requests go on without it.
  void detach(ServerSlot& server);

  [[nodiscard]] std::uint32_t size() const { return slots_.size(); }
  [[nodiscard]] const SlotMap<CancelSlot, CancelId>& slots() const { return slots_; }
  [[nodiscard]] std::size_t keys() const { return by_key_.size(); }

 private:
  std::unordered_map<std::uint64_t, ClientSlot*> by_key_;
  SlotMap<CancelSlot, CancelId> slots_;
};

}  // namespace pgweir::pool
