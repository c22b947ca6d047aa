// Which client a cancel key belongs to, and the cancel requests in flight. The key table is the process's only way
// from a key to a client; the manager decides what a request found there may do. A request waits in its lane, then has
// a connection, then is sent:
//
//   add --> waiting --> connecting --confirm--> sent --remove--> (gone)
//              any stage before `sent` may also end by remove or abandon_pending
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pool/pool_state.hpp"
#include "pool/slot_map.hpp"

namespace pgweir::pool {

class CancelRegistry {
 public:
  /// False if another client has `key`. The client's former key stops working.
  [[nodiscard]] bool set_key(ClientSlot& client, std::uint64_t key);
  void forget_key(ClientSlot& client);
  [[nodiscard]] ClientSlot* client_of(std::uint64_t key) const;

  /// A request on its way along `lane`, to be carried out by `worker`; nullptr if too many wait. `server`: whose query
  /// it is meant for; none for a peer.
  [[nodiscard]] CancelSlot* add(CancelLane& lane, WorkerId worker, ServerSlot* server);
  [[nodiscard]] CancelSlot* find(CancelId id) { return slots_.find(id); }
  [[nodiscard]] const CancelSlot* find(CancelId id) const { return slots_.find(id); }
  /// From now on the signal may be on its way.
  static void confirm(CancelSlot& cancel);
  /// Ends the request, whatever has become of its server. The next of its lane has its turn.
  void remove(CancelSlot& cancel, Actions& out);
  /// The query is over: removes the requests of `server` that were not confirmed and asks their workers to stop.
  void abandon_pending(ServerSlot& server, Actions& out);
  /// Ends the requests that wait in `lane` and asks their workers to stop.
  void abandon_waiting(CancelLane& lane, Actions& out);
  /// The server connection is gone; its confirmed requests go on without it.
  static void detach(ServerSlot& server);
  /// Gives those who wait their turn, as far as there is room.
  static void start_waiting(CancelLane& lane, Actions& out);

  [[nodiscard]] std::uint32_t size() const { return slots_.size(); }
  [[nodiscard]] const SlotMap<CancelSlot, CancelId>& slots() const { return slots_; }
  [[nodiscard]] std::size_t keys() const { return keys_; }

 private:
  void drop(CancelSlot& cancel);

  [[nodiscard]] std::size_t bucket_of(std::uint64_t key) const;
  void link(ClientSlot& client);
  void grow();

  // A hash table of the slots themselves, since every login has a key: a power of two of lists, linked by next_of_key.
  std::vector<ClientSlot*> buckets_;
  std::size_t keys_ = 0;
  SlotMap<CancelSlot, CancelId> slots_;
};

}  // namespace pgweir::pool
