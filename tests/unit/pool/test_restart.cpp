// Connections that come from another process, and when nothing is in between two states.
#include "rig.hpp"

namespace pgweir::pool::test {

namespace {

AdoptedServer from_elsewhere(const Rig& r, WorkerId worker = 0) {
  return {.worker = worker, .key = {7, "1234"}, .created = r.now, .last_active = r.now};
}

}  // namespace

TEST_CASE("an adopted server is idle and serves the next client", "[restart]") {
  Rig r(2);
  const PoolId p = r.pool("db", "u", Rig::size(2));
  const ServerId s = r.m.adopt_server(p, from_elsewhere(r), {}, r.now, r.out);
  r.check();
  CHECK(r.m.totals().idle_servers == 1);
  const ClientId c = r.attached(p);
  const AcquireResult result = r.acquire(c, p);
  CHECK(result.status == AcquireStatus::Granted);
  CHECK(result.server == s);
}

TEST_CASE("an adopted pair goes on, and its server comes free", "[restart]") {
  Rig r(1);
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const ClientId c = r.attached(p), next = r.attached(p);
  const ServerId s = r.m.adopt_server(p, from_elsewhere(r), c, r.now, r.out);
  r.check();
  REQUIRE(r.acquire(next, p).status == AcquireStatus::Queued);
  CHECK(r.out.empty());  // the limit counts the adopted one
  r.m.release(s, ReleaseKind::Clean, r.now, r.out);
  CHECK(r.only(ActionKind::Grant).client == next);
}

TEST_CASE("no server is opened while others are adopted", "[restart]") {
  Rig r(1);
  r.m.set_opening(false, r.now, r.out);
  PoolSettings settings = Rig::size(2);
  settings.min_pool_size = 2;
  settings.forced_user = true;
  const PoolId p = r.pool("db", "u", settings);
  const ClientId c = r.attached(p);
  REQUIRE(r.acquire(c, p).status == AcquireStatus::Queued);
  r.pass(std::chrono::seconds(10));
  CHECK(r.out.empty());
  (void)r.m.adopt_server(p, from_elsewhere(r), {}, r.now, r.out);
  CHECK(r.only(ActionKind::Grant).client == c);
  r.m.set_opening(true, r.now, r.out);
  CHECK(r.only(ActionKind::OpenServer).pool == p);  // min_pool_size lacks one
  r.check();
}

TEST_CASE("what does not fit the limits is closed when it is free", "[restart]") {
  Rig r(1);
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const ClientId c = r.attached(p);
  const ServerId active = r.m.adopt_server(p, from_elsewhere(r), c, r.now, r.out);
  const ServerId idle = r.m.adopt_server(p, from_elsewhere(r), {}, r.now, r.out);
  CHECK(r.only(ActionKind::CloseServer).server == idle);
  r.closed(idle);
  r.m.release(active, ReleaseKind::Clean, r.now, r.out);
  CHECK(r.out.empty());
  CHECK(r.m.totals().idle_servers == 1);
}

TEST_CASE("a server that was to be closed is closed", "[restart]") {
  Rig r(1);
  const PoolId p = r.pool("db", "u", Rig::size(1));
  AdoptedServer server = from_elsewhere(r);
  server.close_needed = true;
  const ServerId s = r.m.adopt_server(p, server, {}, r.now, r.out);
  CHECK(r.only(ActionKind::CloseServer).server == s);
  CHECK(r.m.state_of(s).key.pid == 7);
}

TEST_CASE("at rest is what neither logs in, moves, is tested, closes, nor is granted or canceled", "[restart]") {
  Rig r(2);
  const PoolId p = r.pool("db", "u", Rig::size(2));
  CHECK(r.m.at_rest());
  const ClientId c = r.attached(p);
  REQUIRE(r.acquire(c, p).status == AcquireStatus::Queued);
  const ServerId s = r.only(ActionKind::OpenServer).server;
  CHECK_FALSE(r.m.at_rest());  // it logs in
  r.m.server_ready(s, {1, "abcd"}, r.now, r.out);
  CHECK_FALSE(r.m.at_rest());  // the grant is on its way
  r.only(ActionKind::Grant);
  REQUIRE(r.m.grant_taken(c, s));
  CHECK(r.m.at_rest());
  r.m.release(s, ReleaseKind::NeedsTest, r.now, r.out);
  CHECK_FALSE(r.m.at_rest());
  r.m.release(s, ReleaseKind::Clean, r.now, r.out);
  CHECK(r.m.at_rest());
  r.m.server_closing(s, r.now, r.out);
  CHECK_FALSE(r.m.at_rest());
  r.closed(s);
  CHECK(r.m.at_rest());
}

}  // namespace pgweir::pool::test
