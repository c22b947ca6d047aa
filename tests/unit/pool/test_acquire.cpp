// Acquire and release within one pool: reuse, queueing, fairness, when servers are opened, failed logins.
#include "rig.hpp"

namespace pgweir::pool::test {

TEST_CASE("the first acquire opens a server and its login grants it", "[acquire]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const ClientId c = r.attached(p);
  REQUIRE(r.acquire(c, p).status == AcquireStatus::Queued);
  const Action open = r.only(ActionKind::OpenServer);
  CHECK(open.pool == p);
  CHECK(open.reason.empty());
  CHECK(r.snap(p).cl_waiting == 1);
  CHECK(r.snap(p).cl_active == 0);
  CHECK(r.snap(p).sv_login == 1);
  CHECK_FALSE(r.m.last_login_ok(p));

  r.ready(open.server);
  const Action grant = r.only(ActionKind::Grant);
  CHECK(grant.client == c);
  CHECK(grant.server == open.server);
  CHECK_FALSE(grant.needs_check);
  CHECK(r.m.last_login_ok(p));
  CHECK(r.m.grant_taken(c, open.server));
  CHECK_FALSE(r.m.grant_taken(c, open.server));
  CHECK(r.snap(p).sv_active == 1);
  CHECK(r.snap(p).cl_active == 1);

  r.release(open.server);
  CHECK(r.out.empty());
  CHECK(r.snap(p).sv_idle == 1);
  const AcquireResult again = r.acquire(c, p);
  CHECK(again.status == AcquireStatus::Granted);
  CHECK(again.server == open.server);
  CHECK(r.out.empty());
}

TEST_CASE("the newest idle server is reused, the oldest with server_round_robin", "[acquire]") {
  Rig r;
  PoolSettings s = Rig::size(3);
  const PoolId p = r.pool("db", "u", s);
  const auto servers = r.idles(p, 3);
  const ClientId a = r.attached(p);
  CHECK(r.acquire(a, p).server == servers[2]);
  r.release(servers[2]);
  s.server_round_robin = true;
  r.pool("db", "u", s);
  CHECK(r.acquire(a, p).server == servers[0]);
}

TEST_CASE("a long idle server wants a check, a fresh or busy one does not", "[acquire]") {
  Rig r;
  PoolSettings s = Rig::size(1);
  s.server_check_delay = seconds(30);
  const PoolId p = r.pool("db", "u", s);
  const ServerId sv = r.idle(p);
  const ClientId c = r.attached(p);
  r.advance(seconds(29));
  CHECK_FALSE(r.acquire(c, p).needs_check);
  r.release(sv);
  r.advance(seconds(30));
  CHECK(r.snap(p).sv_used == 1);
  CHECK(r.snap(p).sv_idle == 0);
  CHECK(r.acquire(c, p).needs_check);

  SECTION("a grant that was taken back does not count as use") {
    const ClientId w = r.waiting(p);
    r.release(sv);
    CHECK_FALSE(r.only(ActionKind::Grant).needs_check);
    r.advance(seconds(31));
    r.leave(w);  // before it took the grant
    CHECK(r.acquire(c, p).needs_check);
  }
  SECTION("a delay of 0 checks every reuse, but not a login") {
    r.release(sv);
    s.server_check_delay = Duration::zero();
    s.pool_size = 2;
    r.pool("db", "u", s);
    CHECK(r.acquire(c, p).needs_check);
    const ClientId w = r.waiting(p);
    const ServerId second = r.only(ActionKind::OpenServer).server;
    r.ready(second);
    CHECK_FALSE(r.only(ActionKind::Grant).needs_check);
    CHECK(r.m.grant_taken(w, second));
    const ClientId x = r.waiting(p);
    r.release(second);
    const Action grant = r.only(ActionKind::Grant);
    CHECK(grant.client == x);
    CHECK(grant.needs_check);
  }
  SECTION("without a check query there is none") {
    r.release(sv);
    s.server_check = false;
    r.pool("db", "u", s);
    r.advance(seconds(100));
    CHECK(r.snap(p).sv_idle == 1);
    CHECK_FALSE(r.acquire(c, p).needs_check);
  }
}

TEST_CASE("waiters are served in order and a newcomer never overtakes", "[acquire]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto [first, sv] = r.linked(p);
  const ClientId a = r.waiting(p);
  const ClientId b = r.waiting(p);
  CHECK(r.out.empty());
  r.release(sv);
  CHECK(r.only(ActionKind::Grant).client == a);
  CHECK(r.acquire(first, p).status == AcquireStatus::Queued);
  CHECK(r.m.grant_taken(a, sv));
  r.release(sv);
  CHECK(r.only(ActionKind::Grant).client == b);
  CHECK(r.m.grant_taken(b, sv));
  r.release(sv);
  CHECK(r.only(ActionKind::Grant).client == first);
}

TEST_CASE("logins in progress never exceed what waiters need nor max_pool_logins", "[acquire]") {
  Rig r;
  PoolSettings s = Rig::size(10);
  s.max_pool_logins = 2;
  const PoolId p = r.pool("db", "u", s);
  const ClientId a = r.waiting(p);
  r.waiting(p);
  r.waiting(p);
  REQUIRE(r.out.size() == 2);
  const ServerId s1 = r.next(ActionKind::OpenServer).server;
  const ServerId s2 = r.next(ActionKind::OpenServer).server;
  r.ready(s1);
  CHECK(r.next(ActionKind::Grant).client == a);
  const ServerId s3 = r.only(ActionKind::OpenServer).server;
  r.ready(s2);
  r.next(ActionKind::Grant);
  CHECK(r.out.empty());
  r.m.stop_waiting(a, r.now, r.out);  // takes the grant back: the third waiter gets that server
  CHECK(r.only(ActionKind::Grant).server == s1);
  r.ready(s3);
  CHECK(r.out.empty());  // nobody left: it is idle
  CHECK(r.snap(p).sv_idle == 1);
}

TEST_CASE("max_pool_logins 0 counts as 1 and pool_size 0 is unlimited", "[acquire]") {
  Rig r;
  PoolSettings s = Rig::size(0);
  s.max_pool_logins = 0;
  const PoolId p = r.pool("db", "u", s);
  for (int i = 0; i < 30; ++i) r.waiting(p);
  for (int i = 0; i < 30; ++i) {
    const ServerId sv = r.next(ActionKind::OpenServer).server;
    CHECK(r.out.empty());
    r.ready(sv);
    r.next(ActionKind::Grant);
  }
  CHECK(r.m.totals().servers == 30);
  CHECK(r.out.empty());
}

TEST_CASE("acquire_again goes to the head of the queue with its first time", "[acquire]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto [first, sv] = r.linked(p);
  const TimePoint since = r.now;
  r.advance(seconds(1));
  r.waiting(p);
  r.closing(sv);
  CHECK(r.m.acquire_again(first, p, since, r.now, r.out).status == AcquireStatus::Queued);
  r.check();
  CHECK(r.snap(p).maxwait == seconds(1));
  CHECK(r.out.empty());  // the permit is still out
  r.closed(sv);
  const ServerId next = r.only(ActionKind::OpenServer).server;
  r.ready(next);
  CHECK(r.only(ActionKind::Grant).client == first);
}

TEST_CASE("leaving the queue is immediate and idempotent", "[acquire]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto [first, sv] = r.linked(p);
  const ClientId a = r.waiting(p);
  const ClientId b = r.waiting(p);
  r.m.stop_waiting(a, r.now, r.out);
  r.m.stop_waiting(a, r.now, r.out);
  r.check();
  CHECK(r.m.totals().waiting_clients == 1);
  r.m.stop_waiting(first, r.now, r.out);  // is linked, waits for nothing
  r.check();
  CHECK(r.snap(p).sv_active == 1);
  r.release(sv);
  CHECK(r.only(ActionKind::Grant).client == b);
  r.leave(a);
  r.leave(a);
  CHECK(r.m.totals().clients == 2);
}

TEST_CASE("a grant that was not taken is taken back, and its action is stale", "[grant]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto [first, sv] = r.linked(p);
  const ClientId a = r.waiting(p);
  const ClientId b = r.waiting(p);
  r.release(sv);
  CHECK(r.only(ActionKind::Grant).client == a);
  SECTION("the client leaves") {
    r.leave(a);
  }
  SECTION("the client stops waiting and waits again") {
    r.m.stop_waiting(a, r.now, r.out);
    CHECK(r.acquire(a, p).status == AcquireStatus::Queued);
  }
  CHECK(r.only(ActionKind::Grant).client == b);
  CHECK_FALSE(r.m.grant_taken(a, sv));
  CHECK(r.m.grant_taken(b, sv));
  r.release(sv);
}

TEST_CASE("a server that dies before its grant is taken puts the client back at the head", "[grant]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto [first, sv] = r.linked(p);
  const ClientId a = r.waiting(p);
  r.advance(seconds(1));
  const ClientId b = r.waiting(p);
  r.release(sv);
  CHECK(r.only(ActionKind::Grant).client == a);
  SECTION("closing first") {
    r.closing(sv);
  }
  SECTION("closed at once") {}
  r.closed(sv);
  CHECK_FALSE(r.m.grant_taken(a, sv));
  const ServerId fresh = r.only(ActionKind::OpenServer).server;
  r.ready(fresh);
  CHECK(r.only(ActionKind::Grant).client == a);
  CHECK(r.m.grant_taken(a, fresh));
  r.release(fresh);
  CHECK(r.only(ActionKind::Grant).client == b);
}

TEST_CASE("a server that dies after its grant was taken just goes", "[grant]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto [c, sv] = r.linked(p);
  r.closing(sv);
  CHECK(r.m.totals().waiting_clients == 0);
  CHECK(r.snap(p).closing == 1);
  r.closed(sv);
  CHECK(r.out.empty());
  CHECK(r.m.totals().servers == 0);
  CHECK(r.acquire(c, p).status == AcquireStatus::Queued);
}

TEST_CASE("a client removed with a server it still holds costs the server", "[grant]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto [c, sv] = r.linked(p);
  r.leave(c);
  const Action close = r.only(ActionKind::CloseServer);
  CHECK(close.server == sv);
  CHECK(close.reason == "client disconnect while server was not ready");
}

TEST_CASE("stale server ids are ignored everywhere", "[grant]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto [c, sv] = r.linked(p);
  r.closed(sv);
  const auto [d, fresh] = r.linked(p);
  REQUIRE(fresh.index == sv.index);
  REQUIRE(fresh != sv);
  r.release(sv);
  r.ready(sv);
  r.arrived(sv);
  r.closing(sv);
  r.closed(sv);
  r.m.recycle_server(sv, r.now, r.out);
  CHECK_FALSE(r.m.close_needed(fresh));
  CHECK(r.out.empty());
  CHECK(r.snap(p).sv_active == 1);
  r.release(ServerId{12345, 1});
  r.check();
}

TEST_CASE("release for the reset query keeps the server out of use until it ends", "[release]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto [c, sv] = r.linked(p);
  const ClientId w = r.waiting(p);
  r.release(sv, ReleaseKind::NeedsTest);
  CHECK(r.out.empty());
  CHECK(r.snap(p).sv_tested == 1);
  r.leave(c);
  CHECK(r.out.empty());
  r.release(sv);
  CHECK(r.only(ActionKind::Grant).client == w);
}

TEST_CASE("a recycled server is closed when it is free", "[release]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  SECTION("in use") {
    const auto [c, sv] = r.linked(p);
    r.m.recycle_server(sv, r.now, r.out);
    CHECK(r.m.close_needed(sv));
    CHECK(r.out.empty());
    r.release(sv);
    CHECK(r.only(ActionKind::CloseServer).reason == "close_needed");
  }
  SECTION("idle") {
    const ServerId sv = r.idle(p);
    r.m.recycle_server(sv, r.now, r.out);
    CHECK(r.only(ActionKind::CloseServer).server == sv);
  }
  SECTION("logging in") {
    r.waiting(p);
    const ServerId sv = r.only(ActionKind::OpenServer).server;
    r.m.recycle_server(sv, r.now, r.out);
    CHECK(r.out.empty());
    r.ready(sv);
    CHECK(r.next(ActionKind::CloseServer).server == sv);
    CHECK(r.only(ActionKind::OpenServer).server != sv);
  }
}

