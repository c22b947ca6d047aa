// A model of several workers around one PoolManager, for random tests: every pair of workers has a mailbox of its own
// and messages wait there for a random time, so that actions of different workers overtake each other. The model knows
// what really exists (connections, clients, who is linked with whom) and checks each decision against it.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "pool/pool_manager.hpp"

namespace pgweir::pool::test {

class World {
 public:
  explicit World(std::uint64_t seed);

  /// One random event. Throws std::runtime_error if a rule is broken.
  void step();
  /// No more faults, pauses and arrivals: every waiter must get its turn.
  void calm_down();
  /// All clients leave: everything must come down to zero.
  void drain();

  [[nodiscard]] std::uint64_t grants() const { return grants_; }
  [[nodiscard]] std::uint64_t moves() const { return moves_; }
  [[nodiscard]] std::uint64_t opened() const { return opened_; }
  [[nodiscard]] std::uint64_t evictions() const { return evictions_; }
  [[nodiscard]] std::uint64_t cancels() const { return cancels_sent_; }
  [[nodiscard]] std::uint64_t requeues() const { return requeues_; }
  [[nodiscard]] std::uint64_t stale_grants() const { return stale_grants_; }
  [[nodiscard]] std::uint64_t dedicated() const { return dedicated_; }

 private:
  enum class Phase { Ordered, Connecting, Free, Linked, Testing, Transit, Closing };
  struct Server {
    PoolId pool{};
    WorkerId at = 0;
    Phase phase = Phase::Ordered;
    ClientId client{};       ///< who uses it
    ClientId assigned{};     ///< whom the manager has chosen, until the grant is taken
    bool cut = false;        ///< the manager wants it closed
    std::uint32_t sent = 0;  ///< cancel signals on their way to it
    bool own = false;        ///< opened for one client
  };
  enum class Mood { Idle, Waiting, Running };
  struct Client {
    WorkerId worker = 0;
    PoolId pool{};
    Mood mood = Mood::Idle;
    ServerId server{};
    TimePoint since{};
    bool attached = false;
    bool own = false;  ///< wants servers that are opened for it alone
    std::uint64_t key = 0;
    std::uint64_t run = 0;  ///< counts its turns on a server
  };
  struct Cancel {
    WorkerId worker = 0;
    ClientId client{};
    ServerId server{};
    std::uint64_t run = 0;
    bool sent = false;
    bool waiting = false;    ///< it may have no connection yet
    std::uint16_t peer = 0;  ///< where it is passed on to; 0: it is for a server
  };
  struct Message {
    Action action{};
    bool arrival = false;  ///< a moved server, `action.server`
  };

  // chance
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  bool chance(std::uint64_t percent) { return below(100) < percent; }
  WorkerId any_worker() { return static_cast<WorkerId>(below(workers_)); }
  PoolId any_pool() { return pools_[below(pools_.size())]; }
  template <class Map, class Pred>
  typename Map::iterator any_of(Map& map, Pred pred);

  // the manager's calls and what they lead to
  void call(WorkerId by, const std::function<void(Actions&)>& make);
  void note(const Action& a);
  void note_assignment(const Action& a);
  void note_open(const Action& a);
  void deliver(WorkerId at, WorkerId from);
  void carry_out(WorkerId at, const Message& message);
  void carry_out_grant(const Action& a);
  void close_client(ClientId id, bool clean);
  void begin_close(ServerId id, bool announce);
  void finish_close(ServerId id, CloseKind kind);
  void unassign(Server& server);
  void forget_wait(ClientId id);
  void note_own(const Action& a);
  void run(ClientId id, ServerId server);

  // random events
  void configure();
  void configure_pool(PoolId pool);
  void configure_limits();
  void client_arrives();
  void client_acts();
  void acquire(ClientId id, bool again);
  void release(ServerId id);
  void server_acts();
  void server_fails();
  void cancel_acts();
  void cancel_arrives();
  void peer_cancel_arrives();
  void configure_peers();
  void check_peer(std::uint16_t peer, std::uint32_t most) const;
  void console_acts();
  void stale_message();
  void deliver_any();
  void pass_time(Duration d);

  // checks
  void check();
  void check_quiet();
  [[noreturn]] void fail(const std::string& what) const;
  void must(bool ok, const char* what) const {
    if (!ok) fail(what);
  }
  [[nodiscard]] bool quiet() const;

  std::mt19937_64 random_;
  WorkerId workers_;
  Duration slack_;
  PoolManager m_;
  TimePoint now_{std::chrono::seconds(100)};
  std::vector<std::string> databases_, users_;
  std::vector<PoolId> pools_;
  std::map<PoolId, PoolSettings> settings_;
  std::map<std::string, std::uint32_t> database_max_, user_max_;
  std::map<std::uint16_t, std::uint32_t> peer_max_;
  std::map<std::pair<WorkerId, WorkerId>, std::deque<Message>> mailboxes_;  ///< (from, to)
  std::map<ServerId, Server> servers_;
  std::map<ClientId, Client> clients_;
  std::map<CancelId, Cancel> cancels_;
  std::map<PoolId, std::set<ClientId>> queued_;      ///< who waits with nothing assigned
  std::map<PoolId, std::set<ClientId>> queued_own_;  ///< the same, for a server of its own
  std::vector<ServerId> old_servers_;
  std::uint64_t own_percent_ = 0;  ///< of the clients want servers of their own
  std::uint64_t next_key_ = 1;
  std::uint64_t steps_ = 0;
  bool calm_ = false;
  std::uint64_t grants_ = 0, moves_ = 0, opened_ = 0, evictions_ = 0, cancels_sent_ = 0, requeues_ = 0,
                stale_grants_ = 0, dedicated_ = 0;
};

}  // namespace pgweir::pool::test
