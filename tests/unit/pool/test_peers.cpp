// Cancel requests that are for another process: the keys, who is asked, how often, and how many at once.
#include <set>

#include "pool/cancel_key.hpp"
#include "rig.hpp"

namespace pgweir::pool::test {

namespace {

constexpr std::uint64_t kOnes = ~std::uint64_t{0};

struct PeerRig : Rig {
  PeerRig() : Rig(2) { peers({{1, 9}, {2, 2}, {0x0301, 0}}); }
  void peers(const std::vector<PeerLimits>& all, std::uint16_t own = 1) {
    m.set_peers(own, all, out);
    check();
  }
  /// A request that came in with a key of `peer`, which may be passed on `hops` times more.
  CancelResult begin(std::uint16_t peer, std::uint64_t hops = 3, WorkerId worker = 0) {
    const CancelResult c = m.begin_cancel(key(peer, hops), worker, now);
    check();
    return c;
  }
  static std::uint64_t key(std::uint16_t peer, std::uint64_t hops) {
    return cancel_key::make(0x1122334455667788, peer) - (3 - hops);
  }
  void end(const CancelResult& c) {
    m.end_cancel(c.cancel, true, now, out);
    check();
  }
  PeerSnapshot snap(std::uint16_t id) const {
    for (const PeerSnapshot& peer : m.peer_snapshots()) {
      if (peer.id == id) return peer;
    }
    return {};
  }
};

}  // namespace

TEST_CASE("the layout of keys is PgBouncer's", "[cancel]") {
  // Bytes 1 and 2 hold the peer id, the low one first; the last two bits how often it may be passed on.
  CHECK(cancel_key::make(0, 0x1234) == 0x0034120000000003);
  CHECK(cancel_key::make(kOnes, 0x1234) == 0x7F3412FFFFFFFFFF);
  CHECK(cancel_key::make(0, 0) == 0);
  CHECK(cancel_key::make(kOnes, 0) == 0x7FFFFFFFFFFFFFFF);
  CHECK(cancel_key::peer(0x0034120000000003) == 0x1234);
  CHECK(cancel_key::peer(0x7FFFFF0000000000) == 0xFFFF);
  CHECK(cancel_key::hops(0x0034120000000003) == 3);
  CHECK(cancel_key::hops(0x00341200000000FC) == 0);
  CHECK(cancel_key::passed_on(0x0034120000000003) == 0x0034120000000002);
  CHECK(cancel_key::original(0x0034120000000000) == 0x0034120000000003);
}

TEST_CASE("45 bits of a key stay random", "[cancel]") {
  int random = 0, random_without_peers = 0;
  for (int bit = 0; bit < 64; ++bit) {
    const std::uint64_t one = std::uint64_t{1} << bit;
    random += cancel_key::make(one, 7) != cancel_key::make(0, 7) ? 1 : 0;
    random_without_peers += cancel_key::make(one, 0) != cancel_key::make(0, 0) ? 1 : 0;
  }
  CHECK(random == 45);
  CHECK(random_without_peers == 63);
}

TEST_CASE("a request for a peer is passed on with one hop less", "[cancel]") {
  PeerRig r;
  const auto hops = GENERATE(1U, 2U, 3U);
  const CancelResult c = r.begin(2, hops, 1);
  CHECK(c.status == CancelStatus::Peer);
  CHECK(c.peer == 2);
  CHECK(c.worker == 1);
  CHECK(c.peer_key == PeerRig::key(2, hops - 1));
  CHECK(r.m.cancel_turn(c.cancel) == CancelTurn::Now);
  CHECK(r.snap(2).sv_login == 1);
  CHECK(r.snap(2).cl_waiting_cancel_req == 1);
  CHECK(r.m.confirm_cancel(c.cancel));
  r.check();
  CHECK(r.snap(2).sv_login == 0);
  CHECK(r.snap(2).cl_waiting_cancel_req == 0);
  CHECK(r.snap(2).cl_active_cancel_req == 1);
  CHECK(r.snap(2).sv_active_cancel == 1);
  r.end(c);
  CHECK(r.m.totals().cancels == 0);
  CHECK(r.m.peer_snapshots().size() == 1);  // those that were used
}

TEST_CASE("what is not passed on", "[cancel]") {
  PeerRig r;
  CHECK(r.begin(2, 0).status == CancelStatus::NotFound);    // often enough
  CHECK(r.begin(3).status == CancelStatus::NotFound);       // nobody has this id
  CHECK(r.begin(1).status == CancelStatus::NotFound);       // our own, of a client that has left
  CHECK(r.begin(0x0103).status == CancelStatus::NotFound);  // the bytes the wrong way round
  CHECK(r.begin(0x0301).status == CancelStatus::Peer);
  r.peers({{2, 2}}, 0);  // no peering
  CHECK(r.begin(2).status == CancelStatus::NotFound);
}

TEST_CASE("processes that take each other for somebody else stop after three times", "[cancel]") {
  PeerRig a, b;
  a.peers({{7, 5}}, 1);
  b.peers({{7, 5}}, 2);
  std::uint64_t key = PeerRig::key(7, 3);
  int passed = 0;
  for (PeerRig* at = &a; at->m.begin_cancel(key, 0, at->now).status == CancelStatus::Peer; ++passed) {
    key = cancel_key::passed_on(key);
    at = at == &a ? &b : &a;
  }
  CHECK(passed == 3);
}

TEST_CASE("a request that was passed on finds the client", "[cancel]") {
  PeerRig r;
  const auto hops = GENERATE(0U, 1U, 2U, 3U);
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto l = r.linked(p);
  REQUIRE(r.m.set_cancel_key(l.client, PeerRig::key(1, 3), false));
  const CancelResult c = r.begin(1, hops);
  CHECK(c.status == CancelStatus::Forward);
  CHECK(c.client == l.client);
}

TEST_CASE("a client keeps its key when the peer id changes", "[cancel]") {
  PeerRig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto l = r.linked(p);
  const auto id = GENERATE(1U, 2U, 0U);
  REQUIRE(r.m.set_cancel_key(l.client, cancel_key::make(0x1122334455667788, static_cast<std::uint16_t>(id)), false));
  r.peers({{1, 5}, {2, 5}}, 3);
  CHECK(r.m.begin_cancel(cancel_key::make(0x1122334455667788, static_cast<std::uint16_t>(id)), 0, r.now).status ==
        CancelStatus::Forward);
}

TEST_CASE("without peering a key with other last bits is another key", "[cancel]") {
  PeerRig r;
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const auto l = r.linked(p);
  REQUIRE(r.m.set_cancel_key(l.client, 0x13, false));
  r.peers({}, 0);
  CHECK(r.m.begin_cancel(0x12, 0, r.now).status == CancelStatus::NotFound);
  CHECK(r.m.begin_cancel(0x13, 0, r.now).status == CancelStatus::Forward);
}

TEST_CASE("requests to a peer are limited by its pool_size", "[cancel]") {
  PeerRig r;
  const CancelResult a = r.begin(2), b = r.begin(2), c = r.begin(2, 3, 1), d = r.begin(2, 2);
  REQUIRE(r.m.confirm_cancel(a.cancel));
  CHECK(r.m.cancel_turn(b.cancel) == CancelTurn::Now);
  CHECK(r.m.cancel_turn(c.cancel) == CancelTurn::Wait);
  CHECK_FALSE(r.m.confirm_cancel(c.cancel));
  CHECK(r.snap(2).cl_waiting_cancel_req == 3);
  SECTION("in the order in which they came") {
    r.end(a);
    const Action start = r.only(ActionKind::StartCancel);
    CHECK(start.cancel == c.cancel);
    CHECK(start.worker == 1);
    r.end(b);
    CHECK(r.only(ActionKind::StartCancel).cancel == d.cancel);
  }
  SECTION("one that gives up leaves its place") {
    r.end(c);
    CHECK(r.out.empty());
    r.end(a);
    CHECK(r.only(ActionKind::StartCancel).cancel == d.cancel);
  }
  SECTION("a larger limit counts at once") {
    r.peers({{2, 3}});
    CHECK(r.only(ActionKind::StartCancel).cancel == c.cancel);
  }
  SECTION("a smaller one when enough have ended") {
    r.peers({{2, 1}});
    r.end(a);
    CHECK(r.out.empty());
    r.end(b);
    CHECK(r.only(ActionKind::StartCancel).cancel == c.cancel);
  }
  SECTION("a peer that has left: what is under way goes on") {
    r.peers({{3, 1}});
    CHECK(r.count(ActionKind::AbandonCancel) == 2);
    CHECK(r.m.cancel_turn(c.cancel) == CancelTurn::Over);
    CHECK(r.begin(2).status == CancelStatus::NotFound);
    CHECK(r.m.confirm_cancel(b.cancel));
    CHECK(r.snap(2).sv_active_cancel == 2);
    SECTION("and it may come back meanwhile") {
      r.peers({{2, 2}});
      CHECK(r.m.cancel_turn(r.begin(2).cancel) == CancelTurn::Wait);
    }
    r.end(a);
    r.end(b);
  }
  SECTION("other peers are not concerned") {
    CHECK(r.m.cancel_turn(r.begin(0x0301).cancel) == CancelTurn::Now);
  }
}

TEST_CASE("too many requests that wait for a peer are dropped", "[cancel]") {
  PeerRig r;
  for (int i = 0; i < 1002; ++i) REQUIRE(r.m.begin_cancel(PeerRig::key(2, 3), 0, r.now).status == CancelStatus::Peer);
  CHECK(r.begin(2).status == CancelStatus::LimitReached);
}

}  // namespace pgweir::pool::test
