// Cancel requests. A request is tied to what the client runs on one server now: as soon as the client gives that
// server back, requests that were not confirmed end, and a confirmed one keeps the server from serving anybody else
// until it is over. So no signal can reach a query that it was not meant for.
#include "pool/manager_impl.hpp"

namespace pgweir::pool {

bool PoolManager::set_cancel_key(ClientId client, std::uint64_t key, bool console) {
  ClientSlot* c = impl_->clients.find(client);
  PROXY_INVARIANT(c != nullptr);
  if (!impl_->cancels.set_key(*c, key)) return false;
  c->console = console;
  return true;
}

CancelResult PoolManager::begin_cancel(std::uint64_t key, WorkerId worker, TimePoint now) {
  Impl& m = *impl_;
  m.tick(now);
  const ClientSlot* client = m.cancels.client_of(key);
  if (client == nullptr) return {};
  CancelResult result{.client = client->id, .worker = client->worker};
  if (client->console) {
    result.status = CancelStatus::Console;
    return result;
  }
  ServerSlot* server = client->server;
  const PoolState* pool = server != nullptr ? server->pool : client->queue_of;
  if (pool == nullptr) return {};
  result.pool = pool->id;
  if (client->waiting || client->grant_pending) {
    result.status = CancelStatus::Waiting;
    return result;
  }
  if (pool->cancels_pending + pool->cancels_sent >= pool->cancels_max()) {
    result.status = CancelStatus::LimitReached;
    return result;
  }
  result.status = CancelStatus::Forward;
  result.cancel = m.cancels.add(*server, worker).id;
  result.server = server->id;
  result.key = server->key;
  return result;
}

bool PoolManager::confirm_cancel(CancelId cancel) {
  CancelSlot* c = impl_->cancels.find(cancel);
  if (c == nullptr) return false;
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
  m.cancels.remove(*c);
  if (server == nullptr) return;
  if (!delivered && !server->dedicated) m.mark_close_needed(*server);  // a dedicated one has no next client to save
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
