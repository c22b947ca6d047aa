// Which of its servers a worker hands from one of its clients to the next by itself. Every transaction would otherwise
// take the lock of the pools twice and move their cache lines from core to core, which with many workers and one pool
// costs more than all the rest. Pure decisions, one object for each worker, no lock; the manager is told afterwards.
//
// A server that a client gives back is kept (it is leased) for the next client of the same worker, and a client that
// finds none waits here for a moment if servers come free here all the time. What the manager knows of this worker's
// servers is out of date meanwhile, but never when this worker calls it: it is told first (tell_leases), by PoolLock.
// So the manager can say nothing wrong to this worker, and to others it says that the server is in use, which is as
// good as true: they get it when this worker has looked at the input at hand.
//
// Bounds, which the manager's promises rest on:
//  - Nobody is served here while somebody else in the manager's queue has waited longer by more than `fifo_slack`.
//  - Nobody waits here longer than that before he stands in the manager's queue as well (overdue). He may be served
//    here all the same; the manager then hears of it soon (kTellShare).
//  - An unused server is kept only until the batch of events ends.
//  - A server passes the manager at least every kLeaseTime, and when it is to be closed (LeaseBoard::epoch): so the age
//    of connections, PAUSE, RECONNECT and the like take effect as if it had been used by one client in between.
//  - A server for which a cancel request is under way is not handed on here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "pool/ids.hpp"
#include "pool/lease_board.hpp"
#include "pool/pool_manager.hpp"

