// Deliveries, reactions and checks of the random model; its random events are in random_events.cpp.
#include "random_world.hpp"

#include <algorithm>
#include <stdexcept>

namespace pgweir::pool::test {

using std::chrono::milliseconds;
using std::chrono::seconds;

World::World(std::uint64_t seed)
    : random_(seed),
      workers_(static_cast<WorkerId>(1 + random_() % 4)),
      slack_(std::vector<Duration>{Duration(0), milliseconds(1), milliseconds(5)}[random_() % 3]),
      m_({workers_, slack_, 40}) {
  configure();
}

void World::fail(const std::string& what) const {
  throw std::runtime_error(what + " at step " + std::to_string(steps_));
}

// ---- the manager's calls ----

void World::call(WorkerId by, const std::function<void(Actions&)>& make) {
  Actions out;
  make(out);
  for (const Action& a : out) note(a);
  for (Action& a : out) {
    // A worker does its own part at once; that it sometimes comes late here only makes things harder.
    if (a.worker == by && chance(75)) {
      carry_out(by, {std::move(a), false});
    } else {
      mailboxes_[{by, a.worker}].push_back({std::move(a), false});
    }
  }
}

/// What a decision means the moment it is made, long before anybody hears of it.
void World::note(const Action& a) {
  switch (a.kind) {
    case ActionKind::OpenServer:
      note_open(a);
      break;
    case ActionKind::Grant:
    case ActionKind::MoveServer:
      note_assignment(a);
      break;
    case ActionKind::CloseServer: {
      Server& s = servers_.at(a.server);
      must(s.phase != Phase::Linked && s.phase != Phase::Transit, "a server in use or in transit was closed");
      must(s.at == a.worker, "CloseServer for the wrong worker");
      s.cut = true;
      if (s.own) unassign(s);
      if (a.reason == "evicted") ++evictions_;
      break;
    }
    case ActionKind::RejectClient:
    case ActionKind::DropClient:
      forget_wait(a.client);
      break;
    case ActionKind::StartCancel: {
      Cancel& cancel = cancels_.at(a.cancel);
      must(cancel.waiting && cancel.worker == a.worker, "StartCancel for the wrong request or worker");
      cancel.waiting = false;
      if (cancel.peer != 0) check_peer(cancel.peer, peer_max_.at(cancel.peer));
      break;
    }
    case ActionKind::FastClose:
      must(servers_.at(a.server).at == a.worker, "FastClose for the wrong worker");
      break;
    case ActionKind::AbandonCancel:
      if (const auto c = cancels_.find(a.cancel); c != cancels_.end()) {
        must(c->second.worker == a.worker, "AbandonCancel for the wrong worker");
        must(c->second.peer == 0 || c->second.waiting, "a request on its way to a peer was abandoned");
      }
      break;
    case ActionKind::OfferIdle:
    case ActionKind::ForgetPool:
    case ActionKind::WaitOver:
      break;
  }
}

void World::note_open(const Action& a) {
  ++opened_;
  must(!servers_.contains(a.server), "a server id was used twice");
  servers_[a.server] = {.pool = a.pool, .at = a.worker};
  if (a.client) note_own(a);
  const auto [db, user] = m_.pool_name(a.pool);
  must(!m_.is_paused(db), "a server was opened for a paused database");
  std::uint32_t in_pool = 0, in_db = 0, of_user = 0, logins = 0;
  for (const auto& [id, s] : servers_) {
    const auto [its_db, its_user] = m_.pool_name(s.pool);
    in_db += its_db == db ? 1 : 0;
    of_user += its_user == user ? 1 : 0;
    if (s.pool != a.pool) continue;
    ++in_pool;
    if (!s.cut && (s.phase == Phase::Ordered || s.phase == Phase::Connecting)) ++logins;
  }
  const PoolSettings& set = settings_[a.pool];
  must(set.pool_size == 0 || in_pool <= set.pool_size + set.reserve_pool_size, "pool_size exceeded");
  must((in_pool > set.pool_size && set.pool_size != 0) == !a.reason.empty(), "reserve notice missing or wrong");
  must(database_max_[db] == 0 || in_db <= database_max_[db], "max_db_connections exceeded");
  must(user_max_[user] == 0 || of_user <= user_max_[user], "max_user_connections exceeded");
  must(logins <= std::max<std::uint32_t>(set.max_pool_logins, 1), "max_pool_logins exceeded");
}

void World::note_own(const Action& a) {
  ++dedicated_;
  const Client& c = clients_.at(a.client);
  must(c.own && c.mood == Mood::Waiting && c.pool == a.pool, "a server for one client that does not want it");
  must(c.worker == a.worker, "a dedicated server is opened on another worker");
  must(queued_own_[a.pool].erase(a.client) == 1, "a second server for one client");
  for (const ClientId other : queued_own_[a.pool]) must(clients_.at(other).since >= c.since, "overtaken");
  servers_.at(a.server).own = true;
  servers_.at(a.server).assigned = a.client;
}

void World::note_assignment(const Action& a) {
  Server& s = servers_.at(a.server);
  must(s.own == clients_.at(a.client).own, "a server for the wrong kind of client");
  must(!s.own || (s.assigned == a.client && a.kind == ActionKind::Grant), "a dedicated server goes to another client");
  must(s.phase != Phase::Linked && !s.client, "a server in use was given away");
  must(s.sent == 0, "a server with a cancel in flight was given away");
  must(!s.assigned || s.assigned == a.client, "a server was given to two clients");
  must(s.at == a.worker, "action for the wrong worker");
  const Client& c = clients_.at(a.client);
  must(s.pool == a.pool, "a server of another pool");
  const bool arrived = s.assigned == a.client;
  s.assigned = a.client;
  must(a.kind == ActionKind::MoveServer ? c.worker == a.to && c.worker != a.worker : c.worker == a.worker,
       "a client on another worker");
  a.kind == ActionKind::MoveServer ? ++moves_ : ++grants_;
  if (arrived) return;
  for (auto& [id, other] : servers_) {  // it was put back because the one that was moving to it cannot be used
    if (id != a.server && other.assigned == a.client) {
      other.assigned = {};
      queued_[a.pool].insert(a.client);
    }
  }
  auto& waiting = queued_[a.pool];
  must(waiting.erase(a.client) == 1, "a grant for a client that does not wait");
  for (const ClientId other : waiting) {
    must(clients_.at(other).since + slack_ >= c.since, "overtaken by more than fifo_slack");
  }
}

// ---- deliveries ----

void World::deliver(WorkerId at, WorkerId from) {
  auto& box = mailboxes_[{from, at}];
  Message message = std::move(box.front());
  box.pop_front();
  carry_out(at, message);
}

void World::deliver_any() {
  std::vector<std::pair<WorkerId, WorkerId>> full;
  for (const auto& [key, box] : mailboxes_) {
    if (!box.empty()) full.push_back(key);
  }
  if (full.empty()) return;
  const auto [from, to] = full[below(full.size())];
  deliver(to, from);
}

void World::carry_out(WorkerId at, const Message& message) {
  const Action& a = message.action;
  const auto found = servers_.find(a.server);
  Server* s = found == servers_.end() || found->second.at != (message.arrival ? found->second.at : at) ? nullptr
                                                                                                       : &found->second;
  if (message.arrival) {
    if (s == nullptr || s->phase != Phase::Transit) return;
    s->at = at;
    s->phase = Phase::Free;
    const ClientId wanted = s->assigned;
    const std::uint64_t before = grants_;
    call(at, [&](Actions& out) { m_.server_arrived(a.server, now_, out); });
    const auto still = servers_.find(a.server);
    if (wanted && grants_ == before && still != servers_.end() && still->second.assigned == wanted) {
      unassign(still->second);
    }
    return;
  }
  switch (a.kind) {
    case ActionKind::OpenServer:
      must(s != nullptr && s->phase == Phase::Ordered, "OpenServer twice");
      s->phase = Phase::Connecting;
      if (!a.client) break;
      if (const auto c = clients_.find(a.client); c == clients_.end() || c->second.mood != Mood::Waiting) {
        finish_close(a.server, CloseKind::Normal);
      }
      break;
    case ActionKind::CloseServer:
      if (s == nullptr || s->phase == Phase::Ordered || s->phase == Phase::Closing) break;  // unknown here
      must(s->phase != Phase::Linked && s->phase != Phase::Transit, "told to close a server in use");
      s->phase = Phase::Closing;
      break;
    case ActionKind::Grant:
      carry_out_grant(a);
      break;
    case ActionKind::MoveServer:
      if (s == nullptr || s->phase != Phase::Free) break;
      s->phase = Phase::Transit;
      mailboxes_[{at, a.to}].push_back({a, true});
      break;
    case ActionKind::OfferIdle:
      call(at, [&](Actions& out) { m_.offer_idle(at, a.pool, now_, out); });
      break;
    case ActionKind::RejectClient:
      if (const auto c = clients_.find(a.client); c != clients_.end() && c->second.mood == Mood::Waiting) {
        close_client(a.client, true);
      }
      break;
    case ActionKind::DropClient:
      if (clients_.contains(a.client)) close_client(a.client, false);
      break;
    case ActionKind::AbandonCancel:
      if (const auto c = cancels_.find(a.cancel); c != cancels_.end()) {
        must(!c->second.sent, "a confirmed cancel was abandoned");
        cancels_.erase(c);
      }
      break;
    case ActionKind::StartCancel:
    case ActionKind::FastClose:
    case ActionKind::ForgetPool:
    case ActionKind::WaitOver:
      break;
  }
}

void World::carry_out_grant(const Action& a) {
  const auto c = clients_.find(a.client);
  const auto s = servers_.find(a.server);
  const bool holds = s != servers_.end() && s->second.assigned == a.client && s->second.phase == Phase::Free;
  // All the worker can see: its client waits, and it has the server, free.
  const bool plausible = c != clients_.end() && c->second.mood == Mood::Waiting && s != servers_.end() &&
                         s->second.at == a.worker && s->second.phase == Phase::Free;
  if (!plausible) {
    must(!holds, "a valid grant does not fit what its worker has");
    ++stale_grants_;
    return;
  }
  const bool taken = m_.grant_taken(a.client, a.server);
  must(taken == holds, "grant_taken is wrong");
  if (taken) {
    run(a.client, a.server);
  } else {
    ++stale_grants_;
  }
}

void World::run(ClientId id, ServerId server) {
  Client& c = clients_.at(id);
  Server& s = servers_.at(server);
  must(s.phase == Phase::Free && s.at == c.worker, "granted server is not free on the client's worker");
  must(s.sent == 0, "a client got a server with a cancel in flight");
  s.phase = Phase::Linked;
  s.client = id;
  s.assigned = {};
  c.mood = Mood::Running;
  c.server = server;
  ++c.run;
}

void World::unassign(Server& server) {
  if (!server.assigned) return;
  (server.own ? queued_own_ : queued_)[server.pool].insert(server.assigned);
  server.assigned = {};
  ++requeues_;
}

void World::forget_wait(ClientId id) {
  for (auto& [pool, waiting] : queued_) waiting.erase(id);
  for (auto& [pool, waiting] : queued_own_) waiting.erase(id);
  for (auto& [server, s] : servers_) {
    if (s.assigned == id) s.assigned = {};
  }
}

void World::begin_close(ServerId id, bool announce) {
  Server& s = servers_.at(id);
  unassign(s);
  s.phase = Phase::Closing;
  s.client = {};
  if (announce) call(s.at, [&](Actions& out) { m_.server_closing(id, now_, out); });
}

void World::finish_close(ServerId id, CloseKind kind) {
  Server s = servers_.at(id);
  unassign(s);
  servers_.erase(id);
  old_servers_.push_back(id);
  call(s.at, [&](Actions& out) { m_.server_closed(id, kind, "message", now_, out); });
}

void World::close_client(ClientId id, bool clean) {
  const Client c = clients_.at(id);
  if (c.mood == Mood::Running) {
    if (clean) {
      release(c.server);
    } else {
      begin_close(c.server, true);
    }
  }
  forget_wait(id);
  clients_.erase(id);
  call(c.worker, [&](Actions& out) { m_.remove_client(id, now_, out); });
}

void World::release(ServerId id) {
  Server& s = servers_.at(id);
  if (s.client) clients_.at(s.client).mood = Mood::Idle;
  const bool test = s.client && chance(20);
  s.client = {};
  s.phase = test ? Phase::Testing : Phase::Free;
  call(s.at, [&](Actions& out) { m_.release(id, test ? ReleaseKind::NeedsTest : ReleaseKind::Clean, now_, out); });
}

void World::pass_time(Duration d) {
  now_ += d;
  if (m_.next_deadline() > now_) return;
  call(any_worker(), [&](Actions& out) { m_.on_time(now_, out); });
  must(m_.next_deadline() > now_, "on_time left something due");
}

// ---- checks ----

bool World::quiet() const {
  const bool posted =
      std::any_of(mailboxes_.begin(), mailboxes_.end(), [](const auto& b) { return !b.second.empty(); });
  return !posted && std::all_of(servers_.begin(), servers_.end(), [](const auto& entry) {
    const Server& s = entry.second;
    return !s.cut && (s.phase == Phase::Free || s.phase == Phase::Linked);
  });
}

void World::check() {
  m_.check_invariants(now_);
  const Totals t = m_.totals();
  must(t.servers == servers_.size(), "servers are lost or made up");
  must(t.clients == clients_.size(), "clients are lost or made up");
  for (const PoolSnapshot& p : m_.pool_snapshots(now_)) {
    const std::size_t waiting = queued_[p.id].size() + queued_own_[p.id].size();
    must(p.cl_waiting >= waiting, "a waiter is forgotten");
  }
  if (quiet()) check_quiet();
}

void World::check_quiet() {
  for (const auto& [id, s] : servers_) {
    if (s.phase != Phase::Free || s.sent > 0) continue;
    must(!s.assigned, "a grant got lost");
    must(!s.own, "a dedicated server is idle");
    must(queued_[s.pool].empty(), "somebody waits beside an idle server");
  }
}

void World::calm_down() {
  calm_ = true;
  call(any_worker(), [&](Actions& out) { m_.resume_all(now_, out); });
  for (const std::string& db : databases_) call(any_worker(), [&](Actions& out) { m_.resume(db, now_, out); });
  const auto someone_waits = [&] {
    return std::any_of(clients_.begin(), clients_.end(), [](const auto& c) { return c.second.mood == Mood::Waiting; });
  };
  for (int round = 0; round < 2000 && someone_waits(); ++round) {
    ++steps_;
    deliver_any();
    server_acts();
    cancel_acts();
    if (chance(50)) client_acts();
    pass_time(milliseconds(below(100)));
    check();
  }
  for (const auto& [id, c] : clients_) must(c.mood != Mood::Waiting, "a client waits for ever");
  for (const auto* queues : {&queued_, &queued_own_}) {
    for (const auto& [pool, waiting] : *queues) must(waiting.empty(), "a queue is never emptied");
  }
}

void World::drain() {
  calm_ = true;
  for (const PoolId pool : pools_) {
    PoolSettings s = settings_[pool];
    s.min_pool_size = 0;
    s.forced_user = false;
    s.server_idle_timeout = milliseconds(100);
    settings_[pool] = s;
    const auto [db, user] = m_.pool_name(pool);
    call(any_worker(), [&, d = db, u = user](Actions& out) { (void)m_.set_pool(d, u, s, now_, out); });
  }
  while (!clients_.empty()) close_client(clients_.begin()->first, chance(50));
  for (int round = 0; round < 2000 && !(servers_.empty() && quiet() && cancels_.empty()); ++round) {
    ++steps_;
    deliver_any();
    server_acts();
    cancel_acts();
    pass_time(milliseconds(below(100)));
    check();
  }
  pass_time(seconds(100'000));
  const Totals t = m_.totals();
  must(servers_.empty() && t.servers == 0 && t.idle_servers == 0, "servers remain");
  must(t.clients == 0 && t.waiting_clients == 0 && t.login_clients == 0, "clients remain");
  must(t.cancels == 0 && cancels_.empty(), "cancel requests remain");
  must(m_.next_deadline() == kNever, "a deadline remains");
  for (const PoolSnapshot& p : m_.pool_snapshots(now_)) must(p.closing == 0 && p.cl_active == 0, "a count remains");
  for (const DatabaseSnapshot& d : m_.database_snapshots()) must(d.current_connections == 0, "a permit remains");
  for (const UserSnapshot& u : m_.user_snapshots()) must(u.current_connections == 0, "a permit remains");
}

}  // namespace pgweir::pool::test
