// Bookkeeping of cancel keys and requests; see the header.
#include "pool/cancel_registry.hpp"

#include <algorithm>
#include <utility>

#include "pool/invariant.hpp"

namespace pgweir::pool {

namespace {

void abandon(const CancelSlot& cancel, Actions& out) {
  out.push_back({.kind = ActionKind::AbandonCancel, .worker = cancel.worker, .cancel = cancel.id});
}

}  // namespace

// Keys are random but for a few bits, whose places depend on whether there are peers; those of a product depend on all.
std::size_t CancelRegistry::bucket_of(std::uint64_t key) const {
  return static_cast<std::size_t>((key * 0x9E37'79B9'7F4A'7C15U) >> 32) & (buckets_.size() - 1);
}

void CancelRegistry::link(ClientSlot& client) {
  ClientSlot*& first = buckets_[bucket_of(client.key)];
  client.next_of_key = first;
  first = &client;
}

void CancelRegistry::grow() {
  constexpr std::size_t kBucketsMin = 64;
  std::vector<ClientSlot*> before(std::max(kBucketsMin, 2 * buckets_.size()));
  before.swap(buckets_);
  for (ClientSlot* client : before) {
    while (client != nullptr) link(*std::exchange(client, client->next_of_key));
  }
}

bool CancelRegistry::set_key(ClientSlot& client, std::uint64_t key) {
  if (const ClientSlot* owner = client_of(key); owner != nullptr) return owner == &client;
  forget_key(client);
  if (keys_ == buckets_.size()) grow();
  client.has_key = true;
  client.key = key;
  link(client);
  ++keys_;
  return true;
}

void CancelRegistry::forget_key(ClientSlot& client) {
  if (!std::exchange(client.has_key, false)) return;
  ClientSlot** at = &buckets_[bucket_of(client.key)];
  while (*at != &client) at = &(*at)->next_of_key;
  *at = client.next_of_key;
  --keys_;
}

ClientSlot* CancelRegistry::client_of(std::uint64_t key) const {
  if (buckets_.empty()) return nullptr;
  ClientSlot* client = buckets_[bucket_of(key)];
  while (client != nullptr && client->key != key) client = client->next_of_key;
  return client;
}

CancelSlot* CancelRegistry::add(CancelLane& lane, WorkerId worker, ServerSlot* server) {
  const bool room = lane.has_room();
  if (!room && lane.waiting.size() >= kCancelQueueMax) return nullptr;
  CancelSlot& cancel = slots_.add();
  cancel.worker = worker;
  cancel.lane = &lane;
  if (server != nullptr) {
    cancel.pool = server->pool;
    cancel.server = server;
    server->cancels.push_back(cancel);
  }
  if (room) {
    ++lane.connecting;
  } else {
    lane.waiting.push_back(cancel);
  }
  return &cancel;
}

void CancelRegistry::confirm(CancelSlot& cancel) {
  PROXY_INVARIANT(!cancel.sent && !cancel.waiting());
  cancel.sent = true;
  if (cancel.server != nullptr) ++cancel.server->cancels_sent;
  --cancel.lane->connecting;
  ++cancel.lane->sent;
}

void CancelRegistry::drop(CancelSlot& cancel) {
  CancelLane& lane = *cancel.lane;
  if (cancel.server != nullptr) {
    if (cancel.sent) --cancel.server->cancels_sent;
    cancel.server->cancels.erase(cancel.server->cancels.iterator_to(cancel));
  }
  if (cancel.waiting()) {
    lane.waiting.erase(lane.waiting.iterator_to(cancel));
  } else {
    --(cancel.sent ? lane.sent : lane.connecting);
  }
  slots_.erase(cancel);
}

void CancelRegistry::remove(CancelSlot& cancel, Actions& out) {
  CancelLane& lane = *cancel.lane;
  drop(cancel);
  start_waiting(lane, out);
}

void CancelRegistry::abandon_pending(ServerSlot& server, Actions& out) {
  for (auto it = server.cancels.begin(); it != server.cancels.end();) {
    CancelSlot& cancel = *it++;
    if (cancel.sent) continue;
    abandon(cancel, out);
    drop(cancel);
  }
  start_waiting(server.pool->cancels, out);
}

void CancelRegistry::abandon_waiting(CancelLane& lane, Actions& out) {
  while (!lane.waiting.empty()) {
    abandon(lane.waiting.front(), out);
    drop(lane.waiting.front());
  }
}

void CancelRegistry::start_waiting(CancelLane& lane, Actions& out) {
  while (lane.has_room() && !lane.waiting.empty()) {
    const CancelSlot& cancel = lane.waiting.front();
    lane.waiting.pop_front();
    ++lane.connecting;
    out.push_back({.kind = ActionKind::StartCancel, .worker = cancel.worker, .cancel = cancel.id});
  }
}

void CancelRegistry::detach(ServerSlot& server) {
  while (!server.cancels.empty()) {
    CancelSlot& cancel = server.cancels.front();
    PROXY_INVARIANT(cancel.sent);
    cancel.server = nullptr;
    server.cancels.pop_front();
  }
  server.cancels_sent = 0;
}

}  // namespace pgweir::pool
