// WorkerLeases beside the manager that it tells: what a worker may decide by itself, and what the manager makes of it.
#include "pool/worker_leases.hpp"

#include "rig.hpp"

namespace pgweir::pool::test {

namespace {

/// Worker 0 of two, with much to do, and one server that has been there for a while.
struct Leases : Rig {
  explicit Leases(PoolSettings settings = size(1)) : Rig(2), own(0) {
    p = pool("db", "u", settings);
    local.id = p;
    local.board = m.lease_board(p);
    const Linked l = linked(p, 0);
    out.clear();
    first = l.client;
    lease = ServerLease(l.server);
    WorkerLeases::granted(lease, first, local.board->epoch, now);
    own.set_busy(true);
  }
  void tell() {
    own.tell(m, now, out);
    check();
  }
  [[nodiscard]] bool take(ClientId client) {
    ServerId server;
    return own.acquire(local, client, now, server) == WorkerLeases::Acquired::Granted && server == lease.server();
  }
  [[nodiscard]] bool waits(ClientId client) {
    ServerId server;
    return own.acquire(local, client, now, server) == WorkerLeases::Acquired::Waits;
  }
  [[nodiscard]] bool give_back() { return own.release(local, lease, now); }
  /// A client that waits on the worker, because the first one has the server again.
  ClientId waits_here() {
    CHECK(give_back());
    CHECK(take(first));
    const ClientId client = attached(p);
    CHECK(waits(client));
    return client;
  }
  void enqueue(const WorkerLeases::Overdue& late) {
    m.enqueue(0, late.pool, late.clients, now, out);
    check();
  }
  PoolId p;
  LocalPool local;
  ServerLease lease{ServerId{}};
  ClientId first;
  WorkerLeases own;
};

}  // namespace

TEST_CASE("the manager is told who has a server now", "[leases]") {
  Leases r;
  const ClientId second = r.attached(r.p);
  CHECK(r.give_back());
  CHECK(r.take(second));
  CHECK(r.m.set_cancel_key(second, 7, false));
  CHECK(r.m.begin_cancel(7, 0, r.now).status == CancelStatus::NotFound);
  CHECK(r.own.untold());
  r.tell();
  CHECK_FALSE(r.own.untold());
  CHECK(r.m.begin_cancel(7, 0, r.now).status == CancelStatus::Forward);
}

TEST_CASE("a kept server that the manager is told of is idle", "[leases]") {
  Leases r;
  CHECK(r.give_back());
  CHECK(r.m.totals().idle_servers == 0);
  r.tell();
  CHECK(r.m.totals().idle_servers == 1);
  ServerId server;
  CHECK(r.own.acquire(r.local, r.first, r.now, server) == WorkerLeases::Acquired::Ask);
  CHECK(r.acquire(r.first, r.p).status == AcquireStatus::Granted);
}

TEST_CASE("a kept server goes to who waits on another worker, at the end of the batch", "[leases]") {
  Leases r;
  CHECK(r.give_back());
  const ClientId other = r.waiting(r.p, 1);
  CHECK(r.own.should_tell(r.now));
  r.tell();
  r.offers();
  CHECK(r.only(ActionKind::MoveServer).client == other);
}

TEST_CASE("nobody is served before who has waited longer by more than the slack", "[leases]") {
  Leases r;
  r.waiting(r.p, 1);
  const bool within = GENERATE(true, false);
  r.advance(within ? Duration(1'000) : Duration(1'001));
  CHECK(r.give_back());  // it stays until the end of the batch in any case
  CHECK(r.take(r.attached(r.p)) == within);
}

TEST_CASE("those who wait on the worker are served in order, unless somebody elsewhere has waited longer", "[leases]") {
  Leases r;
  CHECK(r.give_back());
  CHECK(r.take(r.first));
  const ClientId second = r.attached(r.p), third = r.attached(r.p);
  const bool others = GENERATE(false, true);
  if (others) {
    r.waiting(r.p, 1);
    r.advance(Duration(600));
    CHECK(r.give_back());
    CHECK(r.take(r.first));
  }
  CHECK(r.waits(second));
  r.advance(Duration(500));
  CHECK(r.waits(third));
  CHECK(r.give_back());
  REQUIRE(r.own.grants().size() == 1);
  CHECK(r.own.grants().front().client == second);
  CHECK(WorkerLeases::take(r.lease, third) == WorkerLeases::Taken::Stale);
  CHECK(WorkerLeases::take(r.lease, second) == WorkerLeases::Taken::Yes);
  CHECK(r.give_back() == !others);  // the third came 1.1 ms after somebody on the other worker
}

TEST_CASE("what has been granted here but not taken, the manager can take back", "[leases]") {
  Leases r;
  const ClientId second = r.waits_here();
  CHECK(r.give_back());
  SECTION("the client leaves") {
    r.tell();
    r.leave(second);
    CHECK(r.m.totals().idle_servers == 1);
    CHECK(WorkerLeases::take(r.lease, second) == WorkerLeases::Taken::Ask);
    CHECK_FALSE(r.m.grant_taken(second, r.lease.server()));
  }
  SECTION("the server dies: the client is back in the queue") {
    r.tell();
    r.closed(r.lease.server());
    CHECK(r.m.totals().waiting_clients == 1);
    CHECK(r.only(ActionKind::OpenServer).pool == r.p);
  }
  SECTION("or it is told and then taken") {
    r.tell();
    CHECK(WorkerLeases::take(r.lease, second) == WorkerLeases::Taken::Ask);
    CHECK(r.m.grant_taken(second, r.lease.server()));
  }
}

TEST_CASE("who has waited on the worker for too long stands in the manager's queue where he belongs", "[leases]") {
  Leases r;
  const ClientId second = r.waits_here();
  r.advance(Duration(500));
  const ClientId other = r.waiting(r.p, 1);
  CHECK(r.own.overdue(r.now).clients.empty());
  r.advance(Duration(501));
  const auto late = r.own.overdue(r.now);
  REQUIRE(late.clients.size() == 1);
  r.enqueue(late);
  CHECK(r.own.overdue(r.now).clients.empty());
  SECTION("the manager serves it in its turn") {
    r.own.set_enabled(false);
    CHECK_FALSE(r.give_back());
    r.release(r.lease.server());
    CHECK(r.next(ActionKind::Grant).client == second);
    CHECK(r.m.grant_taken(second, r.lease.server()));
    r.release(r.lease.server());
    r.offers();
    CHECK(r.only(ActionKind::MoveServer).client == other);
  }
  SECTION("so may the worker, and tells it soon") {
    CHECK(r.give_back());
    CHECK(WorkerLeases::take(r.lease, second) == WorkerLeases::Taken::Yes);
    CHECK(r.m.totals().waiting_clients == 2);
    CHECK(r.own.deadline() <= r.now);
    CHECK(r.own.should_tell(r.now));
    r.tell();
    CHECK(r.m.totals().waiting_clients == 1);
    CHECK(r.own.deadline() == kNever);
  }
}

TEST_CASE("who was served while he stood in the manager's queue may come again before it hears of that", "[leases]") {
  Leases r;
  const ClientId second = r.waits_here();
  const auto all = WorkerLeases::all_waiting(r.local);
  r.enqueue(all);
  CHECK(r.give_back());
  CHECK(WorkerLeases::take(r.lease, second) == WorkerLeases::Taken::Yes);
  CHECK(r.waits(r.first));
  CHECK(r.give_back());
  CHECK(WorkerLeases::take(r.lease, r.first) == WorkerLeases::Taken::Yes);
  r.tell();
  CHECK(r.m.totals().waiting_clients == 0);
  CHECK(r.acquire(second, r.p).status == AcquireStatus::Queued);
}

TEST_CASE("a server that the manager has sent to a client whom the worker has served serves another", "[leases]") {
  Leases r(Rig::size(2));
  const ServerId moving = r.linked(r.p, 1).server;
  const ClientId second = r.waits_here();
  r.advance(Duration(1'001));
  const auto late = r.own.overdue(r.now);
  REQUIRE(late.clients.size() == 1);
  r.enqueue(late);
  r.release(moving);
  r.offers();
  CHECK(r.only(ActionKind::MoveServer).client == second);
  CHECK(r.give_back());
  REQUIRE(r.own.grants().size() == 1);
  CHECK(r.own.grants().front().client == second);
  r.tell();
  r.arrived(moving);
  CHECK(r.m.totals().idle_servers == 1);
  CHECK(r.m.grant_taken(second, r.lease.server()));
}

TEST_CASE("nobody waits on the worker for long while servers are idle on others", "[leases]") {
  Leases r(Rig::size(2));
  const auto other = r.linked(r.p, 1);
  const ClientId second = r.waits_here();
  r.advance(Duration(251));
  CHECK(r.own.overdue(r.now).clients.empty());
  r.release(other.server);
  const auto late = r.own.overdue(r.now);
  REQUIRE(late.clients.size() == 1);
  r.enqueue(late);
  r.offers();
  CHECK(r.only(ActionKind::MoveServer).client == second);
}

TEST_CASE("nobody waits on the worker for a server that could be opened", "[leases]") {
  Leases r(Rig::size(2));
  CHECK(r.give_back());
  CHECK(r.take(r.first));
  ServerId server;
  CHECK(r.own.acquire(r.local, r.attached(r.p), r.now, server) == WorkerLeases::Acquired::Ask);
}

TEST_CASE("nor where servers have not come free for a while", "[leases]") {
  Leases r;
  CHECK(r.give_back());
  CHECK(r.take(r.first));
  r.advance(Duration(1'001));
  ServerId server;
  CHECK(r.own.acquire(r.local, r.attached(r.p), r.now, server) == WorkerLeases::Acquired::Ask);
}

TEST_CASE("a server passes the manager from time to time, and when something is to be done to it", "[leases]") {
  Leases r;
  SECTION("time") {
    r.advance(kLeaseTime + Duration(1));
  }
  SECTION("RECONNECT") {
    r.m.reconnect("db", r.now, r.out);
  }
  SECTION("other settings") {
    r.pool("db", "u", Rig::size(3));
  }
  SECTION("PAUSE") {
    CHECK(r.m.pause("db", r.now, r.out) == PoolManager::DatabaseResult::Ok);
  }
  SECTION("a limit that is shared") {
    r.m.set_user_limits("u", {.max_user_connections = 5});
  }
  SECTION("somebody wants a server of his own") {
    r.m.acquire_dedicated(r.attached(r.p), r.p, r.now, r.out);
  }
  SECTION("a cancel request") {
    r.lease.end();
  }
  SECTION("little to do") {
    r.own.set_busy(false);
  }
  CHECK_FALSE(r.give_back());
}

TEST_CASE("no pool is left to workers where the order of use matters to the whole", "[leases]") {
  PoolSettings settings = Rig::size(1);
  settings.server_round_robin = true;
  Leases r(settings);
  CHECK_FALSE(r.give_back());
}

TEST_CASE("a line of waiting clients keeps its order over any length", "[leases]") {
  WaitingLine line;
  std::uint32_t in = 0, next = 0;
  for (int i = 0; i < 1000; ++i) {
    line.push({ClientId{in++, 1}, {}});
    line.push({ClientId{in++, 1}, {}});
    if (i % 3 == 0) CHECK(line.remove(ClientId{in - 1, 1}));
    if (i % 3 == 0) line.push({ClientId{in - 1, 1}, {}});
    if (i % 5 == 0) line.make_known(1);
    CHECK(line.front_known() == (line.unknown().size() < in - next));
    CHECK(line.pop().client.index == next++);
  }
  while (!line.empty()) CHECK(line.pop().client.index == next++);
  CHECK(in == next);
}

}  // namespace pgweir::pool::test
