// Predicts how one hot pool scales with the number of workers, on a machine that has not got them: a simulation in
// which the real decisions (pool::PoolManager behind its lock, pool::WorkerLeases on each worker) are carried out by
// workers whose work takes measured times. What is calculated is the order of events in time: which worker wants the
// lock when, and for how long another one has it. A lock that another worker had last takes longer, because its cache
// lines have to come from there; how long that takes is given (--lines, --miss-ns), for a small machine cannot show it.
//
// Clients send a query as soon as they have read the last reply; servers answer after a time of their own and are never
// the bottleneck. So the workers always have something to do, and what is missing to N times the throughput of one is
// what they wait for each other or do only because there are others.
//
//   scaling [--workers=N] [--clients=N] [--servers=N] [--cpu-us=N] [--lock-ns=N] [--lines=N] [--miss-ns=N] [--ms=N]
#include <fmt/format.h>
#include <getopt.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <queue>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "pool/worker_leases.hpp"

namespace {

using namespace pgweir::pool;
using Ns = std::int64_t;

struct Options {
  int workers = 16;       // up to so many
  int clients = 20;       // of each worker
  double servers = 1;     // for each client
  double cpu_us = 12;     // of a transaction, without what the lock takes
  Ns lock_ns = 100;       // with warm caches
  Ns lines = 12;          // of the cache that come from another worker if that had the lock last
  Ns miss_ns = 80;        // for each of them
  double server_us = 60;  // mean time of a server and the network for one transaction
  double move_us = 6;     // of either worker when a server changes over, or a message is sent
  int ms = 300;           // of simulated time
};

struct Result {
  double tx_per_s = 0, locks = 0, waited_ns = 0, moves = 0;  // the last three for each transaction
};

class Machine {
 public:
  Machine(const Options& options, int workers, double servers, bool leases)
      : options_(options),
        manager_(ManagerSettings{static_cast<WorkerId>(workers), Duration(1'000), 1'000'000}),
        random_(4711),
        server_time_(1.0 / (options.server_us * 1000)) {
    PoolSettings settings;
    const int clients = options.clients * workers;
    settings.pool_size = std::max<std::uint32_t>(1, static_cast<std::uint32_t>(clients * servers));
    settings.max_pool_logins = settings.pool_size;
    Actions actions;
    pool_ = manager_.set_pool("db", "user", settings, {}, actions);
    for (int i = 0; i < workers; ++i) workers_.emplace_back(static_cast<WorkerId>(i));
    for (Worker& worker : workers_) {
      worker.local.id = pool_;
      worker.local.board = manager_.lease_board(pool_);
      worker.leases.set_enabled(leases);
      for (int i = 0; i < options.clients; ++i) {
        const ClientId client = *manager_.add_client(worker.id);
        worker_of_[client] = worker.id;
        arrive(i * 1'000, worker.id, {Event::Query, client});
      }
    }
  }

  Result run() {
    const Ns warm = 20'000'000, end = warm + Ns{options_.ms} * 1'000'000;
    while (!steps_.empty() && steps_.top().at < end) {
      const Step step = steps_.top();
      steps_.pop();
      now_ = step.at;
      if (now_ < warm) done_ = locks_ = waited_ = moves_ = 0;
      step.run();
    }
    const auto count = static_cast<double>(std::max<Ns>(done_, 1));
    return {static_cast<double>(done_) / (options_.ms / 1e3), static_cast<double>(locks_) / count,
            static_cast<double>(waited_) / count, static_cast<double>(moves_) / count};
  }

 private:
  struct Event {
    enum Kind : std::uint8_t { Query, Reply, Perform, Ready, Arrived } kind{};
    ClientId client{};
    ServerId server{};
    Action action{};
  };
  struct Server {
    ServerLease lease;
    ClientId client{};
  };
  struct Worker {
    explicit Worker(WorkerId number) : id(number), leases(number) {}
    WorkerId id;
    WorkerLeases leases;
    LocalPool local{};
    Actions actions{};
    std::vector<PoolId> offers{};
    std::deque<Event> inbox{};  // has arrived
    std::size_t batch = 0;      // of them belong to the batch that is being served
    bool busy = false;
    std::uint64_t wakes = 0;
  };
  struct Step {
    Ns at;
    std::uint64_t number;
    std::function<void()> run;
    friend bool operator>(const Step& a, const Step& b) { return a.at != b.at ? a.at > b.at : a.number > b.number; }
  };

  [[nodiscard]] TimePoint time() const { return TimePoint(Duration(now_ / 1'000)); }
  void at(Ns when, std::function<void()> run) { steps_.push({when, ++number_, std::move(run)}); }

  void arrive(Ns when, WorkerId worker, Event event) {
    at(when, [this, worker, event = std::move(event)] {
      Worker& w = workers_[worker];
      w.inbox.push_back(event);
      if (!w.busy) begin_batch(w);
    });
  }

  // ---- a worker's loop; `now_` goes on with what it does, but nobody else sees that before its turn ----

  void begin_batch(Worker& w) {
    w.busy = true;
    ++w.wakes;
    w.batch = w.inbox.size();
    w.leases.set_busy(w.batch >= 4);  // as WorkerCore
    next_event(w);
  }

  void next_event(Worker& w) {
    if (w.batch == 0) return end_batch(w);
    --w.batch;
    const Event event = w.inbox.front();
    w.inbox.pop_front();
    serve(w, event);
    run_pending(w);
    const bool half = event.kind == Event::Query || event.kind == Event::Reply;
    at(now_ + static_cast<Ns>((half ? options_.cpu_us / 2 : options_.move_us) * 1'000), [this, &w] { next_event(w); });
  }

  void end_batch(Worker& w) {
    answer_offers(w);
    for (;;) {
      if (w.leases.should_tell(time())) {
        lock(w);
      } else if (const auto late = w.leases.overdue(time()); !late.clients.empty()) {
        lock(w).enqueue(w.id, late.pool, late.clients, time(), w.actions);
      } else {
        break;
      }
      run_pending(w);
      answer_offers(w);
    }
    if (!w.inbox.empty()) return at(now_, [this, &w] { begin_batch(w); });
    const TimePoint due = w.leases.deadline();
    w.busy = false;
    if (due == kNever) return;
    const std::uint64_t wake = w.wakes;
    at(std::max(now_, Ns{due.time_since_epoch().count()} * 1'000), [this, &w, wake] {
      if (!w.busy && w.wakes == wake) begin_batch(w);
    });
  }

  /// Takes the lock, with what the worker has to wait for it, and tells the manager what it does not know yet.
  PoolManager& lock(const Worker& w) {
    const Ns begin = std::max(now_, free_at_);
    ++locks_;
    waited_ += begin - now_;
    const Ns moved = last_holder_ == w.id ? 0 : options_.lines * options_.miss_ns;
    last_holder_ = w.id;
    free_at_ = now_ = begin + options_.lock_ns + moved;
    Worker& self = workers_[w.id];
    if (self.leases.untold()) self.leases.tell(manager_, time(), self.actions);
    return manager_;
  }

  // ---- what WorkerCore does ----

  void serve(Worker& w, const Event& event) {
    switch (event.kind) {
      case Event::Query:
        return query(w, event.client);
      case Event::Reply: {
        Server& server = servers_.at(event.server);
        const ClientId client = server.client;
        server.client = {};
        ++done_;
        if (!w.leases.release(w.local, server.lease, time())) {
          lock(w).release(event.server, ReleaseKind::Clean, time(), w.actions);
        }
        return arrive(now_ + 20'000, w.id, {Event::Query, client});
      }
      case Event::Perform:
        return perform(w, event.action);
      case Event::Ready:
        return lock(w).server_ready(event.server, {}, time(), w.actions);
      case Event::Arrived:
        return lock(w).server_arrived(event.server, time(), w.actions);
    }
  }

  void query(Worker& w, ClientId client) {
    ServerId server;
    switch (w.leases.acquire(w.local, client, time(), server)) {
      case WorkerLeases::Acquired::Granted:
        return start(client, server);
      case WorkerLeases::Acquired::Waits:
        return;
      case WorkerLeases::Acquired::Ask:
        break;
    }
    if (const auto before = WorkerLeases::all_waiting(w.local); !before.clients.empty()) {
      lock(w).enqueue(w.id, before.pool, before.clients, time(), w.actions);
    }
    const AcquireResult result = lock(w).acquire(client, pool_, time(), w.actions);
    if (result.status == AcquireStatus::Queued) w.leases.queued(w.local, client, time());
    if (result.status == AcquireStatus::Granted) granted(w, client, result.server);
  }

  void granted(const Worker& w, ClientId client, ServerId server) {
    WorkerLeases::granted(servers_.at(server).lease, client, w.local.board->epoch, time());
    start(client, server);
  }

  void start(ClientId client, ServerId server) {
    servers_.at(server).client = client;
    arrive(now_ + static_cast<Ns>(server_time_(random_)), worker_of_.at(client), {Event::Reply, {}, server});
  }

  void run_pending(Worker& w) {
    while (!w.actions.empty() || !w.leases.grants().empty()) {
      const Actions actions = std::exchange(w.actions, {});
      for (const Action& action : actions) {
        if (action.worker == w.id) {
          perform(w, action);
        } else {
          arrive(now_ + 2'000, action.worker, {Event::Perform, {}, {}, action});
        }
      }
      const auto grants = std::exchange(w.leases.grants(), {});
      for (const auto& grant : grants) {
        switch (WorkerLeases::take(servers_.at(grant.server).lease, grant.client)) {
          case WorkerLeases::Taken::Yes:
            start(grant.client, grant.server);
            break;
          case WorkerLeases::Taken::Ask:
            take(w, grant.client, grant.server);
            break;
          case WorkerLeases::Taken::Stale:
            break;
        }
      }
    }
  }

  void take(Worker& w, ClientId client, ServerId server) {
    if (!lock(w).grant_taken(client, server)) return;
    WorkerLeases::withdraw(w.local, client);
    granted(w, client, server);
  }

  void perform(Worker& w, const Action& action) {
    switch (action.kind) {
      case ActionKind::Grant:
        return take(w, action.client, action.server);
      case ActionKind::OpenServer:
        servers_.emplace(action.server, Server{ServerLease(action.server)});
        return arrive(now_ + 1'000'000, w.id, {Event::Ready, {}, action.server});
      case ActionKind::MoveServer:
        ++moves_;
        servers_.at(action.server).lease.end();
        return arrive(now_ + 2'000, action.to, {Event::Arrived, {}, action.server});
      case ActionKind::OfferIdle:
        w.offers.push_back(action.pool);
        return;
      default:
        std::abort();  // nobody leaves, fails or gives an order here
    }
  }

  void answer_offers(Worker& w) {
    while (!w.offers.empty()) {
      w.offers.pop_back();
      lock(w).offer_idle(w.id, pool_, time(), w.actions);
      run_pending(w);
    }
  }

  Options options_;
  PoolManager manager_;
  PoolId pool_;
  std::deque<Worker> workers_;
  std::unordered_map<ClientId, WorkerId> worker_of_;
  std::unordered_map<ServerId, Server> servers_;
  std::priority_queue<Step, std::vector<Step>, std::greater<>> steps_;
  std::uint64_t number_ = 0;
  Ns now_ = 0, free_at_ = 0, done_ = 0, locks_ = 0, waited_ = 0, moves_ = 0;
  int last_holder_ = -1;
  std::mt19937_64 random_;
  std::exponential_distribution<double> server_time_;
};

void table(const Options& options, double servers, bool leases) {
  fmt::print("\n{} servers for each client, {}\n{:>8} {:>10} {:>8} {:>9} {:>10} {:>9}\n", servers,
             leases ? "workers hand them on by themselves" : "every transaction asks the pools", "workers", "tx/s",
             "linear", "locks/tx", "waited ns", "moves/tx");
  double one = 0;
  for (int workers = 1; workers <= options.workers; workers *= 2) {
    const Result result = Machine(options, workers, servers, leases).run();
    if (workers == 1) one = result.tx_per_s;
    fmt::print("{:8} {:10.0f} {:8.3f} {:9.2f} {:10.0f} {:9.4f}\n", workers, result.tx_per_s,
               result.tx_per_s / one / workers, result.locks, result.waited_ns, result.moves);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  const option known[] = {{"workers", required_argument, nullptr, 'w'}, {"clients", required_argument, nullptr, 'c'},
                          {"servers", required_argument, nullptr, 's'}, {"cpu-us", required_argument, nullptr, 'u'},
                          {"lock-ns", required_argument, nullptr, 'l'}, {"lines", required_argument, nullptr, 'n'},
                          {"miss-ns", required_argument, nullptr, 'm'}, {"server-us", required_argument, nullptr, 'p'},
                          {"ms", required_argument, nullptr, 't'},      {nullptr, 0, nullptr, 0}};
  std::vector<double> servers{1, 0.625};
  for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
    if (c == '?') return 2;
    const double value = std::atof(optarg);
    if (c == 'w') options.workers = static_cast<int>(value);
    if (c == 'c') options.clients = static_cast<int>(value);
    if (c == 's') servers = {value};
    if (c == 'u') options.cpu_us = value;
    if (c == 'l') options.lock_ns = static_cast<Ns>(value);
    if (c == 'n') options.lines = static_cast<Ns>(value);
    if (c == 'm') options.miss_ns = static_cast<Ns>(value);
    if (c == 'p') options.server_us = value;
    if (c == 't') options.ms = static_cast<int>(value);
  }
  if (options.workers < 1 || options.clients < 1 || servers.front() <= 0 || options.ms < 1) {
    fmt::print(stderr, "scaling: workers, clients, servers and ms must be positive\n");
    return 2;
  }
  for (const double count : servers) {
    for (const bool leases : {false, true}) table(options, count, leases);
  }
  return 0;
}