// ---- failed logins ----

TEST_CASE("a failed connect pauses logins and waiters keep waiting", "[login]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(5));
  const ClientId c = r.client();  // not attached: it logs in
  REQUIRE(r.acquire(c, p).status == AcquireStatus::Queued);
  const ServerId sv = r.only(ActionKind::OpenServer).server;
  const auto kind = GENERATE(CloseKind::LoginFailed, CloseKind::ServerNotReadyYet);
  r.closing(sv);
  CHECK(r.out.empty());  // how it ended is not known yet: no other attempt
  r.closed(sv, kind, "no route");
  CHECK(r.out.empty());
  CHECK(r.m.last_login_error(p) == "no route");
  CHECK(r.m.next_deadline() == r.now + seconds(15));
  r.waiting(p);
  r.waiting(p);
  r.pass(seconds(15) - Duration(1));
  CHECK(r.out.empty());
  r.pass(Duration(1));
  const ServerId probe = r.only(ActionKind::OpenServer).server;  // one attempt is enough
  r.ready(probe);
  CHECK(r.next(ActionKind::Grant).client == c);
  CHECK(r.count(ActionKind::OpenServer) == 2);
  CHECK(r.m.last_login_error(p).empty());
}

TEST_CASE("a rejected login rejects the waiters if no server is usable", "[login]") {
  Rig r;
  PoolSettings s = Rig::size(5);
  const PoolId p = r.pool("db", "u", s);
  SECTION("none usable") {
    const ClientId a = r.waiting(p);
    const ServerId sv = r.only(ActionKind::OpenServer).server;
    const ClientId b = r.waiting(p);
    r.next(ActionKind::OpenServer);  // a second login in progress is no usable server
    r.closed(sv, CloseKind::LoginRejected, "password authentication failed");
    const Action first = r.next(ActionKind::RejectClient);
    CHECK(first.client == a);
    CHECK(first.reason == "password authentication failed");
    CHECK(r.only(ActionKind::RejectClient).client == b);
    CHECK(r.m.totals().waiting_clients == 0);
  }
  SECTION("one usable") {
    r.linked(p);
    r.waiting(p);
    const ServerId sv = r.only(ActionKind::OpenServer).server;
    r.closed(sv, CloseKind::LoginRejected, "too many connections");
    CHECK(r.out.empty());
    CHECK(r.m.totals().waiting_clients == 1);
    CHECK_FALSE(r.m.last_login_ok(p));
  }
}

