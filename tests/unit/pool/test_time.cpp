// What happens by the clock: idle timeout, lifetime, min_pool_size, and the deadlines themselves.
#include "rig.hpp"

namespace pgweir::pool::test {

TEST_CASE("idle servers are closed after server_idle_timeout", "[time]") {
  Rig r;
  PoolSettings s = Rig::size(3);
  s.server_idle_timeout = seconds(10);
  const PoolId p = r.pool("db", "u", s);
  const auto servers = r.idles(p, 2);  // idle since t and t + 1 ms
  CHECK(r.m.next_deadline() <= r.now + seconds(10));
  r.pass(seconds(10) - milliseconds(1) - Duration(1));
  CHECK(r.out.empty());
  r.pass(Duration(1));
  const Action close = r.only(ActionKind::CloseServer);
  CHECK(close.server == servers[0]);
  CHECK(close.reason == "server idle timeout");
  r.pass(milliseconds(1));
  CHECK(r.only(ActionKind::CloseServer).server == servers[1]);
}

TEST_CASE("a server that was used meanwhile lives on", "[time]") {
  Rig r;
  PoolSettings s = Rig::size(3);
  s.server_idle_timeout = seconds(10);
  const PoolId p = r.pool("db", "u", s);
  const ServerId sv = r.idle(p);
  const ClientId c = r.attached(p);
  r.advance(seconds(9));
  CHECK(r.acquire(c, p).server == sv);
  r.release(sv);
  r.pass(seconds(1));  // the lazy deadline of the first idle time: early, and nothing is due
  CHECK(r.out.empty());
  CHECK(r.m.next_deadline() == r.now + seconds(9));
  r.pass(seconds(9));
  CHECK(r.only(ActionKind::CloseServer).server == sv);
}

TEST_CASE("the idle timeout respects min_pool_size while a client is attached", "[time]") {
  Rig r;
  PoolSettings s = Rig::size(3);
  s.server_idle_timeout = seconds(10);
  s.min_pool_size = 0;
  const PoolId p = r.pool("db", "u", s);
  r.idles(p, 3);
  const ClientId c = r.attached(p);
  s.min_pool_size = 2;
  r.pool("db", "u", s);
  r.pass(seconds(20));
  const Action close = r.only(ActionKind::CloseServer);
  r.closed(close.server);
  r.pass(seconds(20));
  CHECK(r.out.empty());
  r.leave(c);
  r.pass(Duration::zero());
  CHECK(r.count(ActionKind::CloseServer) == 2);
}

TEST_CASE("server_lifetime closes at most one server per lifetime/pool_size", "[time]") {
  Rig r;
  PoolSettings s = Rig::size(4);
  s.server_lifetime = seconds(40);
  const PoolId p = r.pool("db", "u", s);
  const auto a = r.linked(p);
  const auto b = r.linked(p);
  const auto c = r.linked(p);
  r.release(a.server);
  r.release(b.server);
  r.pass(seconds(40) - Duration(1));
  CHECK(r.out.empty());
  r.pass(Duration(1));  // idle ones
  const Action first = r.only(ActionKind::CloseServer);
  CHECK(first.server == a.server);
  CHECK(first.reason == "server lifetime over");
  r.release(c.server);  // at release too, but its turn has not come
  CHECK(r.out.empty());
  CHECK(r.m.next_deadline() == r.now + seconds(10));
  r.pass(seconds(10));
  CHECK(r.only(ActionKind::CloseServer).server == b.server);
  const AcquireResult again = r.acquire(c.client, p);
  REQUIRE(again.server == c.server);
  r.advance(seconds(10));
  r.release(c.server);
  CHECK(r.only(ActionKind::CloseServer).reason == "server lifetime over");
}

TEST_CASE("server_lifetime 0 uses each connection once", "[time]") {
  Rig r;
  PoolSettings s = Rig::size(2);
  s.server_lifetime = Duration::zero();
  const PoolId p = r.pool("db", "u", s);
  const auto l = r.linked(p);
  r.release(l.server);
  CHECK(r.only(ActionKind::CloseServer).reason == "server lifetime over");
  const auto l2 = r.linked(p);
  r.release(l2.server);
  CHECK(r.only(ActionKind::CloseServer).server == l2.server);
  r.closed(l.server);
  SECTION("one that nobody used stays") {
    const ClientId c = r.waiting(p);
    const ServerId sv = r.only(ActionKind::OpenServer).server;
    r.leave(c);
    r.ready(sv);
    CHECK(r.out.empty());
    CHECK(r.snap(p).sv_idle == 1);
  }
  SECTION("also after a grant that was not taken") {
    const ClientId c = r.waiting(p);
    const ServerId sv = r.only(ActionKind::OpenServer).server;
    r.ready(sv);
    r.only(ActionKind::Grant);
    r.leave(c);
    CHECK(r.out.empty());
    CHECK(r.snap(p).sv_idle == 1);
  }
}

TEST_CASE("min_pool_size is filled one login at a time, round robin over the workers", "[minpool]") {
  Rig r(2);
  PoolSettings s = Rig::size(5);
  s.min_pool_size = 3;
  const PoolId p = r.pool("db", "u", s);
  CHECK(r.out.empty());  // no client yet
  r.attached(p);
  for (const WorkerId w : std::initializer_list<WorkerId>{0, 1, 0}) {
    const Action open = r.only(ActionKind::OpenServer);
    CHECK(open.worker == w);
    r.ready(open.server);
  }
  CHECK(r.out.empty());
  CHECK(r.snap(p).sv_idle == 3);
}

TEST_CASE("min_pool_size for a forced user needs no client", "[minpool]") {
  Rig r;
  PoolSettings s = Rig::size(1);
  s.min_pool_size = 7;  // never more than pool_size
  s.forced_user = true;
  r.pool("db", "u", s);
  r.ready(r.only(ActionKind::OpenServer).server);
  CHECK(r.out.empty());
}

TEST_CASE("min_pool_size is restored a little after a close", "[minpool]") {
  Rig r;
  PoolSettings s = Rig::size(5);
  s.min_pool_size = 1;
  const PoolId p = r.pool("db", "u", s);
  r.attached(p);
  const ServerId sv = r.only(ActionKind::OpenServer).server;
  r.ready(sv);
  r.closed(sv);
  CHECK(r.out.empty());
  CHECK(r.m.next_deadline() == r.now + milliseconds(333));
  r.pass(milliseconds(333));
  CHECK(r.count(ActionKind::OpenServer) == 1);
}

TEST_CASE("min_pool_size waits for the retry pause and for RESUME", "[minpool]") {
  Rig r;
  PoolSettings s = Rig::size(5);
  s.min_pool_size = 1;
  const PoolId p = r.pool("db", "u", s);
  r.attached(p);
  const ServerId sv = r.only(ActionKind::OpenServer).server;
  SECTION("retry pause") {
    r.closed(sv, CloseKind::LoginFailed, "down");
    r.pass(seconds(15) - Duration(1));
    CHECK(r.out.empty());
    r.pass(Duration(1));
    CHECK(r.count(ActionKind::OpenServer) == 1);
  }
  SECTION("pause") {
    r.m.pause("db", r.now, r.out);
    CHECK(r.only(ActionKind::CloseServer).server == sv);
    r.closed(sv);
    r.pass(seconds(100));
    CHECK(r.out.empty());
    r.m.resume("db", r.now, r.out);
    r.check();
    CHECK(r.count(ActionKind::OpenServer) == 1);
  }
}

TEST_CASE("min_pool_size takes a permit only when no waiter wants it, and then at once", "[minpool]") {
  Rig r;
  r.m.set_database_limits("db", {1, 0});
  PoolSettings s = Rig::size(5);
  const PoolId a = r.pool("db", "a", s);
  s.min_pool_size = 1;
  const PoolId b = r.pool("db", "b", s);
  const auto l = r.linked(a);
  r.attached(b);
  CHECK(r.out.empty());
  SECTION("a waiter comes first") {
    r.waiting(a);
    r.closed(l.server);
    CHECK(r.only(ActionKind::OpenServer).pool == a);
  }
  SECTION("nobody waits") {
    r.closed(l.server);
    CHECK(r.only(ActionKind::OpenServer).pool == b);
  }
}

TEST_CASE("no transaction moves a deadline in steady state", "[time]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const auto l = r.linked(p);
  r.release(l.server);
  const TimePoint due = r.m.next_deadline();
  CHECK(due == r.now + seconds(600));
  for (int i = 0; i < 100; ++i) {
    r.advance(milliseconds(10));
    REQUIRE(r.acquire(l.client, p).status == AcquireStatus::Granted);
    r.release(l.server);
    REQUIRE(r.m.next_deadline() == due);
  }
  CHECK(r.out.empty());
}

TEST_CASE("time that seems to go back is taken as standing still", "[time]") {
  Rig r(2);
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto l = r.linked(p);
  const ClientId a = r.waiting(p);
  r.now -= seconds(5);  // another worker's older reading
  const ClientId b = r.waiting(p);
  r.release(l.server);
  CHECK(r.only(ActionKind::Grant).client == a);
  CHECK(r.m.grant_taken(a, l.server));
  r.release(l.server);
  CHECK(r.only(ActionKind::Grant).client == b);
}

}  // namespace pgweir::pool::test
