// Cancel requests, for queries here and for those of other processes, to which they are passed on by the peer id in the
// key. A request for a query here is tied to what the client runs on one server now: as soon as the client gives that
// server back, requests that were not confirmed end, and a confirmed one keeps the server from serving anybody else
// until it is over. So no signal can reach a query that it was not meant for.
#include <utility>

#include "pool/cancel_key.hpp"
#include "pool/manager_impl.hpp"

namespace pgweir::pool {

bool PoolManager::set_cancel_key(ClientId client, std::uint64_t key, bool console) {
  ClientSlot* c = impl_->clients.find(client);
  PROXY_INVARIANT(c != nullptr);
  if (!impl_->cancels.set_key(*c, key)) return false;
  c->console = console;
  return true;
}

std::uint64_t PoolManager::cancel_key(ClientId client) const {
  const ClientSlot* c = std::as_const(impl_->clients).find(client);
  return c != nullptr && c->has_key ? c->key : 0;
}

std::optional<std::pair<ClientId, WorkerId>> PoolManager::owner_of_key(std::uint64_t key) const {
  const ClientSlot* client = impl_->owner_of(key);
  if (client == nullptr) return std::nullopt;
  return std::pair(client->id, client->worker);
}

// Our own clients come first, whatever id their key carries: they keep it when a reload changes the peer id.
const ClientSlot* PoolManager::Impl::owner_of(std::uint64_t key) const {
  const ClientSlot* client = cancels.client_of(key);
  if (client == nullptr && peer_id != 0) client = cancels.client_of(cancel_key::original(key));
  return client;
}

CancelResult PoolManager::begin_cancel(std::uint64_t key, WorkerId worker, TimePoint now) {
  Impl& m = *impl_;
  m.tick(now);
  const ClientSlot* client = m.owner_of(key);
  if (client == nullptr) return m.pass_to_peer(key, worker);
  CancelResult result{.client = client->id, .worker = client->worker};
  if (client->console) {
    result.status = CancelStatus::Console;
    return result;
  }
  ServerSlot* server = client->server;
  PoolState* pool = server != nullptr ? server->pool : client->queue_of;
  if (pool == nullptr) return {};
  result.pool = pool->id;
  if (client->waiting || client->grant_pending) {
    result.status = CancelStatus::Waiting;
    return result;
  }
  const CancelSlot* cancel = m.cancels.add(pool->cancels, client->worker, server);
  if (cancel == nullptr) {
    result.status = CancelStatus::LimitReached;
    return result;
  }
  result.status = CancelStatus::Forward;
  result.cancel = cancel->id;
  result.server = server->id;
  result.key = server->key;
  return result;
}

// The number of times that a request is passed on is in its key and goes down each time, so that processes which take
// each other for somebody else cannot send it round for ever.
CancelResult PoolManager::Impl::pass_to_peer(std::uint64_t key, WorkerId worker) {
  const std::uint16_t id = cancel_key::peer(key);
  if (peer_id == 0 || id == peer_id || cancel_key::hops(key) == 0) return {};
  const auto peer = peers.find(id);
  if (peer == peers.end() || !peer->second->configured) return {};
  CancelResult result{.status = CancelStatus::LimitReached, .worker = worker, .peer = id};
  const CancelSlot* cancel = cancels.add(peer->second->cancels, worker, nullptr);
  if (cancel == nullptr) return result;
  peer->second->used = true;
  result.status = CancelStatus::Peer;
  result.cancel = cancel->id;
  result.peer_key = cancel_key::passed_on(key);
  return result;
}

void PoolManager::Impl::drop_old_peers() {
  std::erase_if(peers, [](const auto& entry) { return !entry.second->configured && entry.second->cancels.empty(); });
}

void PoolManager::set_peers(std::uint16_t own_id, std::span<const PeerLimits> peers, Actions& out) {
  Impl& m = *impl_;
  m.peer_id = own_id;
  for (const auto& [id, peer] : m.peers) peer->configured = false;
  for (const PeerLimits& limits : peers) {
    if (own_id == 0 || limits.id == own_id) continue;
    auto& peer = m.peers[limits.id];
    if (peer == nullptr) peer = std::make_unique<PeerState>();
    peer->id = limits.id;
    peer->configured = true;
    peer->cancels.max = limits.pool_size == 0 ? kUnlimitedPoolCancels : limits.pool_size;
    CancelRegistry::start_waiting(peer->cancels, out);
  }
  for (const auto& [id, peer] : m.peers) {
    if (!peer->configured) m.cancels.abandon_waiting(peer->cancels, out);
  }
  m.drop_old_peers();
}

std::vector<PeerSnapshot> PoolManager::peer_snapshots() const {
  std::vector<PeerSnapshot> all;
  for (const auto& [id, peer] : impl_->peers) {
    const CancelLane& lane = peer->cancels;
    if (!peer->used) continue;
    all.push_back({.id = id,
                   .cl_active_cancel_req = lane.sent,
                   .cl_waiting_cancel_req = lane.connecting + static_cast<std::uint32_t>(lane.waiting.size()),
                   .sv_active_cancel = lane.sent,
                   .sv_login = lane.connecting});
  }
  return all;
}

CancelTurn PoolManager::cancel_turn(CancelId cancel) const {
  const CancelSlot* c = std::as_const(impl_->cancels).find(cancel);
  if (c == nullptr) return CancelTurn::Over;
  return c->waiting() ? CancelTurn::Wait : CancelTurn::Now;
}

std::optional<CancelSnapshot> PoolManager::cancel_snapshot(CancelId cancel) const {
  const CancelSlot* c = std::as_const(impl_->cancels).find(cancel);
  if (c == nullptr) return std::nullopt;
  return CancelSnapshot{.sent = c->sent, .pool = c->pool != nullptr ? c->pool->id : PoolId{}};
}

bool PoolManager::confirm_cancel(CancelId cancel) {
  CancelSlot* c = impl_->cancels.find(cancel);
  if (c == nullptr || c->waiting()) return false;
  if (!c->sent) impl_->cancels.confirm(*c);
  return true;
}

void PoolManager::end_cancel(CancelId cancel, bool delivered, TimePoint now, Actions& out) {
  Impl& m = *impl_;
  now = m.tick(now);
  CancelSlot* c = m.cancels.find(cancel);
  if (c == nullptr) return;
  // One that was never confirmed was never sent, so nothing can arrive late.
  ServerSlot* server = c->sent ? c->server : nullptr;
  PoolState* pool = c->pool;
  m.cancels.remove(*c, out);
  if (pool != nullptr) {
    m.note_use(*pool, now);
  } else {
    m.drop_old_peers();
  }
  if (server == nullptr) return;
  // A dedicated one has no next client to save.
  if (!delivered && !server->dedicated) m.mark_close_needed(*server, out);
  if (server->state == ServerState::Canceling) {
    if (server->close_needed) {
      m.close(*server, close_reason::kCloseNeeded, now, out);
    } else if (server->cancels_sent == 0) {
      m.settle(*server, now, out);
    }
  }
  m.check_waits(out);
}

}  // namespace pgweir::pool
