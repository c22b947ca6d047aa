// The life of server connections: every change of state, handing a free server on, and what their end means for the
// pool.
#include <algorithm>

#include "pool/manager_impl.hpp"
#include "pool/mutation.hpp"

namespace pgweir::pool {

namespace {

/// Once it has logged in, or its present client is done with it.
bool may_serve_others(const ServerSlot& server) {
  return !server.close_needed && !server.dedicated && server.state != ServerState::Closing;
}

}  // namespace

void PoolManager::Impl::set_state(ServerSlot& server, ServerState next) {
  const ServerState last = server.state;
  PROXY_INVARIANT(legal_transition(last, next));
  PoolState& pool = *server.pool;
  if (last == ServerState::Idle) pool.idle.remove(server);
  server.state = next;
  if (next == ServerState::Idle) pool.idle.add(server);
  if (last == next) return;
  if (last == ServerState::Idle || next == ServerState::Idle) publish_idle(pool, server.worker);
  pool.servers.move(last, next);
  pool.database.servers.move(last, next);
  if (pool.host != nullptr) pool.host->servers.move(last, next);
  pool.user.servers.move(last, next);
  servers.move(last, next);
}

void PoolManager::Impl::link(ClientSlot& client, ServerSlot& server) {
  PROXY_INVARIANT(client.server == nullptr && client.queue_of == nullptr && server.client == nullptr);
  client.server = &server;
  server.client = &client;
}

ClientSlot* PoolManager::Impl::unlink(ServerSlot& server, Actions& out) {
  ClientSlot* client = server.client;
  if (client == nullptr) return nullptr;
  if (!server.cancels.empty()) [[unlikely]]
    cancels.abandon_pending(server, out);
  if (server.state == ServerState::Moving) --server.pool->moving_to_client;
  if (server.state == ServerState::Moving || server.state == ServerState::Login) set_waiting(*client, false);
  client->server = nullptr;
  client->grant_pending = false;
  server.client = nullptr;
  return client;
}

void PoolManager::Impl::unlink_and_requeue(ServerSlot& server, Actions& out) {
  ClientSlot* client = server.client;
  if (client == nullptr) return;
  const bool undelivered =
      client->grant_pending || server.state == ServerState::Moving || server.state == ServerState::Login;
  unlink(server, out);
  if (undelivered) enqueue(*client, *server.pool);
}

void PoolManager::Impl::start_move(ServerSlot& server, ClientSlot& client, Actions& out) {
  set_state(server, ServerState::Moving);
  server.move_to = client.worker;
  link(client, server);
  set_waiting(client, true);
  ++server.pool->moving_to_client;
  out.push_back({.kind = ActionKind::MoveServer,
                 .worker = server.worker,
                 .to = client.worker,
                 .server = server.id,
                 .client = client.id,
                 .pool = server.pool->id});
}

void PoolManager::Impl::grant(ServerSlot& server, ClientSlot& client, TimePoint now, Actions& out) {
  const bool needs_check = !server.dedicated && server.pool->needs_check(server, now);
  set_state(server, ServerState::Active);
  link(client, server);
  client.grant_pending = true;
  out.push_back({.kind = ActionKind::Grant,
                 .needs_check = needs_check,
                 .worker = server.worker,
                 .server = server.id,
                 .client = client.id,
                 .pool = server.pool->id});
}

void PoolManager::Impl::serve(ServerSlot& server, ClientSlot& waiter, TimePoint now, Actions& out) {
  dequeue(waiter);
  if (waiter.worker == server.worker) {
    grant(server, waiter, now, out);
  } else {
    start_move(server, waiter, out);
  }
}

std::string_view PoolManager::Impl::reason_to_close(const ServerSlot& server, TimePoint now) const {
  const PoolState& pool = *server.pool;
  if (server.close_needed) return close_reason::kCloseNeeded;
  if (paused(pool)) return close_reason::kPaused;
  if (pool.excess()) return close_reason::kTooMany;
  // Each connection serves at least once, as in PgBouncer: a login slower than server_lifetime would starve the queue.
  if (server.used && pool.lifetime_over(server, now)) return close_reason::kLifetime;
  return {};
}

// A free server goes to whoever waits for one, unless a client that cannot use it has waited longer: that one gets its
// permit, once the close is complete.
bool PoolManager::Impl::gives_way(const PoolState& pool, TimePoint now) const {
  if (pool.dedicated.empty() || pool.login_paused(now)) [[likely]]
    return false;
  if (!pool.queue.empty() && queued_before(pool.queue.front(), pool.dedicated.front())) return false;
  const auto lacks_permits = [&](const Account& a) {
    return a.full() && a.servers.of(ServerState::Closing) < pool.dedicated.size();
  };
  return pool.lacks_room() || lacks_permits(pool.connections) || lacks_permits(pool.user);
}

void PoolManager::Impl::settle(ServerSlot& server, TimePoint now, Actions& out) {
  PoolState& pool = *server.pool;
  if (server.dedicated) {
    close(server, close_reason::kDedicatedClientGone, now, out);
    return;
  }
  if (server.cancels_sent > 0) [[unlikely]] {
    set_state(server, ServerState::Canceling);
    return;
  }
  const std::string_view reason = reason_to_close(server, now);
  if (!reason.empty()) [[unlikely]] {
    close(server, reason, now, out);
    return;
  }
  if (gives_way(pool, now)) {
    close(server, close_reason::kEvicted, now, out);
    return;
  }
  if (!pool.queue.empty()) {
    ClientSlot& waiter = pool.queue.choose(server.worker, settings.fifo_slack);
    if (waiter.worker == server.worker) return serve(server, waiter, now, out);
  }
  become_idle(server, now, out);
  make_room(pool, now, out);
  ask_for_idle(pool, out);
}

void PoolManager::Impl::become_idle(ServerSlot& server, TimePoint now, Actions& out) {
  server.idle_since = now;
  set_state(server, ServerState::Idle);
  arm_idle(*server.pool, server);
  offer_to_other_pools(*server.pool, now, out);
}

void PoolManager::Impl::close(ServerSlot& server, std::string_view reason, TimePoint now, Actions& out) {
  PROXY_INVARIANT(server.client == nullptr);
  PoolState& pool = *server.pool;
  if (reason == close_reason::kLifetime) {
    pool.closed_for_lifetime = true;
    pool.last_lifetime_close = now;
  }
  end_login(server);
  set_state(server, ServerState::Closing);
  out.push_back({.kind = ActionKind::CloseServer,
                 .worker = server.worker,
                 .server = server.id,
                 .pool = pool.id,
                 .reason = std::string(reason)});
}

void PoolManager::Impl::end_login(ServerSlot& server) {
  if (!server.login_open) return;
  server.login_open = false;
  --(server.dedicated ? server.pool->dedicated_logins : server.pool->logins);
}

void PoolManager::Impl::mark_close_needed(ServerSlot& server, Actions& out) {
  if (server.close_needed) return;
  server.close_needed = true;
  end_leases(*server.pool);
  ++server.pool->database.close_needed;
  ++close_needed;
  if (server.pool->settings.server_fast_close) ask_fast_close(server, out);
}

// Other states than Active end in settle() or in a close soon enough by themselves.
void PoolManager::Impl::ask_fast_close(const ServerSlot& server, Actions& out) {
  if (!server.close_needed || server.state != ServerState::Active) return;
  out.push_back({.kind = ActionKind::FastClose, .worker = server.worker, .server = server.id, .pool = server.pool->id});
}

void PoolManager::Impl::login_failed(PoolState& pool, CloseKind kind, std::string_view message, TimePoint now,
                                     Actions& out) {
  pool.last_login_failed = true;
  pool.last_login_rejected = kind == CloseKind::LoginRejected;
  pool.last_error = message;
  pool.failed_at = now;
  pool.retry_at = now + pool.settings.server_login_retry;
  if (kind != CloseKind::LoginRejected) return;
  if (pool.servers.usable() == 0) {
    reject_waiters(pool, pool.queue, message, out);
  } else if (std::none_of(pool.all_servers.begin(), pool.all_servers.end(), may_serve_others)) {
    // What somebody who logs in waits for is the login that has just failed.
    reject_logins(pool, message, out);
  }
}

void PoolManager::Impl::free_server(ServerSlot& server) {
  PoolState& pool = *server.pool;
  if (server.close_needed) {
    --pool.database.close_needed;
    --close_needed;
  }
  cancels.detach(server);
  pool.servers.leave(server.state);
  if (PGWEIR_MUTANT(1) && pool.servers.total > 0) --pool.servers.total;
  pool.each_account([&](Account& account) { account.servers.leave(server.state); });
  servers.leave(server.state);
  publish_size(pool);
  pool.all_servers.erase(pool.all_servers.iterator_to(server));
  server_slots.erase(server);
  note_use(pool, last_now);
}

void PoolManager::Impl::serve_from_idle(PoolState& pool, TimePoint now, Actions& out) {
  while (!pool.queue.empty() && !pool.idle.empty() && !paused(pool)) {
    ClientSlot& waiter = pool.queue.front();
    serve(pool.idle.pick(waiter.worker, pool.settings.server_round_robin), waiter, now, out);
  }
}

void PoolManager::Impl::serve_from_own(PoolState& pool, WorkerId worker, TimePoint now, Actions& out) {
  while (!pool.queue.empty() && !pool.idle.empty_on(worker)) {
    ClientSlot& waiter = pool.queue.choose(worker, settings.fifo_slack);
    serve(pool.idle.pick(worker, pool.settings.server_round_robin), waiter, now, out);
  }
}

void PoolManager::Impl::ask_for_idle(PoolState& pool, Actions& out) {
  if (pool.queue.empty() || pool.idle.empty()) return;
  const std::size_t wanted = std::min<std::size_t>(pool.queue.size(), pool.idle.size());
  while (pool.idle.offered() < wanted) {
    const WorkerId worker = pool.idle.richest_unasked();
    pool.idle.set_offering(worker, true);
    out.push_back({.kind = ActionKind::OfferIdle, .worker = worker, .pool = pool.id});
  }
}

// ---- public events ----

void PoolManager::offer_idle(WorkerId worker, PoolId pool, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  PoolState* p = m.find_pool(pool);
  if (p == nullptr) return;
  p->idle.set_offering(worker, false);
  m.serve_from_own(*p, worker, now, out);
  // Whoever was promised these has left: they may make room for others. Or they did not go to those who have waited
  // longest, whose turn for the reserve comes earlier.
  m.open_wanted(*p, now, out);
  if (!p->idle.empty()) m.offer_to_other_pools(*p, now, out);
}

void PoolManager::release(ServerId server, ReleaseKind kind, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ServerSlot* s = m.server_slots.find(server);
  if (s == nullptr) return;
  const bool was_active = s->state == ServerState::Active;
  if (!was_active && s->state != ServerState::Testing) return;
  s->last_active = now;
  m.unlink(*s, out);
  if (kind == ReleaseKind::NeedsTest && !s->dedicated) {
    if (was_active) m.set_state(*s, ServerState::Testing);
    return;
  }
  m.settle(*s, now, out);
  m.check_waits(out);
}

void PoolManager::Impl::dedicated_ready(ServerSlot& server, TimePoint now, Actions& out) {
  PoolState& pool = *server.pool;
  end_login(server);
  server.last_active = now;
  const std::string_view reason = reason_to_close(server, now);
  if (server.client == nullptr || !reason.empty()) {
    unlink_and_requeue(server, out);
    close(server, reason.empty() ? close_reason::kDedicatedClientGone : reason, now, out);
  } else {
    ClientSlot& client = *unlink(server, out);
    grant(server, client, now, out);
  }
  open_wanted(pool, now, out);  // another login may begin
  keep_min_pool(pool, now, out);
}

void PoolManager::server_ready(ServerId server, BackendKey key, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ServerSlot* s = m.server_slots.find(server);
  if (s == nullptr) return;
  if (s->state == ServerState::Closing) {
    // Actions of different workers may overtake each other: a CloseServer that reached the worker before the
    // OpenServer found nothing to close.
    out.push_back({.kind = ActionKind::CloseServer,
                   .worker = s->worker,
                   .server = s->id,
                   .pool = s->pool->id,
                   .reason = std::string(close_reason::kCloseNeeded)});
    return;
  }
  if (s->state != ServerState::Login) return;
  if (s->dedicated) {
    // Says nothing of the logins of others: its start-up packet was not like theirs.
    s->key = std::move(key);
    m.dedicated_ready(*s, now, out);
    m.check_waits(out);
    return;
  }
  PoolState& pool = *s->pool;
  m.end_login(*s);
  pool.ever_logged_in = true;
  pool.last_login_failed = false;
  pool.last_error.clear();
  s->key = std::move(key);
  s->last_active = now;
  m.settle(*s, now, out);
  m.open_wanted(pool, now, out);
  m.keep_min_pool(pool, now, out);
  m.check_waits(out);
}

void PoolManager::server_arrived(ServerId server, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ServerSlot* s = m.server_slots.find(server);
  if (s == nullptr || s->state != ServerState::Moving) return;
  s->worker = s->move_to;
  PoolState& pool = *s->pool;
  ClientSlot* client = s->client;
  if (client != nullptr && m.reason_to_close(*s, now).empty()) {
    m.unlink(*s, out);
    m.grant(*s, *client, now, out);
  } else {
    m.unlink_and_requeue(*s, out);
    m.settle(*s, now, out);
    m.serve_from_idle(pool, now, out);
    m.open_wanted(pool, now, out);  // if it was closed instead of serving those who counted on it
  }
  m.check_waits(out);
}

void PoolManager::server_closing(ServerId server, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ServerSlot* s = m.server_slots.find(server);
  if (s == nullptr || s->state == ServerState::Closing) return;
  PoolState& pool = *s->pool;
  m.unlink_and_requeue(*s, out);
  m.set_state(*s, ServerState::Closing);
  m.serve_from_idle(pool, now, out);
  m.open_wanted(pool, now, out);
  m.check_waits(out);
}

void PoolManager::server_closed(ServerId server, CloseKind kind, std::string_view message, TimePoint now,
                                Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ServerSlot* s = m.server_slots.find(server);
  if (s == nullptr) return;
  PoolState& pool = *s->pool;
  // A login that we have given up ourselves says nothing about the server.
  const bool failed = s->login_open && kind != CloseKind::Normal;
  const bool own = s->dedicated;
  // Of several logins that fail at the same address the first moves on to the next one.
  const bool moves_on = failed && kind != CloseKind::LoginRejected && pool.settings.one_address;
  if (moves_on && s->address_turn == pool.address_turn) ++pool.address_turn;
  if (failed && own && s->client != nullptr) {
    m.reject(*m.unlink(*s, out), pool, message, out);
  } else {
    m.unlink_and_requeue(*s, out);
  }
  if (s->state != ServerState::Closing) m.set_state(*s, ServerState::Closing);
  m.end_login(*s);
  m.free_server(*s);
  if (failed && !own) m.login_failed(pool, kind, message, now, out);
  m.serve_from_idle(pool, now, out);
  m.feed(pool, now, out);
  if (pool.settings.min_pool_size > 0) pool.min_pool_from = now + kMinPoolPause;
  m.keep_min_pools_around(pool, now, out);
  m.check_waits(out);
}

void PoolManager::recycle_server(ServerId server, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  ServerSlot* s = m.server_slots.find(server);
  if (s == nullptr) return;
  m.mark_close_needed(*s, out);
  if (s->state != ServerState::Idle) return;
  m.close(*s, close_reason::kCloseNeeded, now, out);
  m.open_wanted(*s->pool, now, out);  // if somebody was to get it
}

}  // namespace pgweir::pool
