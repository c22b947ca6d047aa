// Clients: counting them, their place in a queue, acquire, and every way of leaving.
#include <algorithm>

#include "pool/manager_impl.hpp"

namespace pgweir::pool {

std::optional<ClientId> PoolManager::add_client(WorkerId worker, bool exempt) {
  Impl& m = *impl_;
  PROXY_INVARIANT(worker < m.settings.workers);
  if (!exempt && m.counted_clients >= m.settings.max_client_conn) return std::nullopt;
  ClientSlot& client = m.clients.add();
  client.worker = worker;
  client.exempt = exempt;
  if (!exempt) ++m.counted_clients;
  return client.id;
}

void PoolManager::exempt_client(ClientId client) {
  ClientSlot* c = impl_->clients.find(client);
  if (c == nullptr || c->exempt) return;
  c->exempt = true;
  --impl_->counted_clients;
}

namespace {

// Anybody may claim any name, so what only a login knows about leaves with it.
template <class Map, class State>
void forget_unused(Map& map, const State& state) {
  if (state.clients == 0 && state.transient) map.erase(map.find(state.name));
}

}  // namespace

ClientLimit PoolManager::bind_client(ClientId client, std::string_view database, std::string_view user,
                                     const ClientLimits* limits) {
  Impl& m = *impl_;
  ClientSlot* c = m.clients.find(client);
  PROXY_INVARIANT(c != nullptr && c->database == nullptr);
  DatabaseState& db = Impl::named(m.databases, database);
  UserState& u = Impl::named(m.users, user);
  if (limits != nullptr) {
    db.max_clients = limits->database;
    u.max_clients = limits->user;
  }
  ClientLimit hit = ClientLimit::Ok;
  if (!c->exempt && u.clients_full()) hit = ClientLimit::User;
  if (!c->exempt && db.clients_full()) hit = ClientLimit::Database;
  if (hit != ClientLimit::Ok) {
    forget_unused(m.databases, db);
    forget_unused(m.users, u);
    return hit;
  }
  c->database = &db;
  c->user = &u;
  ++db.clients;
  ++u.clients;
  return ClientLimit::Ok;
}

namespace {

void detach_from_pool(ClientSlot& client) {
  PoolState& pool = *client.attached;
  --pool.attached;
  if (client.waiting) --pool.attached_waiting;
  client.attached = nullptr;
}

}  // namespace

void PoolManager::attach_client(ClientId client, PoolId pool, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ClientSlot* c = m.clients.find(client);
  PoolState* p = m.find_pool(pool);
  if (c == nullptr || p == nullptr || c->attached == p) return;
  if (c->attached != nullptr) {
    m.arm_with_branches(*c->attached, now);  // its min_pool_size may not hold any more
    m.note_use(*c->attached, now);
    detach_from_pool(*c);
  } else {
    ++m.attached_clients;
  }
  c->attached = p;
  ++p->attached;
  if (c->waiting) ++p->attached_waiting;
  m.keep_min_pool(*p, now, out);
  for (PoolState* branch : p->branches) m.keep_min_pool(*branch, now, out);
}

void PoolManager::remove_client(ClientId client, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ClientSlot* c = m.clients.find(client);
  if (c == nullptr) return;
  m.withdraw(*c, now, out);
  if (ServerSlot* server = c->server; server != nullptr) {
    // The caller forgot to give it back, so nobody knows what runs on it: it must not reach another client.
    m.unlink(*server, out);
    m.close(*server, close_reason::kClientGone, now, out);
  }
  m.cancels.forget_key(*c);
  if (c->attached != nullptr) {
    --m.attached_clients;
    if (c->attached->settings.min_pool_size > 0) m.arm_with_branches(*c->attached, now);
    m.note_use(*c->attached, now);
    detach_from_pool(*c);
  }
  if (c->database != nullptr) {
    --c->database->clients;
    --c->user->clients;
    m.note_use(*c->database, now);
    forget_unused(m.databases, *c->database);
    forget_unused(m.users, *c->user);
  }
  if (!c->exempt) --m.counted_clients;
  m.clients.erase(*c);
  m.check_waits(out);
}

// ---- waiting ----

void PoolManager::Impl::set_waiting(ClientSlot& client, bool waiting) {
  if (client.waiting == waiting) return;
  client.waiting = waiting;
  waiting_clients += waiting ? 1U : -1U;
  if (client.attached != nullptr) client.attached->attached_waiting += waiting ? 1U : -1U;
}

void PoolManager::Impl::enqueue(ClientSlot& client, PoolState& pool) {
  if (pool.nobody_waits()) {
    hungry.push_back(pool);
    pool.each_account([](Account& account) { ++account.hungry_pools; });
  }
  client.queue_of = &pool;
  pool.queue_for(client).insert(client);
  publish_queue(pool);
  set_waiting(client, true);
}

void PoolManager::Impl::dequeue(ClientSlot& client) {
  PoolState& pool = *client.queue_of;
  pool.queue_for(client).remove(client);
  publish_queue(pool);
  client.queue_of = nullptr;
  set_waiting(client, false);
  if (pool.nobody_waits()) {
    hungry.erase(hungry.iterator_to(pool));
    pool.each_account([](Account& account) { --account.hungry_pools; });
  }
}

bool PoolManager::Impl::fails_fast(const ClientSlot& client, const PoolState& pool, TimePoint now) const {
  // A login needs the server only for its parameters and waits for it, as does everybody if nothing ever worked.
  if (pool.settings.held || (pool.settings.patient && !pool.last_login_rejected)) return false;
  return client.attached != nullptr && pool.ever_logged_in && pool.login_paused(now) && pool.servers.alive() == 0 &&
         !paused(pool);
}

AcquireResult PoolManager::Impl::acquire(ClientSlot& client, PoolState& pool, TimePoint now, Actions& out) {
  PROXY_INVARIANT(client.queue_of == nullptr && client.server == nullptr && !client.dedicated);
  if (!pool.idle.empty_on(client.worker) && !paused(pool) && pool.queue.yields_to(client, settings.fifo_slack)) {
    ServerSlot& server = pool.idle.pick(client.worker, pool.settings.server_round_robin);
    const bool needs_check = pool.needs_check(server, now);
    set_state(server, ServerState::Active);
    link(client, server);
    server.used = true;
    if (!pool.queue.empty()) open_wanted(pool, now, out);  // for who counted on it
    return {AcquireStatus::Granted, server.id, needs_check};
  }
  if (fails_fast(client, pool, now)) return {.status = AcquireStatus::Failing};
  enqueue(client, pool);
  open_wanted(pool, now, out);
  return {};
}

AcquireResult PoolManager::acquire(ClientId client, PoolId pool, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ClientSlot* c = m.clients.find(client);
  PoolState* p = m.find_pool(pool);
  PROXY_INVARIANT(c != nullptr && p != nullptr);
  c->since = now;
  c->seq = ++m.last_seq;
  return m.acquire(*c, *p, now, out);
}

void PoolManager::acquire_dedicated(ClientId client, PoolId pool, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ClientSlot* c = m.clients.find(client);
  PoolState* p = m.find_pool(pool);
  PROXY_INVARIANT(c != nullptr && p != nullptr && c->queue_of == nullptr && c->server == nullptr);
  c->since = now;
  c->seq = ++m.last_seq;
  c->dedicated = true;
  m.enqueue(*c, *p);
  m.open_wanted(*p, now, out);
}

AcquireResult PoolManager::acquire_again(ClientId client, PoolId pool, TimePoint waiting_since, TimePoint now,
                                         Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ClientSlot* c = m.clients.find(client);
  PoolState* p = m.find_pool(pool);
  PROXY_INVARIANT(c != nullptr && p != nullptr);
  c->since = std::min(waiting_since, now);
  c->seq = 0;  // before everybody who began to wait in the same microsecond
  return m.acquire(*c, *p, now, out);
}

bool PoolManager::grant_taken(ClientId client, ServerId server) {
  ClientSlot* c = impl_->clients.find(client);
  if (c == nullptr || !c->grant_pending || c->server->id != server) return false;
  c->grant_pending = false;
  c->server->used = true;
  return true;
}

void PoolManager::Impl::withdraw(ClientSlot& client, TimePoint now, Actions& out) {
  if (client.queue_of != nullptr) {
    note_use(*client.queue_of, now);
    dequeue(client);
    return;
  }
  ServerSlot* server = client.server;
  if (server == nullptr) return;
  if (server->dedicated) {
    if (!client.grant_pending && server->state != ServerState::Login) return;
    unlink(*server, out);
    close(*server, close_reason::kDedicatedClientGone, now, out);
    open_wanted(*server->pool, now, out);  // another login may begin
  } else if (server->state == ServerState::Moving) {
    unlink(*server, out);  // on arrival it serves somebody else
  } else if (client.grant_pending) {
    unlink(*server, out);
    settle(*server, now, out);
  }
}

void PoolManager::stop_waiting(ClientId client, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ClientSlot* c = m.clients.find(client);
  if (c == nullptr) return;
  m.withdraw(*c, now, out);
  m.check_waits(out);
}

void PoolManager::Impl::reject(const ClientSlot& client, const PoolState& pool, std::string_view reason, Actions& out) {
  out.push_back({.kind = ActionKind::RejectClient,
                 .worker = client.worker,
                 .client = client.id,
                 .pool = pool.id,
                 .reason = std::string(reason)});
}

/// Those that have not come to the end of their own login.
void PoolManager::Impl::reject_logins(PoolState& pool, std::string_view reason, Actions& out) {
  std::vector<ClientSlot*> logins;
  pool.queue.each([&](ClientSlot& client) {
    if (client.attached == nullptr) logins.push_back(&client);
  });
  for (ClientSlot* client : logins) {
    note_use(pool, last_now);
    dequeue(*client);
    reject(*client, pool, reason, out);
  }
}

void PoolManager::Impl::reject_waiters(PoolState& pool, WaiterQueue& queue, std::string_view reason, Actions& out) {
  while (!queue.empty()) {
    ClientSlot& client = queue.front();
    note_use(pool, last_now);
    dequeue(client);
    reject(client, pool, reason, out);
  }
}

}  // namespace pgweir::pool
