// Pools that are spread over the hosts of a database: limits per host, clients that wait for a host to be chosen, what
// a host that cannot be reached means for those who wait.
#include "rig.hpp"

namespace pgweir::pool::test {

namespace {

/// One pool whose clients wait in `home` until they are sent to `a` or `b`.
struct HostRig : Rig {
  explicit HostRig(std::uint32_t max_db_connections = 0, PoolSettings settings = size(2)) {
    settings.patient = true;
    m.set_database_limits("db", {max_db_connections, 0});
    PoolSettings held = settings;
    held.held = true;
    home = pool("db", "u", held);
    a = m.set_pool("db", "u", settings, now, out, "a:1");
    b = m.set_pool("db", "u", settings, now, out, "b:2");
    check();
  }
  ClientId sent_to(PoolId host) {
    const ClientId c = attached(home);
    REQUIRE(acquire(c, host).status == AcquireStatus::Queued);
    return c;
  }
  PoolId home, a, b;
};

}  // namespace

TEST_CASE("a pool of one host is found by its host", "[hosts]") {
  HostRig r;
  CHECK(r.m.find_pool("db", "u") == r.home);
  CHECK(r.m.find_pool("db", "u", "a:1") == r.a);
  CHECK(r.m.find_pool("db", "u", "c:3") == PoolId{});
  CHECK(r.m.pool_host(r.b) == "b:2");
  CHECK(r.m.pool_host(r.home).empty());
  CHECK(r.m.pool_name(r.a) == std::pair<std::string, std::string>("db", "u"));
}

TEST_CASE("whoever is held waits without a server being opened", "[hosts]") {
  HostRig r;
  const ClientId c = r.attached(r.home);
  CHECK(r.acquire(c, r.home).status == AcquireStatus::Queued);
  r.pass(seconds(100));
  CHECK(r.out.empty());
  CHECK(r.m.pool_snapshot(r.home, r.now)->cl_waiting == 1);
  r.m.stop_waiting(c, r.now, r.out);
  CHECK(r.m.acquire_again(c, r.a, r.now - seconds(100), r.now, r.out).status == AcquireStatus::Queued);
  r.check();
  CHECK(r.only(ActionKind::OpenServer).pool == r.a);
}

TEST_CASE("each host has its own pool_size and max_db_connections", "[hosts]") {
  HostRig r(1);
  (void)r.sent_to(r.a);
  (void)r.sent_to(r.a);
  (void)r.sent_to(r.b);
  CHECK(r.count(ActionKind::OpenServer) == 2);
  CHECK(r.out[0].pool == r.a);
  CHECK(r.out[1].pool == r.b);
  CHECK(r.m.database_snapshots().at(0).current_connections == 2);
  r.out.clear();
  r.m.set_database_limits("db", {2, 0});
  r.pass(Duration(1));
  CHECK(r.only(ActionKind::OpenServer).pool == r.a);
}

TEST_CASE("min_pool_size holds on every host while clients are there", "[hosts]") {
  PoolSettings settings = Rig::size(2);
  settings.min_pool_size = 1;
  HostRig r(0, settings);
  CHECK(r.out.empty());
  const ClientId c = r.attached(r.home);
  CHECK(r.count(ActionKind::OpenServer) == 2);
  const ServerId on_a = r.out[0].server;
  r.out.clear();
  r.ready(on_a);
  r.leave(c);
  r.pass(std::chrono::hours(1));
  CHECK(r.count(ActionKind::CloseServer) == 1);
}

TEST_CASE("a host that cannot be reached fails nobody", "[hosts]") {
  HostRig r;
  const ClientId first = r.sent_to(r.a);
  const ServerId good = r.next(ActionKind::OpenServer).server;
  r.ready(good);
  REQUIRE(r.next(ActionKind::Grant).client == first);
  REQUIRE(r.m.grant_taken(first, good));
  const ClientId c = r.attached(r.home);
  (void)r.acquire(c, r.a);
  r.closing(good);
  r.closed(good);
  const ServerId again = r.next(ActionKind::OpenServer).server;
  SECTION("it waits, and goes on as soon as the host is there again") {
    r.closed(again, CloseKind::LoginFailed, "refused");
    const ClientId late = r.attached(r.home);
    CHECK(r.acquire(late, r.a).status == AcquireStatus::Queued);
    CHECK(r.count(ActionKind::OpenServer) == 0);
    r.m.end_login_pause(r.a, r.now, r.out);
    r.check();
    CHECK(r.count(ActionKind::OpenServer) == 0);  // not in a loop with whoever keeps saying so
    r.pass(milliseconds(200));
    CHECK(r.count(ActionKind::OpenServer) == 1);
  }
  SECTION("one that refuses us does, and its pause lasts") {
    r.closed(again, CloseKind::LoginRejected, "wrong password");
    CHECK(r.next(ActionKind::RejectClient).client == c);
    r.m.end_login_pause(r.a, r.now, r.out);
    CHECK(r.acquire(c, r.a).status == AcquireStatus::Failing);
  }
}

TEST_CASE("recycling a pool leaves those of other hosts alone", "[hosts]") {
  HostRig r;
  const ServerId on_a = r.linked(r.a).server;
  const ServerId on_b = r.linked(r.b).server;
  r.release(on_b);
  r.out.clear();
  r.m.recycle_pool(r.a, 1, r.now, r.out);
  r.check();
  CHECK(r.out.empty());
  r.release(on_a);
  CHECK(r.only(ActionKind::CloseServer).server == on_a);
  CHECK_FALSE(r.m.close_needed(on_b));
  const ServerId fresh = r.idle(r.a);
  r.out.clear();
  r.m.recycle_pool(r.a, 1, r.now, r.out);
  CHECK(r.out.empty());
  r.m.recycle_pool(r.a, 2, r.now, r.out);
  CHECK(r.only(ActionKind::CloseServer).server == fresh);
}

TEST_CASE("the servers of one host can be waited for", "[hosts]") {
  HostRig r;
  const ServerId on_a = r.linked(r.a).server;
  (void)r.linked(r.b);
  r.out.clear();
  r.m.wait_for(PoolManager::WaitFor::NoActiveServers, "db", 0, 7, r.now, r.out, "a:1");
  CHECK(r.out.empty());
  r.release(on_a);
  CHECK(r.only(ActionKind::WaitOver).token == 7);
  r.m.wait_for(PoolManager::WaitFor::NoActiveServers, "db", 0, 8, r.now, r.out, "c:3");
  CHECK(r.only(ActionKind::WaitOver).token == 8);
}

TEST_CASE("a pool ends after its parts", "[hosts]") {
  PoolSettings settings = Rig::size(2);
  settings.pool_idle_timeout = seconds(10);
  HostRig r(0, settings);
  r.pass(seconds(10));
  CHECK(r.m.find_pool("db", "u", "a:1") == PoolId{});
  r.pass(seconds(10));
  CHECK(r.m.find_pool("db", "u") == PoolId{});
  CHECK(r.m.totals().pools == 0);
}

}  // namespace pgweir::pool::test
