// Exact limits: pool_size and reserve, per database, per user, eviction, and who gets a permit that comes free.
#include "rig.hpp"

namespace pgweir::pool::test {

TEST_CASE("a closing server holds its permit until it is closed", "[limits]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto l = r.linked(p);
  const ClientId w = r.waiting(p);
  r.m.recycle_server(l.server, r.now, r.out);
  r.release(l.server);
  CHECK(r.only(ActionKind::CloseServer).server == l.server);
  CHECK(r.m.totals().servers == 1);
  r.closed(l.server);
  r.ready(r.only(ActionKind::OpenServer).server);
  CHECK(r.only(ActionKind::Grant).client == w);
}

TEST_CASE("every state counts against pool_size", "[limits]") {
  Rig r(2);
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto l = r.linked(p, 0);
  SECTION("Active") {}
  SECTION("Testing") {
    r.release(l.server, ReleaseKind::NeedsTest);
  }
  SECTION("Closing") {
    r.closing(l.server);
  }
  SECTION("Canceling") {
    REQUIRE(r.m.set_cancel_key(l.client, 1, false));
    const CancelResult c = r.m.begin_cancel(1, 0, r.now);
    REQUIRE(r.m.confirm_cancel(c.cancel));
    r.release(l.server);
  }
  SECTION("Moving") {
    r.release(l.server);
    r.waiting(p, 1);
    r.offers();
    CHECK(r.only(ActionKind::MoveServer).server == l.server);
  }
  r.waiting(p, 0);
  CHECK(r.out.empty());
  CHECK(r.m.totals().servers == 1);
}

TEST_CASE("eviction order and the return of the permit", "[limits]") {
  Rig r;
  const bool by_user = GENERATE(false, true);
  if (by_user) {
    r.m.set_user_limits("x", {3, 0});
  } else {
    r.m.set_database_limits("x", {3, 0});
  }
  const auto make = [&](const std::string& other) {
    return by_user ? r.pool(other, "x", Rig::size(5)) : r.pool("x", other, Rig::size(5));
  };
  const PoolId a = make("a"), b = make("b"), c = make("c");
  const PoolId unrelated = r.pool("y", "y", Rig::size(5));
  r.idle(unrelated);
  r.advance(seconds(1));
  const ServerId b1 = r.idle(b);
  r.advance(seconds(1));
  const ServerId a1 = r.idle(a);
  const auto busy = r.linked(c);
  const ClientId w1 = r.waiting(c);
  const Action evict = r.only(ActionKind::CloseServer);
  CHECK(evict.server == b1);
  CHECK(evict.reason == "evicted");
  const ClientId w2 = r.waiting(c);
  CHECK(r.only(ActionKind::CloseServer).server == a1);
  const ClientId w3 = r.waiting(c);
  CHECK(r.out.empty());  // nothing idle is left
  r.closed(a1);
  const ServerId fresh = r.only(ActionKind::OpenServer).server;
  r.ready(fresh);
  CHECK(r.only(ActionKind::Grant).client == w1);
  r.closed(b1);
  r.ready(r.only(ActionKind::OpenServer).server);
  CHECK(r.only(ActionKind::Grant).client == w2);
  r.release(busy.server);
  CHECK(r.only(ActionKind::Grant).client == w3);
}

TEST_CASE("a returned permit goes to the oldest waiter of all pools under the limit", "[limits]") {
  Rig r;
  r.m.set_database_limits("db", {2, 0});
  const PoolId a = r.pool("db", "a", Rig::size(1));
  const PoolId b = r.pool("db", "b", Rig::size(5));
  const PoolId c = r.pool("db", "c", Rig::size(5));
  const auto on_a = r.linked(a);
  const auto on_b = r.linked(b);
  r.waiting(a);  // oldest of all, but its pool is full
  r.advance(seconds(1));
  const ClientId second = r.waiting(c);
  r.advance(seconds(1));
  r.waiting(b);
  CHECK(r.out.empty());
  r.closed(on_b.server);
  const Action open = r.only(ActionKind::OpenServer);
  CHECK(open.pool == c);
  r.ready(open.server);
  CHECK(r.only(ActionKind::Grant).client == second);
  r.closed(on_a.server);
  CHECK(r.only(ActionKind::OpenServer).pool == a);
}

TEST_CASE("a waiter covered by a login does not claim another permit", "[limits]") {
  Rig r;
  r.m.set_database_limits("db", {3, 0});
  const PoolId a = r.pool("db", "a", Rig::size(5));
  const PoolId b = r.pool("db", "b", Rig::size(5));
  const PoolId c = r.pool("db", "c", Rig::size(5));
  const auto l1 = r.linked(c);
  r.linked(c);
  r.waiting(a);
  CHECK(r.only(ActionKind::OpenServer).pool == a);
  r.advance(seconds(1));
  r.waiting(b);
  r.advance(seconds(1));
  r.waiting(a);
  r.closed(l1.server);
  CHECK(r.only(ActionKind::OpenServer).pool == b);
}

TEST_CASE("a server that becomes idle under a full limit is evicted for another pool's waiter", "[limits]") {
  Rig r;
  r.m.set_database_limits("db", {1, 0});
  const PoolId a = r.pool("db", "a", Rig::size(5));
  const PoolId b = r.pool("db", "b", Rig::size(5));
  const auto l = r.linked(a);
  const ClientId w = r.waiting(b);
  CHECK(r.out.empty());
  r.release(l.server);
  CHECK(r.only(ActionKind::CloseServer).reason == "evicted");
  const ClientId back = r.attached(a);
  CHECK(r.acquire(back, a).status == AcquireStatus::Queued);
  r.closed(l.server);
  const Action open = r.only(ActionKind::OpenServer);
  CHECK(open.pool == b);
  r.ready(open.server);
  CHECK(r.only(ActionKind::Grant).client == w);
}

TEST_CASE("nothing is evicted in vain when the other limit can give nothing", "[limits]") {
  Rig r;
  r.m.set_database_limits("db", {1, 0});
  r.m.set_user_limits("u", {1, 0});
  const PoolId idle_here = r.pool("db", "v", Rig::size(5));
  const PoolId busy_there = r.pool("other", "u", Rig::size(5));
  const PoolId wanted = r.pool("db", "u", Rig::size(5));
  const ServerId sv = r.idle(idle_here);
  const auto l = r.linked(busy_there);
  const ClientId w = r.waiting(wanted);
  CHECK(r.out.empty());
  CHECK(r.snap(idle_here).sv_idle == 1);
  r.release(l.server);  // now both can: one eviction each
  CHECK(r.count(ActionKind::CloseServer) == 2);
  r.out.clear();
  r.closed(sv);
  CHECK(r.out.empty());
  r.closed(l.server);
  r.ready(r.only(ActionKind::OpenServer).server);
  CHECK(r.only(ActionKind::Grant).client == w);
}

TEST_CASE("lowered limits close idle servers soon and others as they come free", "[limits]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(4));
  const auto l1 = r.linked(p);
  const auto l2 = r.linked(p);
  const auto l3 = r.linked(p);
  r.release(l1.server);
  SECTION("pool_size") {
    r.pool("db", "u", Rig::size(1));
    const Action close = r.only(ActionKind::CloseServer);
    CHECK(close.server == l1.server);
    CHECK(close.reason == "too many servers in the pool");
  }
  SECTION("max_db_connections") {
    r.m.set_database_limits("db", {1, 0});
    r.pass(Duration::zero());
    CHECK(r.only(ActionKind::CloseServer).server == l1.server);
  }
  SECTION("max_user_connections") {
    r.m.set_user_limits("u", {1, 0});
    r.pass(Duration::zero());
    CHECK(r.only(ActionKind::CloseServer).server == l1.server);
  }
  r.waiting(p);
  r.release(l2.server);
  CHECK(r.only(ActionKind::CloseServer).server == l2.server);
  r.release(l3.server);
  CHECK(r.only(ActionKind::Grant).server == l3.server);
}

TEST_CASE("raised limits serve waiters", "[limits]") {
  Rig r;
  r.m.set_database_limits("db", {1, 0});
  const PoolId p = r.pool("db", "u", Rig::size(1));
  r.linked(p);
  const ClientId w = r.waiting(p);
  r.pool("db", "u", Rig::size(2));
  CHECK(r.out.empty());
  r.m.set_database_limits("db", {GENERATE(2U, 0U), 0});
  CHECK(r.m.next_deadline() <= r.now);
  r.pass(Duration::zero());
  r.ready(r.only(ActionKind::OpenServer).server);
  CHECK(r.only(ActionKind::Grant).client == w);
}

TEST_CASE("the reserve pool opens one server once the waiter has waited long enough", "[reserve]") {
  Rig r;
  PoolSettings s = Rig::size(1);
  s.reserve_pool_size = 1;
  s.reserve_pool_timeout = seconds(3);
  const PoolId p = r.pool("db", "u", s);
  r.linked(p);
  const ClientId a = r.waiting(p);
  r.advance(seconds(1));
  const ClientId b = r.waiting(p);
  CHECK(r.out.empty());
  r.pass(seconds(2) - Duration(1));
  CHECK(r.out.empty());
  CHECK(r.m.next_deadline() == r.now + Duration(1));
  r.pass(Duration(1));
  const Action open = r.only(ActionKind::OpenServer);
  CHECK(open.reason == "taking connection from reserve_pool");
  r.pass(seconds(10));
  CHECK(r.out.empty());  // the reserve is used up
  r.ready(open.server);
  CHECK(r.only(ActionKind::Grant).client == a);
  CHECK(r.m.grant_taken(a, open.server));
  r.closed(open.server);
  CHECK(r.only(ActionKind::OpenServer).reason == "taking connection from reserve_pool");
  r.leave(b);
}

TEST_CASE("the reserve waits for the first waiter without a login of its own", "[reserve]") {
  Rig r;
  PoolSettings s = Rig::size(1);
  s.reserve_pool_size = 5;
  s.reserve_pool_timeout = seconds(3);
  const PoolId p = r.pool("db", "u", s);
  r.waiting(p);
  r.only(ActionKind::OpenServer);
  r.advance(seconds(2));
  r.waiting(p);
  r.pass(seconds(2));
  CHECK(r.out.empty());  // the first waits 4 s, but its server is logging in
  r.pass(seconds(1));
  CHECK(r.only(ActionKind::OpenServer).reason == "taking connection from reserve_pool");
}

TEST_CASE("reserve_pool_timeout 0 disables the reserve", "[reserve]") {
  Rig r;
  PoolSettings s = Rig::size(1);
  s.reserve_pool_size = 5;
  s.reserve_pool_timeout = Duration::zero();
  s.server_idle_timeout = Duration::zero();
  s.server_lifetime = seconds(1'000'000);
  const PoolId p = r.pool("db", "u", s);
  r.linked(p);
  r.waiting(p);
  r.pass(seconds(1000));
  CHECK(r.out.empty());
  CHECK(r.m.next_deadline() == kNever);
}

}  // namespace pgweir::pool::test
