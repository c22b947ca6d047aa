// Bookkeeping of cancel keys and requests; see the header.
#include "pool/cancel_registry.hpp"

#include "pool/invariant.hpp"

namespace pgweir::pool {

bool CancelRegistry::set_key(ClientSlot& client, std::uint64_t key) {
  const auto [entry, fresh] = by_key_.try_emplace(key, &client);
  if (!fresh) return entry->second == &client;
  if (client.has_key) by_key_.erase(client.key);
  client.has_key = true;
  client.key = key;
  return true;
}

void CancelRegistry::forget_key(ClientSlot& client) {
  if (client.has_key) by_key_.erase(client.key);
  client.has_key = false;
}

ClientSlot* CancelRegistry::client_of(std::uint64_t key) const {
  const auto entry = by_key_.find(key);
  return entry == by_key_.end() ? nullptr : entry->second;
}

CancelSlot& CancelRegistry::add(ServerSlot& server, WorkerId worker) {
  CancelSlot& cancel = slots_.add();
  cancel.worker = worker;
  cancel.pool = server.pool;
  cancel.server = &server;
  server.cancels.push_back(cancel);
  ++server.pool->cancels_pending;
  return cancel;
}

void CancelRegistry::confirm(CancelSlot& cancel) {
  PROXY_INVARIANT(!cancel.sent && cancel.server != nullptr);
  cancel.sent = true;
  ++cancel.server->cancels_sent;
  --cancel.pool->cancels_pending;
  ++cancel.pool->cancels_sent;
}

void CancelRegistry::remove(CancelSlot& cancel) {
  if (cancel.server != nullptr) {
    if (cancel.sent) --cancel.server->cancels_sent;
    cancel.server->cancels.erase(cancel.server->cancels.iterator_to(cancel));
  }
  --(cancel.sent ? cancel.pool->cancels_sent : cancel.pool->cancels_pending);
  slots_.erase(cancel);
}

void CancelRegistry::abandon_pending(ServerSlot& server, Actions& out) {
  for (auto it = server.cancels.begin(); it != server.cancels.end();) {
    CancelSlot& cancel = *it++;
    if (cancel.sent) continue;
    out.push_back({.kind = ActionKind::AbandonCancel, .worker = cancel.worker, .cancel = cancel.id});
    remove(cancel);
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
