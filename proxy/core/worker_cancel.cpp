// Cancel keys and requests on one worker: connections that carry them out, to servers and to other processes. Who is
// hit and whether it is a request's turn is PoolManager's decision.
#include "pool/cancel_key.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

std::uint64_t WorkerCore::draw_cancel_key() {
  char bytes[8];
  host_.crypto().random_bytes(std::span(reinterpret_cast<unsigned char*>(bytes), sizeof bytes));
  return pool::cancel_key::make(protocol::load_u64(bytes), static_cast<std::uint16_t>(config().peer_id));
}

std::uint64_t WorkerCore::new_console_key(pool::ClientId client) {
  for (;;) {
    const std::uint64_t key = draw_cancel_key();
    PoolLock pools(host_);
    if (pools->set_cancel_key(client, key, true)) return key;
  }
}

std::uint64_t WorkerCore::admit_client(pool::ClientId client, pool::PoolId pool) {
  for (;;) {
    const std::uint64_t key = draw_cancel_key();
    PoolLock pools(host_);
    if (!pools->set_cancel_key(client, key, false)) continue;
    pools->attach_client(client, pool, now_, actions_);
    return key;
  }
}

// Here it is known what the client does: the pools may take a server for another client's that was handed on here.
void WorkerCore::cancel_client(pool::ClientId client, pool::WorkerId origin, pool::ClientId requester) {
  ClientSession* session = find_client(client);
  if (session != nullptr && !session->on_cancel_while_waiting()) {
    pool::CancelResult result;
    {
      PoolLock pools(host_);
      result = pools->begin_cancel(pools->cancel_key(client), id_, now_);
    }
    if (result.status == pool::CancelStatus::Forward) {
      host_.post(origin, [requester, id = result.cancel](WorkerCore& there) { there.cancel_begun(requester, id); });
      return start_cancel(result, origin, requester);
    }
  }
  host_.post(origin, [requester](WorkerCore& there) { there.cancel_finished(requester); });
}

void WorkerCore::start_cancel(const pool::CancelResult& decided, pool::WorkerId origin, pool::ClientId requester) {
  ServerSession* session = find_server(decided.server);
  // While requests wait for each other the server may have gone to somebody else.
  ClientSession* client = session != nullptr ? session->client() : nullptr;
  const bool unsent = client != nullptr && client->id() == decided.client && client->cancel_unsent();
  if (session == nullptr || session->key().secret.empty() || unsent) {
    {
      PoolLock pools(host_);
      pools->end_cancel(decided.cancel, false, now_, actions_);
    }
    host_.post(origin, [requester](WorkerCore& there) { there.cancel_finished(requester); });
    return;
  }
  session->lease().end();
  open_cancel({.cancel = decided.cancel,
               .key = session->key(),
               .target = session->target(),
               .origin = origin,
               .requester = requester});
}

void WorkerCore::pass_cancel(const pool::CancelResult& decided, pool::ClientId requester) {
  pool::BackendKey key{static_cast<std::uint32_t>(decided.peer_key >> 32), std::string(4, '\0')};
  protocol::store_u32(key.secret.data(), static_cast<std::uint32_t>(decided.peer_key));
  open_cancel({.cancel = decided.cancel,
               .key = std::move(key),
               .target = {},
               .peer = decided.peer,
               .origin = id_,
               .requester = requester});
}

void WorkerCore::interrupt_server(const ServerSession& server) {
  if (server.key().secret.empty()) return;
  open_cancel({.key = server.key(), .target = server.target(), .origin = id_});
}

void WorkerCore::open_cancel(CancelConnection::Job job) {
  const std::uint64_t token = next_token_++;
  CancelConnection& connection =
      *cancels_.emplace(token, std::make_unique<CancelConnection>(*this, token, std::move(job))).first->second;
  auto turn = pool::CancelTurn::Now;
  if (connection.job().cancel) {
    // StartCancel may have come and gone before this: what it would have said is asked for.
    PoolLock pools(host_);
    turn = pools->cancel_turn(connection.job().cancel);
  }
  if (turn == pool::CancelTurn::Over) return connection.abandon();
  if (const Duration limit = config().cancel_wait_timeout; limit > Duration::zero()) {
    schedule(connection, now_ + limit);
  }
  if (turn == pool::CancelTurn::Now) connect_cancel(connection);
}

void WorkerCore::connect_cancel(CancelConnection& connection) {
  if (const std::uint16_t id = connection.job().peer; id != 0) {
    const auto peer = config().peers.find(id);
    if (peer == config().peers.end()) return connection.finish(false);
    connection.set_target(peer_target(config(), peer->second, next_peer_host_++));
  }
  // Without a limit of its own a request takes no longer than a connect may: it keeps a server from its next client.
  const Duration limit = config().server_connect_timeout;
  if (!connection.alarm().is_set() && limit > Duration::zero()) schedule(connection, now_ + limit);
  connection.connecting();
  host_.open_cancel(connection.token(), connection.job().target);
}

CancelConnection* WorkerCore::find_cancel(pool::CancelId cancel) {
  for (const auto& [token, connection] : cancels_) {
    if (connection->job().cancel == cancel) return connection.get();
  }
  return nullptr;
}

void WorkerCore::cancel_connected(std::uint64_t token, std::unique_ptr<Port> port) {
  const auto it = cancels_.find(token);
  if (it == cancels_.end()) {
    port->close();
    return;
  }
  it->second->connected(std::move(port));
}

void WorkerCore::cancel_connect_failed(std::uint64_t token, const std::string& text, const std::string& detail) {
  const auto it = cancels_.find(token);
  if (it == cancels_.end()) return;
  it->second->log_peer(detail.empty() ? text : text + ": " + detail);
  it->second->finish(false);
}

void WorkerCore::cancel_finished(pool::ClientId requester) {
  if (ClientSession* client = find_client(requester)) client->disconnect("cancel request");
}

void WorkerCore::cancel_begun(pool::ClientId requester, pool::CancelId cancel) {
  if (ClientSession* client = find_client(requester)) client->cancel_begun(cancel);
}

}  // namespace pgweir::core