TEST_CASE("a rejected login rejects who logs in if the usable servers will not come back", "[login]") {
  Rig r;
  PoolSettings s = Rig::size(5);
  s.max_pool_logins = 1;
  const PoolId p = r.pool("db", "u", s);
  r.linked(p);
  r.m.reconnect("db", r.now, r.out);
  REQUIRE(r.out.empty());
  r.waiting(p);
  const ServerId sv = r.only(ActionKind::OpenServer).server;
  const ClientId login = r.bound(p);
  REQUIRE(r.acquire(login, p).status == AcquireStatus::Queued);
  r.closed(sv, CloseKind::LoginRejected, "password authentication failed");
  CHECK(r.only(ActionKind::RejectClient).client == login);
  CHECK(r.m.totals().waiting_clients == 1);
}

TEST_CASE("addresses take turns over all workers, or one is kept until it fails", "[login]") {
  Rig r(2);
  PoolSettings s = Rig::size(5);
  s.one_address = GENERATE(false, true);
  const PoolId p = r.pool("db", "u", s);
  std::vector<std::uint64_t> turns;
  for (WorkerId worker : {WorkerId{0}, WorkerId{1}, WorkerId{0}}) {
    r.waiting(p, worker);
    const Action open = r.next(ActionKind::OpenServer);
    turns.push_back(open.token);
    r.ready(open.server);
    r.out.clear();
  }
  CHECK(turns == (s.one_address ? std::vector<std::uint64_t>{0, 0, 0} : std::vector<std::uint64_t>{0, 1, 2}));
  r.waiting(p);
  r.closed(r.only(ActionKind::OpenServer).server, CloseKind::LoginFailed, "no route");
  r.pass(s.server_login_retry);
  const Action again = r.only(ActionKind::OpenServer);
  CHECK(again.token == (s.one_address ? 1u : 4u));
  r.closed(again.server, CloseKind::LoginFailed, "no route");
  r.pass(s.server_login_retry);
  CHECK(r.only(ActionKind::OpenServer).token == (s.one_address ? 2u : 5u));
}

