// The random events of the model: what clients, servers, the console and the clock may do at any moment.
#include <algorithm>

#include "pool/cancel_key.hpp"
#include "random_world.hpp"

namespace pgweir::pool::test {

using std::chrono::milliseconds;

template <class Map, class Pred>
typename Map::iterator World::any_of(Map& map, Pred pred) {
  std::vector<typename Map::iterator> fitting;
  for (auto it = map.begin(); it != map.end(); ++it) {
    if (pred(it->second)) fitting.push_back(it);
  }
  return fitting.empty() ? map.end() : fitting[below(fitting.size())];
}

void World::configure() {
  const std::uint64_t databases = 1 + below(3), users = 1 + below(3);
  for (std::uint64_t d = 0; d < databases; ++d) databases_.push_back("db" + std::to_string(d));
  for (std::uint64_t u = 0; u < users; ++u) users_.push_back("user" + std::to_string(u));
  own_percent_ = chance(50) ? 25 : 0;
  configure_limits();
  configure_peers();
  for (const std::string& db : databases_) {
    for (const std::string& user : users_) {
      call(any_worker(), [&](Actions& out) { pools_.push_back(m_.set_pool(db, user, {}, now_, out)); });
      configure_pool(pools_.back());
    }
  }
}

void World::configure_limits() {
  for (const std::string& db : databases_) {
    database_max_[db] = chance(60) ? static_cast<std::uint32_t>(1 + below(5)) : 0;
    m_.set_database_limits(db, {database_max_[db], 0});
  }
  for (const std::string& user : users_) {
    user_max_[user] = chance(30) ? static_cast<std::uint32_t>(1 + below(5)) : 0;
    m_.set_user_limits(user, {user_max_[user], 0});
  }
}

void World::configure_peers() {
  std::vector<PeerLimits> peers;
  peer_max_.clear();
  for (std::uint16_t id = 1; id <= 3; ++id) {
    if (chance(30)) continue;
    const auto size = static_cast<std::uint32_t>(1 + below(3));
    peers.push_back({id, size});
    peer_max_[id] = size;
  }
  call(any_worker(), [&](Actions& out) { m_.set_peers(static_cast<std::uint16_t>(99), peers, out); });
}

void World::configure_pool(PoolId pool) {
  PoolSettings s;
  s.pool_size = chance(5) ? 0 : static_cast<std::uint32_t>(1 + below(4));
  s.min_pool_size = chance(30) ? static_cast<std::uint32_t>(below(4)) : 0;
  s.reserve_pool_size = static_cast<std::uint32_t>(below(3));
  s.reserve_pool_timeout = milliseconds(below(50));
  s.max_pool_logins = static_cast<std::uint32_t>(below(4));
  s.server_idle_timeout = milliseconds(below(3000));
  s.server_lifetime = chance(10) ? Duration::zero() : milliseconds(200 + below(10'000));
  s.server_login_retry = milliseconds(below(50));
  s.server_check_delay = milliseconds(below(20));
  s.server_round_robin = chance(30);
  s.forced_user = chance(20);
  s.server_fast_close = chance(30);
  settings_[pool] = s;
  const auto [db, user] = m_.pool_name(pool);
  call(any_worker(), [&, d = db, u = user](Actions& out) { (void)m_.set_pool(d, u, s, now_, out); });
}

void World::step() {
  ++steps_;
  const std::uint64_t dice = below(1000);
  if (dice < 300) {
    deliver_any();
  } else if (dice < 520) {
    client_acts();
  } else if (dice < 600) {
    client_arrives();
  } else if (dice < 800) {
    server_acts();
  } else if (dice < 840) {
    server_fails();
  } else if (dice < 920) {
    cancel_acts();
  } else if (dice < 930) {
    console_acts();
  } else if (dice < 950) {
    stale_message();
  } else if (dice < 955) {
    configure_pool(any_pool());
  } else if (dice < 958) {
    chance(50) ? configure_limits() : configure_peers();
  } else {
    pass_time(chance(20) ? milliseconds(below(100)) : Duration(below(1000)));
  }
  now_ += Duration(below(200));
  pass_time(Duration::zero());
  check();
}

void World::client_arrives() {
  const WorkerId worker = any_worker();
  const auto id = m_.add_client(worker);
  must(id.has_value() == (clients_.size() < 40), "max_client_conn is not exact");
  if (!id) return;
  Client& c = clients_[*id];
  c.worker = worker;
  c.pool = any_pool();
  c.key = next_key_++;
  must(m_.set_cancel_key(*id, c.key, false), "a fresh key was refused");
  const auto [db, user] = m_.pool_name(c.pool);
  must(m_.bind_client(*id, db, user) == ClientLimit::Ok, "an unlimited client was refused");
  c.own = chance(own_percent_);
  c.attached = chance(80);
  const PoolId pool = c.pool;
  if (c.attached) call(worker, [&](Actions& out) { m_.attach_client(*id, pool, now_, out); });
}

void World::client_acts() {
  const auto found =
      any_of(clients_, [&](const Client& c) { return !calm_ || c.mood == Mood::Running || !c.attached; });
  if (found == clients_.end()) return;
  const ClientId id = found->first;
  Client& c = found->second;
  if (!calm_ && chance(8)) {
    close_client(id, chance(70));
    return;
  }
  switch (c.mood) {
    case Mood::Idle:
      if (!c.attached) {
        c.attached = true;
        call(c.worker, [&](Actions& out) { m_.attach_client(id, clients_.at(id).pool, now_, out); });
      } else if (!calm_) {
        acquire(id, false);
      }
      break;
    case Mood::Running:
      if (c.own) {  // ends with its server; that it gives it back must do no harm either
        close_client(id, chance(20));
      } else {
        release(c.server);
      }
      break;
    case Mood::Waiting:
      if (calm_ || chance(90)) break;
      c.mood = Mood::Idle;
      forget_wait(id);
      call(c.worker, [&](Actions& out) { m_.stop_waiting(id, now_, out); });
      break;
  }
}

void World::acquire(ClientId id, bool again) {
  const Client before = clients_.at(id);
  if (!again) clients_.at(id).since = now_;
  clients_.at(id).mood = Mood::Waiting;
  if (before.own) {
    queued_own_[before.pool].insert(id);
    call(before.worker, [&](Actions& out) { m_.acquire_dedicated(id, before.pool, now_, out); });
    return;
  }
  queued_[before.pool].insert(id);
  AcquireResult result;
  call(before.worker, [&](Actions& out) {
    result =
        again ? m_.acquire_again(id, before.pool, before.since, now_, out) : m_.acquire(id, before.pool, now_, out);
    if (result.status == AcquireStatus::Queued) return;
    queued_[before.pool].erase(id);
    clients_.at(id).mood = Mood::Idle;
    if (result.status == AcquireStatus::Granted) {
      for (const ClientId other : queued_[before.pool]) {
        must(slack_ > Duration(0) && clients_.at(other).since + slack_ >= clients_.at(id).since,
             "a newcomer overtook a waiter by more than fifo_slack");
      }
      must(!servers_.at(result.server).assigned, "granted although assigned to another");
      run(id, result.server);
    }
  });
  if (result.status != AcquireStatus::Failing) return;
  must(before.attached, "a login failed fast");
  for (const auto& [sid, s] : servers_) {
    must(s.pool != before.pool || s.cut || s.phase == Phase::Closing, "failed fast with a live server");
  }
}

void World::server_acts() {
  const auto found = any_of(servers_, [](const Server& s) {
    return s.phase == Phase::Connecting || s.phase == Phase::Testing || s.phase == Phase::Closing;
  });
  if (found == servers_.end()) return;
  const ServerId id = found->first;
  switch (found->second.phase) {
    case Phase::Connecting:
      if (calm_ || chance(75)) {
        found->second.phase = Phase::Free;
        call(found->second.at, [&](Actions& out) { m_.server_ready(id, {1, "k"}, now_, out); });
      } else {
        const auto kind = std::vector{CloseKind::LoginFailed, CloseKind::LoginRejected, CloseKind::ServerNotReadyYet,
                                      CloseKind::Normal}[below(4)];
        if (chance(50)) begin_close(id, true);
        finish_close(id, kind);
      }
      break;
    case Phase::Testing:
      release(id);
      break;
    default:
      finish_close(id, CloseKind::Normal);
      break;
  }
}

void World::server_fails() {
  const auto found = any_of(servers_, [](const Server& s) {
    return s.phase == Phase::Free || s.phase == Phase::Linked || s.phase == Phase::Testing || s.phase == Phase::Transit;
  });
  if (found == servers_.end()) return;
  const ServerId id = found->first;
  const ClientId user = found->second.client;
  if (chance(20)) {
    call(found->second.at, [&](Actions& out) { m_.recycle_server(id, now_, out); });
    return;
  }
  if (user) clients_.at(user).mood = Mood::Idle;
  const bool announced = chance(50);
  begin_close(id, announced);
  if (!announced || (servers_.contains(id) && chance(50))) finish_close(id, CloseKind::Normal);
  if (!user || !clients_.contains(user)) return;
  if (clients_.at(user).own) return close_client(user, true);
  if (clients_.at(user).mood == Mood::Idle && chance(60)) acquire(user, true);
}

void World::cancel_arrives() {
  const bool busy = chance(80);
  const auto found = any_of(clients_, [&](const Client& c) { return !busy || c.mood == Mood::Running; });
  if (found == clients_.end()) return;
  const Client& c = found->second;
  const CancelResult r = m_.begin_cancel(c.key, any_worker(), now_);
  if (r.status == CancelStatus::Forward) {
    must(c.mood == Mood::Running && r.server == c.server && r.worker == c.worker, "a cancel for another server");
    cancels_[r.cancel] = {.worker = c.worker,
                          .client = found->first,
                          .server = r.server,
                          .run = c.run,
                          .waiting = m_.cancel_turn(r.cancel) == CancelTurn::Wait};
    return;
  }
  const bool right = c.mood == Mood::Running   ? r.status == CancelStatus::LimitReached
                     : c.mood == Mood::Waiting ? r.status == CancelStatus::Waiting || r.status == CancelStatus::NotFound
                                               : r.status == CancelStatus::NotFound;
  must(right, "wrong answer to a cancel request");
}

void World::peer_cancel_arrives() {
  const auto peer = static_cast<std::uint16_t>(1 + below(4));
  const WorkerId worker = any_worker();
  // Made by the peer, and passed on some times already.
  const std::uint64_t hops = below(4);
  const std::uint64_t key = cancel_key::make(random_(), peer) - (3 - hops);
  const CancelResult r = m_.begin_cancel(key, worker, now_);
  must((r.status != CancelStatus::NotFound) == (peer_max_.contains(peer) && hops > 0), "wrong answer about a peer");
  if (r.status != CancelStatus::Peer) return;
  must(r.peer == peer && r.peer_key == key - 1 && r.worker == worker, "passed on wrongly");
  Cancel& cancel = cancels_[r.cancel] = {.worker = worker, .peer = peer};
  cancel.waiting = m_.cancel_turn(r.cancel) == CancelTurn::Wait;
  if (!cancel.waiting) check_peer(peer, peer_max_.at(peer));
}

/// After one more request has got a connection to `peer`.
void World::check_peer(std::uint16_t peer, std::uint32_t most) const {
  std::uint32_t open = 0;
  for (const auto& [id, cancel] : cancels_) open += cancel.peer == peer && !cancel.waiting ? 1 : 0;
  must(open <= most, "a peer's pool_size exceeded");
}

void World::cancel_acts() {
  if (!calm_ && chance(50)) return chance(70) ? cancel_arrives() : peer_cancel_arrives();
  const auto found = any_of(cancels_, [](const Cancel&) { return true; });
  if (found == cancels_.end()) return;
  const CancelId id = found->first;
  Cancel& cancel = found->second;
  const CancelTurn turn = m_.cancel_turn(id);
  must(turn == CancelTurn::Over || (turn == CancelTurn::Wait) == cancel.waiting, "a request missed its turn");
  if (!cancel.sent && turn != CancelTurn::Wait && chance(70)) {
    cancel.sent = m_.confirm_cancel(id);
    if (!cancel.sent) {
      cancels_.erase(id);
      return;
    }
    ++cancels_sent_;
    if (cancel.peer != 0) return;
    const auto c = clients_.find(cancel.client);
    must(c != clients_.end() && c->second.mood == Mood::Running && c->second.server == cancel.server &&
             c->second.run == cancel.run,
         "a cancel was confirmed for a query that is over");
    ++servers_.at(cancel.server).sent;
    return;
  }
  if (const auto s = servers_.find(cancel.server); cancel.sent && s != servers_.end()) --s->second.sent;
  const WorkerId worker = cancel.worker;
  cancels_.erase(id);
  call(worker, [&](Actions& out) { m_.end_cancel(id, chance(80), now_, out); });
}

void World::console_acts() {
  const std::string db = databases_[below(databases_.size())];
  call(any_worker(), [&](Actions& out) {
    switch (below(12)) {
      case 0:
        (void)m_.pause(db, now_, out);
        break;
      case 1:
      case 2:
      case 9:
        (void)m_.resume(db, now_, out);
        break;
      case 3:
        (void)m_.pause_all(now_, out);
        break;
      case 4:
      case 5:
      case 10:
      case 11:
        (void)m_.resume_all(now_, out);
        break;
      case 6:
        m_.reconnect(chance(50) ? db : "", now_, out);
        break;
      case 7:
        m_.kill(db, "database removed", now_, out);
        break;
      default:
        m_.reject_waiting("server shutting down", now_, out);
        break;
    }
  });
}

void World::stale_message() {
  if (old_servers_.empty()) return;
  const ServerId id = old_servers_[below(old_servers_.size())];
  call(any_worker(), [&](Actions& out) {
    m_.release(id, ReleaseKind::Clean, now_, out);
    m_.server_arrived(id, now_, out);
    m_.server_ready(id, {}, now_, out);
    m_.server_closing(id, now_, out);
    m_.server_closed(id, CloseKind::LoginRejected, "stale", now_, out);
    m_.recycle_server(id, now_, out);
    must(out.empty(), "a stale message did something");
  });
}

}  // namespace pgweir::pool::test
