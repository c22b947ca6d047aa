// A PoolManager with a hand-turned clock and short helpers, for tests of the form event -> actions. After every event
// the invariants are checked.
#pragma once

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "pool/pool_manager.hpp"

namespace pgweir::pool::test {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Rig {
 public:
  explicit Rig(WorkerId workers = 1, Duration slack = milliseconds(1), std::uint32_t max_client_conn = 1000)
      : m(ManagerSettings{workers, slack, max_client_conn}) {}

  PoolManager m;
  TimePoint now{seconds(1000)};
  Actions out;

  static PoolSettings size(std::uint32_t n) {
    PoolSettings s;
    s.pool_size = n;
    return s;
  }

  PoolId pool(const std::string& db, const std::string& user, const PoolSettings& s) {
    const PoolId id = m.set_pool(db, user, s, now, out);
    check();
    return id;
  }
  ClientId client(WorkerId worker = 0) {
    const auto id = m.add_client(worker);
    REQUIRE(id);
    return *id;
  }
  /// A client of the database and user of `p`, still logging in.
  ClientId bound(PoolId p, WorkerId worker = 0) {
    const ClientId c = client(worker);
    const auto [db, user] = m.pool_name(p);
    REQUIRE(m.bind_client(c, db, user) == ClientLimit::Ok);
    return c;
  }
  /// A client that has logged in to `p`.
  ClientId attached(PoolId p, WorkerId worker = 0) {
    const ClientId c = bound(p, worker);
    m.attach_client(c, p, now, out);
    check();
    return c;
  }
  AcquireResult acquire(ClientId c, PoolId p) {
    const AcquireResult r = m.acquire(c, p, now, out);
    check();
    return r;
  }
  /// Acquire that must queue; returns the client.
  ClientId waiting(PoolId p, WorkerId worker = 0) {
    const ClientId c = attached(p, worker);
    REQUIRE(acquire(c, p).status == AcquireStatus::Queued);
    return c;
  }
  void ready(ServerId s) {
    m.server_ready(s, {7, "secret"}, now, out);
    check();
  }
  void release(ServerId s, ReleaseKind kind = ReleaseKind::Clean) {
    m.release(s, kind, now, out);
    check();
  }
  void closing(ServerId s) {
    m.server_closing(s, now, out);
    check();
  }
  void closed(ServerId s, CloseKind kind = CloseKind::Normal, std::string_view message = {}) {
    m.server_closed(s, kind, message, now, out);
    check();
  }
  void arrived(ServerId s) {
    m.server_arrived(s, now, out);
    check();
  }
  /// What the workers do at the end of their batches: answers every OfferIdle. Checking the invariants allocates.
  void offers(bool checked = true) {
    for (std::size_t i = 0; i < out.size();) {
      const Action a = out[i];
      if (a.kind != ActionKind::OfferIdle) {
        ++i;
        continue;
      }
      out.erase(out.begin() + static_cast<std::ptrdiff_t>(i));
      m.offer_idle(a.worker, a.pool, now, out);
      if (checked) check();
    }
  }
  void leave(ClientId c) {
    m.remove_client(c, now, out);
    check();
  }
  void advance(Duration d) { now += d; }
  /// Moves the clock and runs what is due then.
  void pass(Duration d) {
    now += d;
    m.on_time(now, out);
    REQUIRE(m.next_deadline() > now);
    check();
  }
  void check() { m.check_invariants(now); }

  /// Takes the oldest action, which must be of `kind`.
  Action next(ActionKind kind) {
    REQUIRE_FALSE(out.empty());
    Action a = out.front();
    out.erase(out.begin());
    REQUIRE(a.kind == kind);
    return a;
  }
  /// Like next, and there are no further ones.
  Action only(ActionKind kind) {
    REQUIRE(out.size() == 1);
    return next(kind);
  }
  [[nodiscard]] std::size_t count(ActionKind kind) const {
    std::size_t n = 0;
    for (const Action& a : out) n += a.kind == kind ? 1 : 0;
    return n;
  }

  /// Opens a server for a fresh client and leaves the two linked and the grant taken.
  struct Linked {
    ClientId client;
    ServerId server;
  };
  Linked linked(PoolId p, WorkerId worker = 0) {
    out.clear();
    const ClientId c = waiting(p, worker);
    const ServerId s = only(ActionKind::OpenServer).server;
    ready(s);
    const Action grant = next(ActionKind::Grant);
    REQUIRE(grant.client == c);
    REQUIRE(grant.server == s);
    REQUIRE(m.grant_taken(c, s));
    return {c, s};
  }
  /// An idle server of `p` on `worker`, made by a client that has left.
  ServerId idle(PoolId p, WorkerId worker = 0) {
    const Linked l = linked(p, worker);
    release(l.server);
    leave(l.client);
    REQUIRE(out.empty());
    return l.server;
  }
  std::vector<ServerId> idles(PoolId p, std::size_t n, WorkerId worker = 0) {
    std::vector<Linked> all;
    std::vector<ServerId> ids;
    for (std::size_t i = 0; i < n; ++i) all.push_back(linked(p, worker));
    for (const Linked& l : all) {
      advance(milliseconds(1));
      release(l.server);
      leave(l.client);
      ids.push_back(l.server);
    }
    REQUIRE(out.empty());
    return ids;
  }
  PoolSnapshot snap(PoolId p) const { return *m.pool_snapshot(p, now); }
};

}  // namespace pgweir::pool::test
