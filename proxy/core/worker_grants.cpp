// How the clients of one worker come by its servers: what the pools have granted, what one client leaves to the next
// without them, and what they are told of it at the end of each batch of events.
#include "pool/invariant.hpp"
#include "pool/mutation.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

void WorkerCore::grant(const pool::Action& action) {
  ClientSession* client = find_client(action.client);
  ServerSession* server = find_server(action.server);
  // Stale if either left while the message was under way; the pools have noticed and acted already.
  if (client == nullptr || server == nullptr || !client->waiting() || server->client() != nullptr) return;
  bool current;
  std::uint64_t epoch;
  {
    PoolLock pools(host_);
    current = pools->grant_taken(action.client, action.server);
    epoch = server->context().local.board->epoch;
  }
  if (!current) return;
  leases_.granted(server->lease(), action.client, epoch, now_);
  leases_.withdraw(server->context().local, action.client);
  hand_over(*server, *client, action.needs_check);
}

void WorkerCore::hand_over(ServerSession& server, ClientSession& client, bool needs_check) {
  server.link(client);
  if (client.on_granted(server, needs_check) && !PGWEIR_MUTANT(4)) wake(client);
}

// Of a server that one client of this worker leaves to another. Where the pools were told before it came to that, they
// decide whether it still holds.
void WorkerCore::carry_out(const pool::WorkerLeases::Grant& decided) {
  ServerSession* server = find_server(decided.server);
  if (server == nullptr || server->client() != nullptr) return;
  switch (leases_.take(server->lease(), decided.client)) {
    case pool::WorkerLeases::Taken::Stale:
      return;
    case pool::WorkerLeases::Taken::Ask:
      return grant({.kind = pool::ActionKind::Grant, .server = decided.server, .client = decided.client});
    case pool::WorkerLeases::Taken::Yes:
      break;
  }
  ClientSession* client = find_client(decided.client);
  PROXY_INVARIANT(client != nullptr && client->waiting());  // else the pools had been told of its leaving
  hand_over(*server, *client, false);
}

// Only now is it known what stays idle here.
void WorkerCore::answer_offers() {
  while (!offers_.empty()) {
    offering_.swap(offers_);
    for (const pool::PoolId pool : offering_) {
      PoolLock pools(host_);
      pools->offer_idle(id_, pool, now_, actions_);
    }
    offering_.clear();
    run_pending();
  }
}

void WorkerCore::settle_leases() {
  for (;;) {
    if (leases_.should_tell(now_)) {
      const PoolLock told(host_);
    } else if (const auto late = leases_.overdue(now_); !late.clients.empty()) {
      enqueue(late);
    } else {
      return;
    }
    run_pending();
    answer_offers();
  }
}

void WorkerCore::enqueue(const pool::WorkerLeases::Overdue& clients) {
  PoolLock pools(host_);
  pools->enqueue(id_, clients.pool, clients.clients, now_, actions_);
}

void WorkerCore::enqueue_waiting(PoolContext& context) {
  if (const auto clients = leases_.all_waiting(context.local); !clients.clients.empty()) enqueue(clients);
}

}  // namespace pgweir::core
