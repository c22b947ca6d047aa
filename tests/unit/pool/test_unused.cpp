// pool_idle_timeout, autodb_idle_timeout: when a pool or a database is forgotten and when it is not; server_fast_close.
#include "rig.hpp"

namespace pgweir::pool::test {

namespace {

PoolSettings idle_after(Duration timeout) {
  PoolSettings s = Rig::size(2);
  s.pool_idle_timeout = timeout;
  s.server_idle_timeout = Duration::zero();
  s.server_lifetime = std::chrono::hours(100);
  return s;
}

struct UnusedRig : Rig {
  UnusedRig() : Rig(2), p(pool("db", "u", idle_after(seconds(10)))) {}
  bool exists() const { return m.find_pool("db", "u") == p; }
  PoolId p;
};

bool has_database(const PoolManager& m, const std::string& name) {
  for (const DatabaseSnapshot& db : m.database_snapshots()) {
    if (db.name == name) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a pool is forgotten after pool_idle_timeout", "[unused]") {
  UnusedRig r;
  SECTION("that nobody ever used") {
    r.pass(seconds(10) - Duration(1));
    CHECK(r.exists());
    r.pass(Duration(1));
  }
  SECTION("counted from its last client") {
    const ClientId c = r.attached(r.p);
    r.pass(seconds(100));
    CHECK(r.exists());
    r.leave(c);
    r.pass(seconds(10) - Duration(1));
    CHECK(r.exists());
    r.pass(Duration(1));
  }
  SECTION("counted from its last server") {
    const ServerId s = r.idle(r.p);
    r.pass(seconds(100));
    CHECK(r.exists());
    r.closed(s);
    r.pass(seconds(10) - Duration(1));
    CHECK(r.exists());
    r.pass(Duration(1));
  }
  SECTION("counted from the last login that waited for it") {
    const ClientId c = r.client();
    REQUIRE(r.acquire(c, r.p).status == AcquireStatus::Queued);
    const ServerId s = r.only(ActionKind::OpenServer).server;
    r.closed(s, CloseKind::LoginFailed, "refused");
    r.pass(seconds(15));  // not tried again before
    const ServerId again = r.only(ActionKind::OpenServer).server;
    r.closed(again, CloseKind::LoginRejected, "no such database");
    r.only(ActionKind::RejectClient);
    r.leave(c);
    CHECK(r.exists());
    r.pass(seconds(10));
  }
  SECTION("counted from its last cancel request") {
    const auto l = r.linked(r.p);
    REQUIRE(r.m.set_cancel_key(l.client, 42, false));
    const CancelResult cancel = r.m.begin_cancel(42, 0, r.now);
    REQUIRE(r.m.confirm_cancel(cancel.cancel));
    r.closed(l.server);
    r.leave(l.client);
    r.pass(seconds(100));
    CHECK(r.exists());
    r.m.end_cancel(cancel.cancel, true, r.now, r.out);
    r.pass(seconds(10));
  }
  CHECK_FALSE(r.exists());
  CHECK(r.m.totals().pools == 0);
  CHECK(r.m.pool_name(r.p).first.empty());
  CHECK(has_database(r.m, "db"));
  CHECK(r.out.empty());
  CHECK(r.m.next_deadline() == kNever);
  // The same names make a new pool; the old id stays dead although its place is taken.
  const PoolId next = r.pool("db", "u", idle_after(seconds(10)));
  CHECK(next != r.p);
  CHECK_FALSE(r.m.pool_snapshot(r.p, r.now).has_value());
  r.linked(next);
}

TEST_CASE("what keeps a pool", "[unused]") {
  UnusedRig r;
  SECTION("no timeout") {
    r.pool("db", "u", idle_after(Duration::zero()));
  }
  SECTION("servers that min_pool_size keeps for a forced user, even while none can log in") {
    PoolSettings s = idle_after(seconds(10));
    s.min_pool_size = 1;
    s.forced_user = true;
    s.server_login_retry = seconds(1000);
    r.pool("db", "u", s);
    r.closed(r.only(ActionKind::OpenServer).server, CloseKind::LoginFailed, "refused");
  }
  r.pass(seconds(1'000));
  CHECK(r.exists());
}

TEST_CASE("a timeout that is set later counts from then", "[unused]") {
  Rig r;
  const PoolId p = r.pool("db", "u", idle_after(Duration::zero()));
  r.pass(seconds(1'000));
  r.pool("db", "u", idle_after(seconds(5)));
  r.pass(seconds(4));
  CHECK(r.m.find_pool("db", "u") == p);
  r.pass(seconds(1));
  CHECK_FALSE(r.m.find_pool("db", "u"));
}

TEST_CASE("a pool is forgotten when every worker that holds it has let go", "[unused]") {
  UnusedRig r;
  r.m.hold_pool(r.p, 0);
  r.m.hold_pool(r.p, 1);
  r.pass(seconds(10));
  REQUIRE(r.out.size() == 2);
  CHECK(r.next(ActionKind::ForgetPool).worker == 0);
  CHECK(r.next(ActionKind::ForgetPool).worker == 1);
  CHECK(r.m.pool_forgotten(r.p, 0, r.now, r.out));
  CHECK(r.exists());
  SECTION("both do") {
    CHECK(r.m.pool_forgotten(r.p, 1, r.now, r.out));
    CHECK_FALSE(r.exists());
    CHECK(r.m.pool_forgotten(r.p, 1, r.now, r.out));  // stale
  }
  SECTION("one says nothing and is asked again") {
    r.pass(seconds(1));
    const Action again = r.only(ActionKind::ForgetPool);
    CHECK(again.worker == 1);
    CHECK(r.exists());
  }
  SECTION("it is used meanwhile") {
    const ClientId c = r.attached(r.p, 1);
    CHECK_FALSE(r.m.pool_forgotten(r.p, 1, r.now, r.out));
    CHECK(r.exists());
    r.pass(seconds(100));
    CHECK(r.out.empty());
    r.leave(c);
    r.pass(seconds(10));
    CHECK(r.only(ActionKind::ForgetPool).worker == 1);
  }
}

TEST_CASE("a database that came by * is forgotten with its pools", "[unused]") {
  Rig r;
  CHECK(r.m.add_database("auto"));
  CHECK_FALSE(r.m.add_database("auto"));
  r.m.set_autodb_idle_timeout("auto", seconds(10), r.now);
  r.m.add_database("named");
  SECTION("nobody used it") {
    r.pass(seconds(10) - Duration(1));
    CHECK(has_database(r.m, "auto"));
    r.pass(Duration(1));
  }
  SECTION("counted from the last of its clients, logged in or not") {
    const PoolId p = r.pool("auto", "u", idle_after(Duration::zero()));
    const ClientId c = r.client();
    REQUIRE(r.m.bind_client(c, "auto", "u") == ClientLimit::Ok);
    r.pass(seconds(100));
    CHECK(r.m.find_pool("auto", "u") == p);
    r.leave(c);
    r.pass(seconds(9));
    CHECK(has_database(r.m, "auto"));
    r.pass(seconds(1));
  }
  SECTION("counted from the last of its servers") {
    const PoolId p = r.pool("auto", "u", idle_after(Duration::zero()));
    r.pool("auto", "v", idle_after(Duration::zero()));
    const ServerId s = r.idle(p);
    r.pass(seconds(100));
    CHECK(has_database(r.m, "auto"));
    r.closed(s);
    r.pass(seconds(10));
  }
  SECTION("when the workers have let go") {
    const PoolId p = r.pool("auto", "u", idle_after(Duration::zero()));
    r.m.hold_pool(p, 0);
    r.pass(seconds(10));
    r.only(ActionKind::ForgetPool);
    r.pass(seconds(1));
    r.only(ActionKind::ForgetPool);
    CHECK(has_database(r.m, "auto"));
    CHECK(r.m.pool_forgotten(p, 0, r.now, r.out));
  }
  SECTION("one that was paused and resumed") {
    (void)r.m.pause("auto", r.now, r.out);
    r.pass(seconds(100));
    CHECK(has_database(r.m, "auto"));
    (void)r.m.resume("auto", r.now, r.out);
    r.pass(seconds(10));
  }
  SECTION("after a global PAUSE") {
    (void)r.m.pause_all(r.now, r.out);
    r.pass(seconds(100));
    CHECK(has_database(r.m, "auto"));
    (void)r.m.resume_all(r.now, r.out);
    r.pass(seconds(10));
  }
  SECTION("one that was disabled and enabled") {
    (void)r.m.set_disabled("auto", true, r.now);
    r.pass(seconds(100));
    CHECK(has_database(r.m, "auto"));
    (void)r.m.set_disabled("auto", false, r.now);
    r.pass(seconds(10));
  }
  SECTION("after a console has waited for it") {
    const PoolId p = r.pool("auto", "u", idle_after(Duration::zero()));
    const auto l = r.linked(p);
    r.m.wait_for(PoolManager::WaitFor::NoActiveServers, "auto", 0, 5, r.now, r.out);
    r.m.stop_wait(5);
    r.closed(l.server);
    r.leave(l.client);
    r.pass(seconds(10));
  }
  CHECK_FALSE(has_database(r.m, "auto"));
  CHECK(has_database(r.m, "named"));
  CHECK(r.m.totals().pools == 0);
  CHECK(r.m.next_deadline() == kNever);
  r.check();
  CHECK(r.m.add_database("auto"));
}

TEST_CASE("a database of the configuration stays", "[unused]") {
  Rig r;
  r.m.set_autodb_idle_timeout("auto", seconds(10), r.now);
  r.pass(seconds(5));
  r.m.set_autodb_idle_timeout("auto", Duration::zero(), r.now);  // a reload has given it an entry of its own
  r.pass(seconds(1'000));
  CHECK(has_database(r.m, "auto"));
}

TEST_CASE("server_fast_close asks for active servers that are to be closed", "[unused]") {
  Rig r;
  PoolSettings s = Rig::size(3);
  s.server_fast_close = true;
  const PoolId p = r.pool("db", "u", s);
  const auto a = r.linked(p), b = r.linked(p);
  r.release(b.server);
  const auto asks_for_a = [&] {
    const Action ask = r.next(ActionKind::FastClose);
    CHECK(ask.server == a.server);
    CHECK(ask.worker == 0);
  };
  SECTION("RECONNECT, once") {
    r.m.reconnect("db", r.now, r.out);
    CHECK(r.count(ActionKind::CloseServer) == 1);  // the idle one
    CHECK(r.count(ActionKind::FastClose) == 1);
    r.out.clear();
    r.m.reconnect("", r.now, r.out);
    CHECK(r.count(ActionKind::FastClose) == 0);
  }
  SECTION("a stray message") {
    r.m.recycle_server(a.server, r.now, r.out);
    asks_for_a();
  }
  SECTION("the setting comes after the mark") {
    r.pool("db", "u", Rig::size(3));
    r.m.recycle_server(a.server, r.now, r.out);
    CHECK(r.out.empty());
    r.pool("db", "u", s);
    asks_for_a();
    CHECK(r.out.empty());
  }
  SECTION("off") {
    r.pool("db", "u", Rig::size(3));
    r.m.reconnect("db", r.now, r.out);
    CHECK(r.count(ActionKind::FastClose) == 0);
  }
  r.check();
}

}  // namespace pgweir::pool::test
