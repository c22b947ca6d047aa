// What the console's commands do to the pools: PAUSE, RESUME, DISABLE, RECONNECT, KILL, SHUTDOWN, and the conditions
// that a command waits for before it is answered.
#include <algorithm>

#include "pool/manager_impl.hpp"

namespace pgweir::pool {

namespace {

using Result = PoolManager::DatabaseResult;

}  // namespace

void PoolManager::Impl::close_unused(PoolState& pool, TimePoint now, Actions& out) {
  for (ServerSlot& server : pool.all_servers) {
    if (server.state == ServerState::Idle || server.state == ServerState::Login) {
      unlink_and_requeue(server, out);  // the client of a dedicated one gets another after RESUME
      close(server, close_reason::kPaused, now, out);
    }
  }
}

void PoolManager::Impl::wake_pools(const std::vector<PoolState*>& of, TimePoint now, Actions& out) {
  for (PoolState* pool : of) serve_from_idle(*pool, now, out);
  for (PoolState* pool : of) feed(*pool, now, out);
  for (PoolState* pool : of) keep_min_pool(*pool, now, out);
}

Result PoolManager::pause(std::string_view database, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  DatabaseState* db = m.find_database(database);
  if (db == nullptr) return Result::NotFound;
  if (db->paused || m.all_paused) return Result::Already;
  db->paused = true;
  for (PoolState* pool : db->pools) {
    m.publish_rules(*pool);
    m.close_unused(*pool, now, out);
  }
  m.check_waits(out);
  return Result::Ok;
}

Result PoolManager::resume(std::string_view database, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  DatabaseState* db = m.find_database(database);
  if (db == nullptr) return Result::NotFound;
  if (!db->paused) return Result::Already;
  db->paused = false;
  for (PoolState* pool : db->pools) m.publish_rules(*pool);
  m.note_use(*db, now);
  m.wake_pools(db->pools, now, out);
  return Result::Ok;
}

Result PoolManager::pause_all(TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  if (m.all_paused) return Result::Already;
  m.all_paused = true;
  for (const auto& pool : m.pools) {
    m.publish_rules(*pool);
    m.close_unused(*pool, now, out);
  }
  m.check_waits(out);
  return Result::Ok;
}

Result PoolManager::resume_all(TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  if (!m.all_paused) return Result::Already;
  m.all_paused = false;
  for (const auto& pool : m.pools) m.publish_rules(*pool);
  for (const auto& [name, db] : m.databases) {
    m.note_use(*db, now);
    m.wake_pools(db->pools, now, out);
  }
  return Result::Ok;
}

Result PoolManager::set_disabled(std::string_view database, bool disabled, TimePoint now) {
  Impl& m = *impl_;
  DatabaseState* db = m.find_database(database);
  if (db == nullptr) return Result::NotFound;
  if (db->disabled == disabled) return Result::Already;
  db->disabled = disabled;
  m.note_use(*db, m.tick(now));
  return Result::Ok;
}

bool PoolManager::is_disabled(std::string_view database) const {
  const DatabaseState* db = impl_->find_database(database);
  return db != nullptr && db->disabled;
}

bool PoolManager::is_paused(std::string_view database) const {
  const DatabaseState* db = impl_->find_database(database);
  return impl_->all_paused || (db != nullptr && db->paused);
}

bool PoolManager::all_paused() const {
  return impl_->all_paused;
}

bool PoolManager::add_database(std::string_view database) {
  const DatabaseState* known = impl_->find_database(database);
  const bool fresh = known == nullptr || known->transient;
  impl_->database(database);
  return fresh;
}

void PoolManager::reconnect(std::string_view database, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  for (const auto& pool : m.pools) {
    if (database.empty() || pool->database.name == database) m.recycle(*pool, close_reason::kConfigChanged, now, out);
  }
  m.check_waits(out);
}

void PoolManager::Impl::recycle(PoolState& pool, std::string_view reason, TimePoint now, Actions& out) {
  for (ServerSlot& server : pool.all_servers) {
    mark_close_needed(server, out);
    const bool undelivered = server.client != nullptr && server.client->grant_pending;
    if (server.state == ServerState::Idle || server.state == ServerState::Login || (server.dedicated && undelivered)) {
      unlink_and_requeue(server, out);
      close(server, reason, now, out);
    } else if (server.dedicated && server.state == ServerState::Active) {
      // It may be in use for as long as both ends live, so nobody can wait for it to come free.
      out.push_back({.kind = ActionKind::DropClient,
                     .worker = server.worker,
                     .client = server.client->id,
                     .reason = std::string(reason)});
    }
  }
  open_wanted(pool, now, out);  // for those who waited for a login that has been cut
}

void PoolManager::recycle_pool(PoolId pool, std::uint64_t version, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  PoolState* p = m.find_pool(pool);
  if (p == nullptr || p->recycled >= version) return;
  p->recycled = version;
  m.recycle(*p, close_reason::kRoleChanged, now, out);
  m.check_waits(out);
}

void PoolManager::end_login_pause(PoolId pool, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  PoolState* p = m.find_pool(pool);
  if (p == nullptr || !p->login_paused(now) || p->last_login_rejected) return;
  p->retry_at = std::min(p->retry_at, std::max(now, p->failed_at + kReachablePause));
  if (p->login_paused(now)) {
    m.arm(*p, p->retry_at);
    return;
  }
  m.run_pool(*p, now, out);
  m.check_waits(out);
}

void PoolManager::Impl::drop_client(ClientSlot& client, std::string_view reason, TimePoint now, Actions& out) {
  withdraw(client, now, out);
  out.push_back(
      {.kind = ActionKind::DropClient, .worker = client.worker, .client = client.id, .reason = std::string(reason)});
}

void PoolManager::Impl::kill_servers(PoolState& pool, std::string_view reason, TimePoint now, Actions& out) {
  for (ServerSlot& server : pool.all_servers) {
    switch (server.state) {
      case ServerState::Login:
      case ServerState::Idle:
      case ServerState::Testing:
      case ServerState::Canceling:
        unlink_and_requeue(server, out);
        close(server, reason, now, out);
        break;
      case ServerState::Active:  // its worker closes it with the client
      case ServerState::Moving:  // nobody can be told before it has arrived
        mark_close_needed(server, out);
        break;
      case ServerState::Closing:
        break;
    }
  }
}

void PoolManager::kill(std::string_view database, std::string_view reason, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  const bool all = database.empty();
  for (const auto& [name, db] : m.databases) {
    if (!all && name != database) continue;
    db->paused = true;
    for (PoolState* pool : db->pools) m.publish_rules(*pool);
  }
  m.clients.for_each([&](ClientSlot& client) {
    if (client.database == nullptr || client.console) return;
    if (all || client.database->name == database) m.drop_client(client, reason, now, out);
  });
  for (const auto& pool : m.pools) {
    if (all || pool->database.name == database) m.kill_servers(*pool, reason, now, out);
  }
  m.check_waits(out);
}

void PoolManager::reject_waiting(std::string_view reason, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  while (!m.hungry.empty()) {
    PoolState& pool = m.hungry.front();
    m.reject_waiters(pool, pool.queue, reason, out);
    m.reject_waiters(pool, pool.dedicated, reason, out);
  }
  m.server_slots.for_each([&](ServerSlot& server) {
    const bool logging_in = server.state == ServerState::Login;
    if ((server.state != ServerState::Moving && !logging_in) || server.client == nullptr) return;
    m.reject(*m.unlink(server, out), *server.pool, reason, out);
    if (logging_in) m.close(server, close_reason::kDedicatedClientGone, now, out);
  });
  m.check_waits(out);
}

// ---- waits ----

bool PoolManager::Impl::satisfied(const Wait& wait) const {
  const StateCounts& counts = wait.host != nullptr       ? wait.host->servers
                              : wait.database != nullptr ? wait.database->servers
                                                         : servers;
  switch (wait.what) {
    case WaitFor::NoActiveServers:
      return counts.of(ServerState::Active) + counts.of(ServerState::Testing) + counts.of(ServerState::Moving) == 0;
    case WaitFor::NoServers:
      return counts.total == 0;
    case WaitFor::NoClients:
      return (wait.database != nullptr ? wait.database->clients : clients.size()) == 0;
    case WaitFor::NoCloseNeeded:
      return (wait.database != nullptr ? wait.database->close_needed : close_needed) == 0;
  }
  return true;
}

void PoolManager::Impl::check_waits_slow(Actions& out) {
  std::erase_if(waits, [&](const Wait& wait) {
    if (!satisfied(wait)) return false;
    if (wait.database != nullptr) plan_end(*wait.database);
    out.push_back({.kind = ActionKind::WaitOver, .worker = wait.worker, .token = wait.token});
    return true;
  });
}

void PoolManager::wait_for(WaitFor what, std::string_view database, WorkerId worker, std::uint64_t token, TimePoint now,
                           Actions& out, std::string_view host) {
  Impl& m = *impl_;
  m.tick(now);
  DatabaseState* db = m.find_database(database);
  const HostAccount* account = nullptr;
  if (db != nullptr && !host.empty()) {
    const auto known = db->hosts.find(host);
    if (known == db->hosts.end()) db = nullptr;
    if (db != nullptr) account = known->second.get();
  }
  if (!database.empty() && db == nullptr) {  // what nobody knows has nothing to wait for
    out.push_back({.kind = ActionKind::WaitOver, .worker = worker, .token = token});
    return;
  }
  m.waits.push_back({what, database.empty() ? nullptr : db, account, worker, token});
  m.check_waits_slow(out);
}

void PoolManager::stop_wait(std::uint64_t token) {
  std::erase_if(impl_->waits, [&](const Impl::Wait& wait) {
    if (wait.token != token) return false;
    if (wait.database != nullptr) impl_->plan_end(*wait.database);
    return true;
  });
}

}  // namespace pgweir::pool
