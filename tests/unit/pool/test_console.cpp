// PAUSE, RESUME, KILL, RECONNECT, DISABLE, SHUTDOWN and what they wait for.
#include "rig.hpp"

namespace pgweir::pool::test {

using Result = PoolManager::DatabaseResult;
using WaitFor = PoolManager::WaitFor;

TEST_CASE("pause closes idle servers and logins, and nobody is served until resume", "[pause]") {
  Rig r;
  const bool all = GENERATE(false, true);
  const PoolId p = r.pool("db", "u", Rig::size(3));
  const auto busy = r.linked(p);
  const ServerId idle = r.idle(p);
  const ClientId c = r.attached(p);
  REQUIRE(r.acquire(c, p).server == idle);
  const ClientId w = r.waiting(p);
  const ServerId login = r.only(ActionKind::OpenServer).server;
  r.release(idle);  // serves the waiter instead
  CHECK(r.only(ActionKind::Grant).client == w);
  CHECK(r.m.grant_taken(w, idle));
  r.release(idle);

  CHECK((all ? r.m.pause_all(r.now, r.out) : r.m.pause("db", r.now, r.out)) == Result::Ok);
  r.check();
  CHECK(r.m.is_paused("db"));
  CHECK(r.m.is_paused("other") == all);
  CHECK(r.m.all_paused() == all);
  REQUIRE(r.count(ActionKind::CloseServer) == 2);
  for (const Action& a : r.out) CHECK(a.reason == "pause mode");
  r.out.clear();
  CHECK(r.m.pause("db", r.now, r.out) == Result::Already);
  r.closed(idle);
  r.ready(login);  // came too late: in case the worker has missed it, it is told again
  CHECK(r.only(ActionKind::CloseServer).server == login);
  r.closed(login);
  CHECK(r.out.empty());
  CHECK(r.acquire(c, p).status == AcquireStatus::Queued);
  r.release(busy.server);
  CHECK(r.only(ActionKind::CloseServer).reason == "pause mode");
  r.closed(busy.server);
  r.pass(seconds(1000));
  CHECK(r.out.empty());

  CHECK((all ? r.m.resume_all(r.now, r.out) : r.m.resume("db", r.now, r.out)) == Result::Ok);
  r.check();
  r.ready(r.only(ActionKind::OpenServer).server);
  CHECK(r.only(ActionKind::Grant).client == c);
  CHECK((all ? r.m.resume_all(r.now, r.out) : r.m.resume("db", r.now, r.out)) == Result::Already);
}

TEST_CASE("pausing what nobody knows", "[pause]") {
  Rig r;
  CHECK(r.m.pause("db", r.now, r.out) == Result::NotFound);
  CHECK(r.m.resume("db", r.now, r.out) == Result::NotFound);
  CHECK(r.m.set_disabled("db", true, r.now) == Result::NotFound);
  r.m.add_database("db");
  CHECK(r.m.pause("db", r.now, r.out) == Result::Ok);
  CHECK(r.m.set_disabled("db", true, r.now) == Result::Ok);
  CHECK(r.m.set_disabled("db", true, r.now) == Result::Already);
  CHECK(r.m.is_disabled("db"));
  CHECK_FALSE(r.m.is_disabled("other"));
  const auto dbs = r.m.database_snapshots();
  REQUIRE(dbs.size() == 1);
  CHECK(dbs[0].paused);
  CHECK(dbs[0].disabled);
  CHECK(r.m.pause_all(r.now, r.out) == Result::Ok);
  CHECK(r.m.resume("db", r.now, r.out) == Result::Ok);
  CHECK(r.m.is_paused("db"));  // still, by the global one
}

TEST_CASE("resume gives a shared limit to the oldest waiter over all pools", "[pause]") {
  Rig r;
  r.m.set_database_limits("db", {1, 0});
  const PoolId a = r.pool("db", "a", Rig::size(1));
  const PoolId b = r.pool("db", "b", Rig::size(1));
  r.m.pause("db", r.now, r.out);
  r.waiting(b);
  r.advance(seconds(1));
  r.waiting(a);
  CHECK(r.out.empty());
  r.m.resume("db", r.now, r.out);
  CHECK(r.only(ActionKind::OpenServer).pool == b);
}

TEST_CASE("reconnect closes idle servers now and others when they are free", "[reconnect]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(5));
  const PoolId other = r.pool("other", "u", Rig::size(5));
  const ServerId elsewhere = r.idle(other);
  const auto busy = r.linked(p);
  const auto busy2 = r.linked(p);
  r.release(busy2.server);
  r.m.reconnect("db", r.now, r.out);
  r.check();
  const Action close = r.only(ActionKind::CloseServer);
  CHECK(close.server == busy2.server);
  CHECK(close.reason == "database configuration changed");
  CHECK(r.m.close_needed(busy.server));
  const auto fresh = r.linked(p);
  r.release(fresh.server);
  CHECK(r.out.empty());
  r.release(busy.server);
  CHECK(r.only(ActionKind::CloseServer).server == busy.server);
  r.m.reconnect("", r.now, r.out);
  r.check();
  CHECK(r.count(ActionKind::CloseServer) == 2);
  CHECK(r.m.close_needed(elsewhere));
}

TEST_CASE("kill drops every client of the database and closes its servers", "[kill]") {
  Rig r(2);
  PoolSettings s = Rig::size(7);
  const PoolId p = r.pool("db", "u", s);
  const PoolId other = r.pool("other", "u", Rig::size(5));
  const auto safe = r.linked(other);
  const auto busy = r.linked(p);
  const ServerId moving = r.idle(p, 0);
  const ClientId moving_to = r.waiting(p, 1);
  r.offers();
  r.only(ActionKind::MoveServer);
  const auto testing = r.linked(p);
  const auto passing = r.linked(p);
  r.release(testing.server, ReleaseKind::NeedsTest);
  const ServerId idle = r.idle(p);
  const ServerId idle2 = [&] {
    const ClientId c = r.attached(p);
    CHECK(r.acquire(c, p).server == idle);
    const ServerId made = r.idle(p);
    r.release(idle);
    r.leave(c);
    return made;
  }();
  const ClientId w1 = r.attached(p), w2 = r.attached(p), w3 = r.attached(p);
  CHECK(r.acquire(w1, p).status == AcquireStatus::Granted);
  CHECK(r.acquire(w2, p).status == AcquireStatus::Granted);
  CHECK(r.acquire(w3, p).status == AcquireStatus::Queued);
  const ServerId login = r.only(ActionKind::OpenServer).server;
  r.release(passing.server);  // a grant on its way to w3
  CHECK(r.only(ActionKind::Grant).client == w3);

  r.m.kill("db", "database removed", r.now, r.out);
  r.check();
  CHECK(r.m.is_paused("db"));
  CHECK(r.count(ActionKind::DropClient) == 7);
  CHECK(r.count(ActionKind::CloseServer) == 3);
  for (const Action& a : r.out) {
    CHECK(a.client != safe.client);
    if (a.kind == ActionKind::CloseServer) {
      CHECK((a.server == testing.server || a.server == login || a.server == passing.server));
    } else {
      CHECK(a.reason == "database removed");
    }
  }
  r.out.clear();
  CHECK_FALSE(r.m.grant_taken(w3, passing.server));
  CHECK(r.m.totals().waiting_clients == 0);
  r.arrived(moving);
  CHECK(r.only(ActionKind::CloseServer).server == moving);
  r.release(busy.server);  // should not happen, but would not bring it back either
  CHECK(r.only(ActionKind::CloseServer).server == busy.server);
  r.closed(idle);
  r.closed(idle2);
  r.leave(moving_to);
  CHECK(r.snap(other).sv_active == 1);
}

TEST_CASE("a server that was in transit during a kill is closed even after resume", "[kill]") {
  Rig r(2);
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const ServerId moving = r.idle(p, 0);
  r.waiting(p, 1);
  r.offers();
  r.out.clear();
  r.m.kill("", "database removed", r.now, r.out);
  CHECK(r.only(ActionKind::DropClient).worker == 1);
  CHECK(r.m.resume("db", r.now, r.out) == Result::Ok);
  r.arrived(moving);
  CHECK(r.only(ActionKind::CloseServer).reason == "close_needed");
}

TEST_CASE("reject_waiting empties the queues", "[shutdown]") {
  Rig r(2);
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const auto l = r.linked(p);
  const ServerId moving = r.idle(p, 0);
  const ClientId a = r.waiting(p, 1);
  r.offers();
  const ClientId b = r.waiting(p, 0);
  r.out.clear();
  r.m.reject_waiting("server shutting down", r.now, r.out);
  r.check();
  CHECK(r.next(ActionKind::RejectClient).client == b);
  const Action last = r.only(ActionKind::RejectClient);
  CHECK(last.client == a);
  CHECK(last.worker == 1);
  CHECK(last.reason == "server shutting down");
  CHECK(r.m.totals().waiting_clients == 0);
  r.arrived(moving);
  CHECK(r.out.empty());
  r.release(l.server);
}

TEST_CASE("waits are over at once if there is nothing to wait for", "[wait]") {
  Rig r;
  const PoolId p = r.pool("db", "u", Rig::size(2));
  r.idle(p);
  r.m.wait_for(WaitFor::NoActiveServers, "db", 0, 1, r.now, r.out);
  CHECK(r.only(ActionKind::WaitOver).token == 1);
  r.m.wait_for(WaitFor::NoCloseNeeded, "", 0, 2, r.now, r.out);
  CHECK(r.only(ActionKind::WaitOver).token == 2);
  r.m.wait_for(WaitFor::NoClients, "", 0, 3, r.now, r.out);
  CHECK(r.only(ActionKind::WaitOver).token == 3);
  r.m.wait_for(WaitFor::NoServers, "unknown", 0, 4, r.now, r.out);
  CHECK(r.only(ActionKind::WaitOver).token == 4);
  r.m.wait_for(WaitFor::NoServers, "", 0, 5, r.now, r.out);
  CHECK(r.out.empty());
}

TEST_CASE("waits end with the event that satisfies them", "[wait]") {
  Rig r(2);
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const PoolId q = r.pool("other", "u", Rig::size(2));
  const auto there = r.linked(q);
  const auto l = r.linked(p);
  SECTION("PAUSE") {
    r.m.pause("db", r.now, r.out);
    r.m.wait_for(WaitFor::NoActiveServers, "db", 1, 9, r.now, r.out);
    CHECK(r.out.empty());
    r.release(l.server, ReleaseKind::NeedsTest);
    CHECK(r.out.empty());
    r.release(l.server);
    CHECK(r.next(ActionKind::CloseServer).server == l.server);
    const Action over = r.only(ActionKind::WaitOver);
    CHECK(over.token == 9);
    CHECK(over.worker == 1);
  }
  SECTION("PAUSE of everything") {
    r.m.pause_all(r.now, r.out);
    r.m.wait_for(WaitFor::NoActiveServers, "", 1, 9, r.now, r.out);
    r.closing(l.server);
    CHECK(r.out.empty());
    r.closing(there.server);
    CHECK(r.only(ActionKind::WaitOver).token == 9);
  }
  SECTION("SHUTDOWN WAIT_FOR_SERVERS") {
    r.m.wait_for(WaitFor::NoServers, "", 0, 9, r.now, r.out);
    r.closing(l.server);
    r.closed(there.server);
    CHECK(r.out.empty());
    r.closed(l.server);
    CHECK(r.only(ActionKind::WaitOver).token == 9);
  }
  SECTION("SHUTDOWN WAIT_FOR_CLIENTS") {
    r.m.wait_for(WaitFor::NoClients, "", 0, 9, r.now, r.out);
    r.m.wait_for(WaitFor::NoClients, "db", 0, 10, r.now, r.out);
    r.release(l.server);
    r.leave(l.client);
    CHECK(r.only(ActionKind::WaitOver).token == 10);
    r.release(there.server);
    r.leave(there.client);
    CHECK(r.only(ActionKind::WaitOver).token == 9);
  }
  SECTION("WAIT_CLOSE") {
    r.m.reconnect("db", r.now, r.out);
    r.m.wait_for(WaitFor::NoCloseNeeded, "db", 0, 9, r.now, r.out);
    r.release(l.server);
    r.only(ActionKind::CloseServer);
    r.closed(l.server);
    CHECK(r.only(ActionKind::WaitOver).token == 9);
  }
  SECTION("given up") {
    r.m.wait_for(WaitFor::NoServers, "db", 0, 9, r.now, r.out);
    r.m.stop_wait(9);
    r.closed(l.server);
    CHECK(r.out.empty());
  }
}

}  // namespace pgweir::pool::test