TEST_CASE("several logins that fail at one address move on to the next one once", "[login]") {
  Rig r;
  PoolSettings s = Rig::size(5);
  s.one_address = true;
  const PoolId p = r.pool("db", "u", s);
  r.waiting(p);
  const ServerId first = r.only(ActionKind::OpenServer).server;
  r.waiting(p);
  const ServerId second = r.only(ActionKind::OpenServer).server;
  r.closed(first, CloseKind::LoginFailed, "no route");
  r.closed(second, CloseKind::LoginFailed, "no route");
  r.out.clear();
  r.pass(s.server_login_retry);
  CHECK(r.only(ActionKind::OpenServer).token == 1);
}

TEST_CASE("fast failure only for attached clients of a pool that worked before", "[login]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const bool worked = GENERATE(true, false);
  if (worked) {
    const ServerId sv = r.idle(p);
    r.closed(sv);
  }
  const ClientId w = r.waiting(p);
  const ServerId failing = r.only(ActionKind::OpenServer).server;
  r.closed(failing, CloseKind::LoginFailed, "down");
  const ClientId c = r.attached(p);
  CHECK(r.acquire(c, p).status == (worked ? AcquireStatus::Failing : AcquireStatus::Queued));
  const ClientId login = r.client();
  CHECK(r.acquire(login, p).status == AcquireStatus::Queued);
  CHECK(r.out.empty());
  r.pass(seconds(15));
  CHECK(r.count(ActionKind::OpenServer) == 1);
  if (worked) {
    // During the attempt a server is alive, so there is hope again.
    CHECK(r.acquire(c, p).status == AcquireStatus::Queued);
  }
  r.leave(w);
}

