// Cancel requests: to whom they belong, when they may still be sent, and that they never reach another query.
#include "rig.hpp"

namespace pgweir::pool::test {

namespace {

struct CancelRig : Rig {
  explicit CancelRig(std::uint32_t pool_size = 1) : Rig(2), p(pool("db", "u", size(pool_size))), l(linked(p)) {
    REQUIRE(m.set_cancel_key(l.client, 42, false));
  }
  CancelResult begin() {
    const CancelResult c = m.begin_cancel(42, 1, now);
    check();
    return c;
  }
  CancelResult sent() {
    const CancelResult c = begin();
    REQUIRE(c.status == CancelStatus::Forward);
    REQUIRE(m.confirm_cancel(c.cancel));
    check();
    return c;
  }
  void end(const CancelResult& c, bool delivered) {
    m.end_cancel(c.cancel, delivered, now, out);
    check();
  }
  PoolId p;
  Linked l;
};

}  // namespace

TEST_CASE("a cancel for a running query", "[cancel]") {
  CancelRig r;
  const CancelResult c = r.begin();
  CHECK(c.status == CancelStatus::Forward);
  CHECK(c.client == r.l.client);
  CHECK(c.worker == 0);
  CHECK(c.server == r.l.server);
  CHECK(c.pool == r.p);
  CHECK(c.key.pid == 7);
  CHECK(c.key.secret == "secret");
  CHECK(r.snap(r.p).cl_waiting_cancel_req == 1);
  REQUIRE(r.m.cancel_snapshot(c.cancel));
  CHECK_FALSE(r.m.cancel_snapshot(c.cancel)->sent);
  CHECK(r.m.cancel_snapshot(c.cancel)->pool == r.p);
  CHECK(r.m.confirm_cancel(c.cancel));
  CHECK(r.m.confirm_cancel(c.cancel));
  CHECK(r.snap(r.p).cl_waiting_cancel_req == 0);
  CHECK(r.snap(r.p).cl_active_cancel_req == 1);
  CHECK(r.snap(r.p).sv_active_cancel == 1);
  REQUIRE(r.m.cancel_snapshot(c.cancel));
  CHECK(r.m.cancel_snapshot(c.cancel)->sent);
  CHECK_FALSE(r.m.being_canceled(r.l.server));
  r.end(c, true);
  CHECK_FALSE(r.m.cancel_snapshot(c.cancel));
  CHECK(r.m.totals().cancels == 0);
  r.release(r.l.server);
  CHECK(r.snap(r.p).sv_idle == 1);
  CHECK(r.out.empty());
}

TEST_CASE("whom a key finds", "[cancel]") {
  CancelRig r;
  CHECK(r.m.begin_cancel(41, 0, r.now).status == CancelStatus::NotFound);
  SECTION("a client that runs nothing") {
    r.release(r.l.server);
    CHECK(r.begin().status == CancelStatus::NotFound);
  }
  SECTION("a client that waits") {
    const ClientId w = r.waiting(r.p, 1);
    REQUIRE(r.m.set_cancel_key(w, 43, false));
    const CancelResult c = r.m.begin_cancel(43, 0, r.now);
    CHECK(c.status == CancelStatus::Waiting);
    CHECK(c.client == w);
    CHECK(c.worker == 1);
  }
  SECTION("a client whose server is moving, or whose grant is on its way") {
    const ClientId w = r.waiting(r.p, 1);
    REQUIRE(r.m.set_cancel_key(w, 43, false));
    r.release(r.l.server);
    r.offers();
    r.only(ActionKind::MoveServer);
    CHECK(r.m.begin_cancel(43, 0, r.now).status == CancelStatus::Waiting);
    r.arrived(r.l.server);
    CHECK(r.m.begin_cancel(43, 0, r.now).status == CancelStatus::Waiting);
    CHECK(r.m.grant_taken(w, r.l.server));
    CHECK(r.m.begin_cancel(43, 0, r.now).status == CancelStatus::Forward);
  }
  SECTION("a console") {
    const ClientId console = *r.m.add_client(1, true);
    REQUIRE(r.m.set_cancel_key(console, 44, true));
    const CancelResult c = r.m.begin_cancel(44, 0, r.now);
    CHECK(c.status == CancelStatus::Console);
    CHECK(c.client == console);
    CHECK(c.worker == 1);
  }
  SECTION("a client that is gone") {
    r.closed(r.l.server);
    r.leave(r.l.client);
    CHECK(r.begin().status == CancelStatus::NotFound);
    const ClientId next = r.client();
    CHECK(r.m.set_cancel_key(next, 42, false));
  }
}

TEST_CASE("keys are unique", "[cancel]") {
  CancelRig r;
  const ClientId other = r.client();
  CHECK_FALSE(r.m.set_cancel_key(other, 42, false));
  CHECK(r.m.set_cancel_key(r.l.client, 42, false));
  CHECK(r.m.set_cancel_key(r.l.client, 50, false));
  r.check();
  CHECK(r.begin().status == CancelStatus::NotFound);
  CHECK(r.m.set_cancel_key(other, 42, false));
}

TEST_CASE("a cancel that was not confirmed ends with the query", "[cancel]") {
  CancelRig r;
  const CancelResult c = r.begin();
  SECTION("the server is released") {
    r.release(r.l.server);
    const Action a = r.only(ActionKind::AbandonCancel);
    CHECK(a.cancel == c.cancel);
    CHECK(a.worker == 0);  // where the client is, and so the connection that carries it
    CHECK(r.snap(r.p).sv_idle == 1);
    SECTION("even if the same client gets the same server again") {
      REQUIRE(r.acquire(r.l.client, r.p).server == r.l.server);
    }
  }
  SECTION("the server is released for a reset") {
    r.release(r.l.server, ReleaseKind::NeedsTest);
    CHECK(r.only(ActionKind::AbandonCancel).cancel == c.cancel);
  }
  SECTION("the server begins to close") {
    r.closing(r.l.server);
    CHECK(r.only(ActionKind::AbandonCancel).cancel == c.cancel);
  }
  SECTION("the server is gone") {
    r.closed(r.l.server);
    CHECK(r.only(ActionKind::AbandonCancel).cancel == c.cancel);
  }
  SECTION("the client is gone") {
    r.leave(r.l.client);
    CHECK(r.next(ActionKind::AbandonCancel).cancel == c.cancel);
    r.only(ActionKind::CloseServer);
  }
  CHECK_FALSE(r.m.confirm_cancel(c.cancel));
  r.end(c, true);  // stale: nothing happens
  CHECK(r.out.empty());
  CHECK(r.m.totals().cancels == 0);
  CHECK(r.snap(r.p).cl_waiting_cancel_req == 0);
}

TEST_CASE("a cancel that never was sent just ends", "[cancel]") {
  CancelRig r;
  const CancelResult c = r.begin();
  r.end(c, false);
  CHECK_FALSE(r.m.close_needed(r.l.server));
  CHECK(r.m.totals().cancels == 0);
}

TEST_CASE("a server with a cancel in flight is parked until it ends", "[cancel]") {
  CancelRig r;
  const CancelResult c1 = r.sent();
  const CancelResult c2 = r.sent();
  const ClientId w = r.waiting(r.p);
  r.release(r.l.server);
  CHECK(r.out.empty());
  CHECK(r.snap(r.p).sv_being_canceled == 1);
  CHECK(r.m.being_canceled(r.l.server));
  CHECK(r.begin().status == CancelStatus::NotFound);
  SECTION("delivered") {
    r.end(c1, true);
    CHECK(r.out.empty());
    r.end(c2, true);
    CHECK(r.only(ActionKind::Grant).client == w);
  }
  SECTION("fate unknown") {
    r.end(c1, false);
    const Action close = r.only(ActionKind::CloseServer);
    CHECK(close.reason == "close_needed");
    r.closed(r.l.server);
    r.only(ActionKind::OpenServer);
    CHECK(r.snap(r.p).cl_active_cancel_req == 1);  // the second goes on without its server
    r.end(c2, false);
    CHECK(r.m.totals().cancels == 0);
  }
  SECTION("the server dies") {
    r.closed(r.l.server);
    CHECK(r.count(ActionKind::OpenServer) == 1);
    r.end(c1, true);
    r.end(c2, true);
    CHECK(r.m.totals().cancels == 0);
  }
}

TEST_CASE("a cancel that arrives late during a reset parks the server after it", "[cancel]") {
  CancelRig r;
  const CancelResult c = r.sent();
  r.release(r.l.server, ReleaseKind::NeedsTest);
  CHECK(r.snap(r.p).sv_tested == 1);
  SECTION("ends after the reset") {
    r.release(r.l.server);
    CHECK(r.snap(r.p).sv_being_canceled == 1);
    r.end(c, true);
  }
  SECTION("ends before the reset") {
    r.end(c, true);
    r.release(r.l.server);
  }
  CHECK(r.snap(r.p).sv_idle == 1);
}

TEST_CASE("an undelivered cancel during the query recycles the server at release", "[cancel]") {
  CancelRig r;
  const CancelResult c = r.sent();
  r.end(c, false);
  CHECK(r.out.empty());
  CHECK(r.m.close_needed(r.l.server));
  r.release(r.l.server);
  CHECK(r.only(ActionKind::CloseServer).reason == "close_needed");
}

namespace {

/// Requests until one has to wait, every other one of them sent; that one is the last.
std::vector<CancelResult> fill(CancelRig& r) {
  std::vector<CancelResult> all;
  for (;;) {
    all.push_back(r.begin());
    REQUIRE(all.back().status == CancelStatus::Forward);
    if (r.m.cancel_turn(all.back().cancel) == CancelTurn::Wait) return all;
    if (all.size() % 2 == 0) REQUIRE(r.m.confirm_cancel(all.back().cancel));
  }
}

}  // namespace

TEST_CASE("cancel requests in flight are limited to twice pool_size, the others wait", "[cancel]") {
  const auto pool_size = GENERATE(1U, 3U);
  CancelRig r(pool_size);
  const std::vector<CancelResult> all = fill(r);
  CHECK(all.size() == 2 * pool_size + 1);
  CHECK(r.snap(r.p).cl_waiting_cancel_req == pool_size + 1);
  CHECK(r.snap(r.p).cl_active_cancel_req == pool_size);
  CHECK_FALSE(r.m.confirm_cancel(all.back().cancel));  // not its turn
  const CancelResult next = r.begin();
  CHECK(r.m.cancel_turn(next.cancel) == CancelTurn::Wait);
  r.end(all.front(), true);
  CHECK(r.only(ActionKind::StartCancel).cancel == all.back().cancel);
  CHECK(r.m.cancel_turn(all.back().cancel) == CancelTurn::Now);
  CHECK(r.m.confirm_cancel(all.back().cancel));
  SECTION("one that gives up waiting changes nothing for the others") {
    r.end(next, false);
    CHECK(r.out.empty());
    CHECK_FALSE(r.m.close_needed(r.l.server));
    CHECK(r.m.cancel_turn(next.cancel) == CancelTurn::Over);
  }
  SECTION("a larger pool has room at once") {
    r.pool("db", "u", Rig::size(pool_size + 1));
    CHECK(r.only(ActionKind::StartCancel).cancel == next.cancel);
  }
  SECTION("with the query its waiting requests end too") {
    r.release(r.l.server);
    CHECK(r.count(ActionKind::StartCancel) == 0);
    CHECK(r.count(ActionKind::AbandonCancel) == pool_size);  // those that were not sent
    CHECK(r.m.cancel_turn(next.cancel) == CancelTurn::Over);
    CHECK(r.snap(r.p).cl_waiting_cancel_req == 0);
    CHECK(r.snap(r.p).sv_being_canceled == 1);
  }
}

TEST_CASE("a request of another query gets the place of one that has ended", "[cancel]") {
  CancelRig r(2);
  const auto other = r.linked(r.p, 1);
  REQUIRE(r.m.set_cancel_key(other.client, 43, false));
  const std::vector<CancelResult> all = fill(r);
  r.end(all.back(), false);
  const CancelResult waits = r.m.begin_cancel(43, 0, r.now);
  REQUIRE(r.m.cancel_turn(waits.cancel) == CancelTurn::Wait);
  CHECK(waits.worker == 1);
  r.release(r.l.server);  // ends the requests for it that were not sent
  CHECK(r.count(ActionKind::AbandonCancel) == 2);
  CHECK(r.out.back().kind == ActionKind::StartCancel);
  CHECK(r.out.back().cancel == waits.cancel);
  CHECK(r.out.back().worker == 1);
}

TEST_CASE("a pool without a size limit takes 100 cancel requests at once", "[cancel]") {
  CancelRig r(0);
  CHECK(fill(r).size() == 101);
}

TEST_CASE("too many waiting cancel requests are dropped", "[cancel]") {
  CancelRig r(1);
  fill(r);
  for (int i = 1; i < 1000; ++i) REQUIRE(r.m.begin_cancel(42, 0, r.now).status == CancelStatus::Forward);
  CHECK(r.begin().status == CancelStatus::LimitReached);
}

}  // namespace pgweir::pool::test
