// Servers that are opened for one client: acquire_dedicated, their limits and every way they end.
#include "rig.hpp"

namespace pgweir::pool::test {

namespace {

struct Own : Rig {
  using Rig::Rig;

  ClientId wanting(PoolId p, WorkerId worker = 0) {
    const ClientId c = bound(p, worker);
    m.acquire_dedicated(c, p, now, out);
    check();
    return c;
  }
  /// A client that has got a server of its own.
  Linked owning(PoolId p, WorkerId worker = 0) {
    const ClientId c = wanting(p, worker);
    const Action open = only(ActionKind::OpenServer);
    REQUIRE(open.client == c);
    REQUIRE(open.worker == worker);
    ready(open.server);
    const Action grant = only(ActionKind::Grant);
    REQUIRE(grant.client == c);
    REQUIRE(grant.server == open.server);
    REQUIRE_FALSE(grant.needs_check);
    REQUIRE(m.grant_taken(c, open.server));
    return {c, open.server};
  }
};

}  // namespace

TEST_CASE("a dedicated server is opened beside an idle one and never becomes idle", "[dedicated]") {
  Own r(2);
  const PoolId p = r.pool("db", "u", Rig::size(5));
  const ServerId idle = r.idle(p);
  const auto own = r.owning(p, 1);
  CHECK(own.server != idle);
  CHECK(r.snap(p).sv_active == 1);
  SECTION("its worker closes it with the client") {
    r.closing(own.server);
    r.leave(own.client);
    CHECK(r.out.empty());
  }
  SECTION("the worker forgets it") {
    r.leave(own.client);
    CHECK(r.only(ActionKind::CloseServer).server == own.server);
  }
  SECTION("the worker gives it back") {
    r.release(own.server, GENERATE(ReleaseKind::Clean, ReleaseKind::NeedsTest));
    CHECK(r.only(ActionKind::CloseServer).server == own.server);
  }
  CHECK(r.m.totals().servers == 2);
  r.closed(own.server);
  CHECK(r.m.totals().servers == 1);
  CHECK(r.m.totals().idle_servers == 1);
}

TEST_CASE("a client does not get a server that logs in for another one alone", "[dedicated]") {
  Own r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const ClientId own = r.wanting(p);
  const Action first = r.only(ActionKind::OpenServer);
  const ClientId any = r.waiting(p);
  const Action second = r.only(ActionKind::OpenServer);
  CHECK(first.client == own);
  CHECK_FALSE(second.client);
  CHECK(r.snap(p).cl_waiting == 2);
  r.ready(first.server);
  CHECK(r.only(ActionKind::Grant).client == own);
  r.ready(second.server);
  CHECK(r.only(ActionKind::Grant).client == any);
}

TEST_CASE("pool_size holds and idle servers make room", "[dedicated]") {
  Own r;
  PoolSettings s = Rig::size(2);
  s.max_pool_logins = GENERATE(1U, 4U);
  const PoolId p = r.pool("db", "u", s);
  const auto idle = r.idles(p, 2);
  const ClientId a = r.wanting(p), b = r.wanting(p), c = r.wanting(p);
  REQUIRE(r.count(ActionKind::CloseServer) == 2);  // the third finds nothing more to evict
  for (const Action& action : r.out) CHECK(action.reason == "evicted");
  r.out.clear();
  r.closed(idle[0]);
  CHECK(r.next(ActionKind::OpenServer).client == a);
  r.closed(idle[1]);
  if (s.max_pool_logins > 1) CHECK(r.next(ActionKind::OpenServer).client == b);
  CHECK(r.out.empty());
  CHECK(r.snap(p).sv_login == std::min(2U, s.max_pool_logins));
  r.leave(c);
}

TEST_CASE("the permit goes to whoever has waited longest", "[dedicated]") {
  Own r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto busy = r.linked(p);
  const bool own_first = GENERATE(false, true);
  const ClientId own = own_first ? r.wanting(p) : ClientId{};
  r.advance(seconds(1));
  const ClientId any = r.waiting(p);
  r.advance(seconds(1));
  const ClientId later = own_first ? ClientId{} : r.wanting(p);
  CHECK(r.out.empty());
  r.release(busy.server);
  if (own_first) {
    CHECK(r.only(ActionKind::CloseServer).reason == "evicted");
    r.closed(busy.server);
    CHECK(r.only(ActionKind::OpenServer).client == own);
  } else {
    CHECK(r.only(ActionKind::Grant).client == any);
    REQUIRE(r.m.grant_taken(any, busy.server));
    r.release(busy.server);
    CHECK(r.only(ActionKind::CloseServer).reason == "evicted");
    r.closed(busy.server);
    CHECK(r.only(ActionKind::OpenServer).client == later);
  }
}

TEST_CASE("limits of database and user hold and evict", "[dedicated]") {
  Own r;
  const bool by_user = GENERATE(false, true);
  if (by_user) {
    r.m.set_user_limits("u", {1, 0});
  } else {
    r.m.set_database_limits("db", {1, 0});
  }
  const PoolId p = r.pool("db", "u", Rig::size(5));
  const PoolId other = by_user ? r.pool("db2", "u", Rig::size(5)) : r.pool("db", "u2", Rig::size(5));
  const ServerId idle = r.idle(GENERATE(false, true) ? p : other);
  const ClientId own = r.wanting(p);
  CHECK(r.only(ActionKind::CloseServer).server == idle);
  r.closed(idle);
  const Action open = r.only(ActionKind::OpenServer);
  CHECK(open.client == own);
  r.ready(open.server);
  r.out.clear();
  REQUIRE(r.m.grant_taken(own, open.server));
  const ClientId w = r.waiting(other);
  CHECK(r.out.empty());
  r.closing(open.server);
  r.leave(own);
  CHECK(r.out.empty());
  r.closed(open.server);
  r.ready(r.only(ActionKind::OpenServer).server);
  CHECK(r.only(ActionKind::Grant).client == w);
}

TEST_CASE("the reserve is for clients that want their own server too", "[dedicated]") {
  Own r;
  PoolSettings s = Rig::size(1);
  s.reserve_pool_size = 1;
  s.reserve_pool_timeout = seconds(3);
  const PoolId p = r.pool("db", "u", s);
  const auto busy = r.linked(p);
  const ClientId own = r.wanting(p);
  r.pass(seconds(2));
  CHECK(r.out.empty());
  r.pass(seconds(1));
  const Action open = r.only(ActionKind::OpenServer);
  CHECK(open.client == own);
  CHECK(open.reason == "taking connection from reserve_pool");
  CHECK(r.snap(p).sv_active == 1);
  r.leave(busy.client);
}

TEST_CASE("a login that fails concerns its client alone", "[dedicated]") {
  Own r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const CloseKind kind = GENERATE(CloseKind::LoginFailed, CloseKind::LoginRejected, CloseKind::ServerNotReadyYet);
  const ClientId own = r.wanting(p);
  const ServerId bad = r.only(ActionKind::OpenServer).server;
  const ClientId w = r.waiting(p);
  const ServerId good = r.only(ActionKind::OpenServer).server;
  r.closed(bad, kind, "no walsender for you");
  const Action reject = r.only(ActionKind::RejectClient);
  CHECK(reject.client == own);
  CHECK(reject.reason == "no walsender for you");
  CHECK(r.m.last_login_error(p).empty());
  r.leave(own);
  r.ready(good);
  CHECK(r.only(ActionKind::Grant).client == w);
}

TEST_CASE("clients that want their own server wait out the pause after a failed login", "[dedicated]") {
  Own r;
  PoolSettings s = Rig::size(2);
  s.server_login_retry = seconds(15);
  const PoolId p = r.pool("db", "u", s);
  const ClientId w = r.waiting(p);
  r.closed(r.only(ActionKind::OpenServer).server, CloseKind::LoginFailed, "down");
  const ClientId own = r.wanting(p);
  CHECK(r.out.empty());
  r.leave(w);
  r.pass(seconds(15));
  const Action open = r.only(ActionKind::OpenServer);
  CHECK(open.client == own);
  r.ready(open.server);
  CHECK_FALSE(r.m.last_login_ok(p));  // tells nothing of the logins of others
}

TEST_CASE("a client that leaves takes the login for it along", "[dedicated]") {
  Own r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const ClientId own = r.wanting(p);
  const ServerId s = r.only(ActionKind::OpenServer).server;
  SECTION("while it logs in") {
    r.leave(own);
  }
  SECTION("before it has taken the grant") {
    r.ready(s);
    CHECK(r.only(ActionKind::Grant).server == s);
    r.leave(own);
  }
  SECTION("when it only stops waiting") {
    r.m.stop_waiting(own, r.now, r.out);
    r.check();
  }
  CHECK(r.only(ActionKind::CloseServer).server == s);
  r.closed(s);
  CHECK(r.m.totals().servers == 0);
  CHECK(r.out.empty());
}

TEST_CASE("pause cuts the login, resume gives another", "[dedicated]") {
  Own r;
  const PoolId p = r.pool("db", "u", Rig::size(5));
  const auto busy = r.owning(p);
  const ClientId own = r.wanting(p);
  const ServerId cut = r.only(ActionKind::OpenServer).server;
  r.m.pause("db", r.now, r.out);
  r.check();
  CHECK(r.only(ActionKind::CloseServer).server == cut);
  r.closed(cut);
  r.m.wait_for(PoolManager::WaitFor::NoActiveServers, "db", 0, 7, r.now, r.out);
  CHECK(r.out.empty());
  r.closing(busy.server);
  r.leave(busy.client);
  CHECK(r.only(ActionKind::WaitOver).token == 7);
  r.closed(busy.server);
  r.m.resume("db", r.now, r.out);
  CHECK(r.only(ActionKind::OpenServer).client == own);
}

TEST_CASE("reconnect ends it at once", "[dedicated]") {
  Own r;
  const PoolId p = r.pool("db", "u", Rig::size(5));
  const auto own = r.owning(p);
  const ClientId logging_in = r.wanting(p);
  const ServerId cut = r.only(ActionKind::OpenServer).server;
  const ClientId not_there_yet = r.wanting(p);
  const ServerId granted = r.only(ActionKind::OpenServer).server;
  r.ready(granted);
  r.out.clear();
  r.m.reconnect("db", r.now, r.out);
  r.check();
  const Action drop = r.next(ActionKind::DropClient);
  CHECK(drop.client == own.client);
  CHECK(drop.reason == "database configuration changed");
  CHECK(r.next(ActionKind::CloseServer).server == cut);
  CHECK(r.next(ActionKind::CloseServer).server == granted);
  CHECK(r.next(ActionKind::OpenServer).client == logging_in);
  CHECK(r.only(ActionKind::OpenServer).client == not_there_yet);
  CHECK_FALSE(r.m.grant_taken(not_there_yet, granted));
}

TEST_CASE("kill and shutdown end those that wait", "[dedicated]") {
  Own r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const auto own = r.owning(p);
  const ClientId logging_in = r.wanting(p);
  const ServerId cut = r.only(ActionKind::OpenServer).server;
  const ClientId queued = r.wanting(p);
  if (GENERATE(false, true)) {
    r.m.kill("db", "database removed", r.now, r.out);
    r.check();
    CHECK(r.count(ActionKind::DropClient) == 3);
  } else {
    r.m.reject_waiting("server shutting down", r.now, r.out);
    r.check();
    REQUIRE(r.count(ActionKind::RejectClient) == 2);
    for (const Action& a : r.out) {
      if (a.kind == ActionKind::RejectClient) CHECK((a.client == queued || a.client == logging_in));
    }
  }
  REQUIRE(r.count(ActionKind::CloseServer) == 1);
  r.out.clear();
  r.closed(cut);
  r.leave(queued);
  r.leave(logging_in);
  r.closing(own.server);
  r.leave(own.client);
  r.closed(own.server);
  CHECK(r.m.totals().servers == 0);
}

TEST_CASE("a login that comes too late for a smaller pool_size is closed", "[dedicated]") {
  Own r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const auto busy = r.linked(p);
  const ClientId own = r.wanting(p);
  const ServerId late = r.only(ActionKind::OpenServer).server;
  r.pool("db", "u", Rig::size(1));
  r.ready(late);
  CHECK(r.only(ActionKind::CloseServer).server == late);
  CHECK(r.snap(p).cl_waiting == 1);
  r.closed(late);
  CHECK(r.out.empty());
  r.release(busy.server);
  r.closed(r.only(ActionKind::CloseServer).server);
  CHECK(r.only(ActionKind::OpenServer).client == own);
}

TEST_CASE("a server that was promised to somebody who has left makes room", "[dedicated]") {
  Own r(2);
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto busy = r.linked(p, 0);
  const ClientId w = r.waiting(p, 1);
  r.advance(milliseconds(5));
  const ClientId own = r.wanting(p, 0);
  r.release(busy.server);  // offered to the other worker
  CHECK(r.out.size() == 1);
  r.leave(w);
  r.offers();
  CHECK(r.only(ActionKind::CloseServer).reason == "evicted");
  r.closed(busy.server);
  CHECK(r.only(ActionKind::OpenServer).client == own);
}

TEST_CASE("a cancel request for a dedicated server", "[dedicated]") {
  Own r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto own = r.owning(p);
  REQUIRE(r.m.set_cancel_key(own.client, 5, false));
  const CancelResult c = r.m.begin_cancel(5, 0, r.now);
  CHECK(c.status == CancelStatus::Forward);
  CHECK(c.server == own.server);
  REQUIRE(r.m.confirm_cancel(c.cancel));
  const bool delivered = GENERATE(false, true);
  r.m.end_cancel(c.cancel, delivered, r.now, r.out);
  r.check();
  CHECK_FALSE(r.m.close_needed(own.server));
  CHECK(r.out.empty());
}

}  // namespace pgweir::pool::test