TEST_CASE("a login cut by us says nothing about the server", "[login]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  r.waiting(p);
  const ServerId sv = r.only(ActionKind::OpenServer).server;
  r.m.reconnect("db", r.now, r.out);
  CHECK(r.next(ActionKind::CloseServer).reason == "database configuration changed");
  const ServerId second = r.only(ActionKind::OpenServer).server;
  r.closed(sv, CloseKind::LoginFailed, "cut");
  CHECK(r.m.last_login_error(p).empty());
  r.ready(second);
  CHECK(r.count(ActionKind::Grant) == 1);
}

// ---- clients ----

TEST_CASE("client limits", "[clients]") {
  Rig r(1, milliseconds(1), 3);
  r.m.set_database_limits("db", {0, 2});
  r.m.set_user_limits("u", {0, 1});
  const ClientId a = r.client();
  const ClientId b = r.client();
  const ClientId c = r.client();
  CHECK_FALSE(r.m.add_client(0));
  CHECK(r.m.add_client(0, true));
  CHECK(r.m.bind_client(a, "db", "u") == ClientLimit::Ok);
  CHECK(r.m.bind_client(b, "db", "u") == ClientLimit::User);
  CHECK(r.m.bind_client(b, "db", "v") == ClientLimit::Ok);
  CHECK(r.m.bind_client(c, "db", "w") == ClientLimit::Database);
  r.check();
  r.m.exempt_client(c);
  CHECK(r.m.bind_client(c, "db", "u") == ClientLimit::Ok);
  CHECK(r.m.add_client(0));
  CHECK_FALSE(r.m.add_client(0));
  r.m.set_limits(4);
  CHECK(r.m.add_client(0));
  r.leave(a);
  CHECK(r.m.add_client(0));
  const auto dbs = r.m.database_snapshots();
  REQUIRE(dbs.size() == 1);
  CHECK(dbs[0].current_client_connections == 2);
  const auto users = r.m.user_snapshots();
  REQUIRE(users.size() == 2);  // w was refused and is not remembered
  CHECK(users[0].name == "u");
  CHECK(users[0].current_client_connections == 1);
  CHECK(r.m.totals().login_clients == 4);
  CHECK(r.m.totals().exempt_clients == 2);
  CHECK(r.m.totals().clients == 6);
}

TEST_CASE("names that only a login knew are forgotten with it", "[clients]") {
  Rig r;
  r.m.set_user_limits("configured", {0, 5});
  const ClientLimits one{2, 1};
  for (int i = 0; i < 3; ++i) {
    const ClientId a = r.client(), b = r.client();
    CHECK(r.m.bind_client(a, "any", "stranger", &one) == ClientLimit::Ok);
    CHECK(r.m.bind_client(b, "any", "stranger", &one) == ClientLimit::User);
    CHECK(r.m.database_snapshots().size() == 1);
    CHECK(r.m.user_snapshots().size() == 2);
    r.check();
    r.leave(a);
    r.leave(b);
    CHECK(r.m.database_snapshots().empty());
    REQUIRE(r.m.user_snapshots().size() == 1);
    CHECK(r.m.user_snapshots()[0].name == "configured");
  }
  // A pool makes them known for good.
  const ClientId c = r.client();
  CHECK(r.m.bind_client(c, "db", "u") == ClientLimit::Ok);
  r.pool("db", "u", Rig::size(1));
  r.leave(c);
  CHECK(r.m.database_snapshots().size() == 1);
  CHECK(r.m.user_snapshots().size() == 2);
}

TEST_CASE("pools are found by name and by id", "[clients]") {
  Rig r;
  CHECK_FALSE(r.m.find_pool("db", "u"));
  const PoolId p = r.pool("db", "u", Rig::size(1));
  CHECK(r.m.find_pool("db", "u") == p);
  CHECK(r.pool("db", "u", Rig::size(2)) == p);
  CHECK(r.pool("db", "v", Rig::size(2)) != p);
  CHECK(r.m.pool_name(p) == std::pair<std::string, std::string>("db", "u"));
  CHECK(r.m.pool_name(PoolId{9, 1}).first.empty());
  CHECK(r.m.pools().size() == 2);
  CHECK_FALSE(r.m.pool_snapshot(PoolId{9, 1}, r.now));
}

}  // namespace pgweir::pool::test