namespace pgweir::pool {

/// Before everything, and yet subtractions from any time do not overflow.
inline constexpr TimePoint kLongAgo{Duration(std::numeric_limits<Duration::rep>::min() / 4)};

/// Part of `fifo_slack` after which the manager hears that somebody has left its queue.
inline constexpr int kTellShare = 4;

/// How long a server may serve client after client without the manager.
inline constexpr Duration kLeaseTime{100'000};

class WorkerLeases;

/// What a worker remembers of one of its servers. Lives as long as the server is on the worker; see WorkerLeases.
class ServerLease {
 public:
  explicit ServerLease(ServerId server) : server_(server) {}
  /// The server cannot be handed on here any more until the manager has granted it again: it is being tested, or a
  /// cancel request is on its way to it.
  void end() { leased_ = false; }
  [[nodiscard]] ServerId server() const { return server_; }

 private:
  friend class WorkerLeases;
  ServerId server_;
  ClientId holder_{};         ///< the client it serves, or is granted to; none: it is kept
  TimePoint holder_since_{};  ///< of one that has not taken it yet: since when it had been waiting
  TimePoint granted_at_{};    ///< by the manager
  std::uint64_t epoch_ = 0;   ///< of the board at that time
  bool leased_ = false;
  bool untold_ = false;   ///< the manager takes it for somebody else's
  bool pending_ = false;  ///< granted here, and not taken yet
};

/// Clients in the order in which they came. The manager knows of the first of them, and not of the others. Keeps its
/// memory, of which an unused one has none.
class WaitingLine {
 public:
  [[nodiscard]] bool empty() const { return first_ == all_.size(); }
  [[nodiscard]] const LocalWaiter& front() const { return all_[first_]; }
  [[nodiscard]] bool front_known() const { return first_ < known_end_; }
  /// Those that the manager does not know of.
  [[nodiscard]] std::span<const LocalWaiter> unknown() const { return std::span(all_).subspan(known_end_); }
  /// At the end, unknown to the manager.
  void push(LocalWaiter waiter);
  /// The manager knows of this one, as of all that are there. Not at the end if it has waited longer than others.
  void insert_known(LocalWaiter waiter);
  LocalWaiter pop();
  /// False if it is not there. Quick for the first.
  bool remove(ClientId client);
  /// The first `count` of unknown() are no longer.
  void make_known(std::size_t count) { known_end_ += count; }

 private:
  void tidy();

  std::vector<LocalWaiter> all_;
  std::size_t first_ = 0;
  std::size_t known_end_ = 0;  ///< never before first_
};

/// The part of a pool that lives on one worker.
struct LocalPool {
  PoolId id{};
  std::shared_ptr<const LeaseBoard> board;
  std::vector<ServerLease*> kept;    ///< longest unused first
  WaitingLine waiting;               ///< clients of this worker
  TimePoint last_release{kLongAgo};  ///< of a server that was leased
  bool listed = false;               ///< among those that WorkerLeases looks at
};

class WorkerLeases {
 public:
  explicit WorkerLeases(WorkerId worker) : worker_(worker) {}

  /// There is much to do: servers are kept for clients whose queries come with the same batch of events.
  void set_busy(bool busy) { busy_ = busy; }
  /// Off: everything is asked of the manager, which hears of what there is at the end of the batch.
  void set_enabled(bool on) { enabled_ = on; }

  enum class Acquired : std::uint8_t {
    Granted,  ///< the kept server is the client's
    Waits,    ///< a Grant will come, from release() or, once it is overdue() as well, from the manager
    Ask,      ///< the manager
  };
  /// `client` needs a server of `pool`. On Granted `server` is set.
  [[nodiscard]] Acquired acquire(LocalPool& pool, ClientId client, TimePoint now, ServerId& server);
  /// The client of `lease` is done with it. False: the manager is to be asked (PoolManager::release, kind Clean).
  [[nodiscard]] bool release(LocalPool& pool, ServerLease& lease, TimePoint now);
  /// The manager has granted the server to `client`, which has it now. `epoch`: of the board, read under the same lock.
  static void granted(ServerLease& lease, ClientId client, std::uint64_t epoch, TimePoint now);

  struct Grant {
    ClientId client{};
    ServerId server{};
  };
  /// Those that release() has decided, to be carried out in this order: the client gets the server if take() says so.
  [[nodiscard]] std::vector<Grant>& grants() { return grants_; }
  [[nodiscard]] bool has_grants() const { return !grants_.empty(); }
  enum class Taken : std::uint8_t { Yes, Stale, Ask /* the manager, by PoolManager::grant_taken */ };
  [[nodiscard]] static Taken take(ServerLease& lease, ClientId client);

  /// The manager has put `client` of this worker into its queue, when it was asked; before that, all_waiting() was.
  void queued(LocalPool& pool, ClientId client, TimePoint since);
  /// `client` does not wait any more, or the manager has served it. What it was granted here the manager takes back.
  void withdraw(ClientId client);
  static void withdraw(LocalPool& pool, ClientId client) { (void)pool.waiting.remove(client); }
  /// The pool is about to be forgotten: it keeps nothing, and nobody waits.
  void forget(LocalPool& pool);

  // ---- telling the manager ----
  /// It knows everything.
  [[nodiscard]] bool settled() const;
  [[nodiscard]] bool untold() const { return !untold_.empty(); }
  /// Tells it, by tell_leases. Nothing is kept any more then.
  void tell(PoolManager& manager, TimePoint now, Actions& out);
  /// At the end of a batch: the manager should be told now.
  [[nodiscard]] bool should_tell(TimePoint now) const;
  /// Of a pool whose clients have waited for long enough without the manager, those who have; for
  /// PoolManager::enqueue, to be called right afterwards. `clients` is empty when there are none. Valid until the next
  /// call of anything here.
  struct Overdue {
    PoolId pool{};
    std::span<const LocalWaiter> clients;
  };
  [[nodiscard]] Overdue overdue(TimePoint now);
  /// The same for all who wait in `pool`, however long they have.
  [[nodiscard]] static Overdue all_waiting(LocalPool& pool);
  /// When should_tell or overdue want to be asked again if no event comes before: at once where others take somebody
  /// for waiting who does not any more.
  [[nodiscard]] TimePoint deadline() const { return quiet() ? kNever : next_deadline(); }
  /// There is nothing to tell, nothing kept and nobody waits: as always where there is little to do.
  [[nodiscard]] bool quiet() const { return active_.empty() && untold_.empty(); }

 private:
  void list(LocalPool& pool);
  void tidy();
  [[nodiscard]] bool keeps() const;
  [[nodiscard]] TimePoint next_deadline() const;
  void hold(ServerLease& lease, ClientId client);
  [[nodiscard]] bool may_wait(const LocalPool& pool, TimePoint now) const;
  [[nodiscard]] const LeaseBoard::Share& share(const LocalPool& pool) const { return pool.board->of_worker[worker_]; }

  WorkerId worker_;
  bool busy_ = false;
  bool enabled_ = true;
  TimePoint told_at_ = kLongAgo, tell_by_ = kNever;  ///< tell_by_: of `served_known_`
  std::vector<ServerLease*> untold_;
  std::vector<LocalPool*> active_;  ///< pools that keep servers or in which clients wait
  std::vector<Grant> grants_;
  std::vector<LeasedServer> told_;
  std::vector<ClientId> served_known_;  ///< who got a server and still stands in the manager's queue
};

}  // namespace pgweir::pool
