// SUSPEND on one worker: coming to rest, freezing, and forgetting what another process has taken over.
#include <algorithm>

#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

bool at_rest(const ClientSession& client) {
  if (client.closed()) return true;
  switch (client.state()) {
    case ClientSession::State::Login:
      // Both will stay so: no socket is read, and no server is opened for whom it waits.
      return client.silent() || client.waiting();
    case ClientSession::State::Closing:
      return false;
    case ClientSession::State::Ready:
    case ClientSession::State::Console:
      return true;
  }
  return true;
}

}  // namespace

void WorkerCore::set_suspending(bool on) {
  suspending_ = on;
  leases_.set_enabled(!on);  // the end of this batch tells the pools everything
  for (const auto& [id, client] : clients_) {
    if (client->closed()) continue;
    client->update_interest();
    if (!on) wake(*client);
  }
}

bool WorkerCore::at_rest() const {
  // Offers are answered at the end of the batch, and a server may move because of one.
  return connecting_.empty() && cancels_.empty() && woken_.empty() && offers_.empty() && leases_.settled() &&
         std::all_of(clients_.begin(), clients_.end(), [](const auto& one) { return core::at_rest(*one.second); }) &&
         std::all_of(servers_.begin(), servers_.end(),
                     [](const auto& one) { return one.second->closed() || one.second->at_rest(); });
}

void WorkerCore::drop_server_logins(std::string_view reason) {
  std::vector<pool::ServerId> connecting;
  for (const auto& [id, one] : connecting_) {
    if (one.replication == nullptr) connecting.push_back(id);
  }
  for (const pool::ServerId id : connecting) {
    connecting_.erase(id);
    host_.abandon_server(id);
    PoolLock pools(host_);
    pools->server_closed(id, pool::CloseKind::Normal, {}, now_, actions_);
  }
  std::vector<ServerSession*> servers;
  for (const auto& [id, server] : servers_) {
    if (!server->closed() && !server->logged_in() && server->replication() == Replication::None)
      servers.push_back(server.get());
  }
  for (ServerSession* server : servers) {
    server->close(reason);
    server->on_hangup(std::string(reason));  // it may not answer, and nothing is to wait for it
  }
}

void WorkerCore::drop_restless(std::string_view reason) {
  std::vector<ClientSession*> clients;
  for (const auto& [id, client] : clients_) {
    if (!core::at_rest(*client)) clients.push_back(client);
  }
  for (ClientSession* client : clients) {
    if (client->state() == ClientSession::State::Login) {
      client->fatal(reason, sqlstate("57P01"));
    } else {
      client->disconnect(reason);
    }
  }
  std::vector<ServerSession*> servers;
  for (const auto& [id, server] : servers_) {
    if (!server->at_rest()) servers.push_back(server.get());
  }
  for (ServerSession* server : servers) server->close(reason);
}

void WorkerCore::set_frozen(bool on) {
  if (frozen_ == on) return;
  frozen_ = on;
  const auto each = [&](auto& session) {
    if (session.closed()) return;
    if (on) {
      host_.detach(session.port());
    } else {
      host_.attach(session.port());
    }
  };
  for (const auto& [id, client] : clients_) {
    if (client->state() != ClientSession::State::Console) each(*client);
  }
  for (const auto& [id, server] : servers_) each(*server);
  if (!on) take_up_hosts();
}

void WorkerCore::forget_changed_over() {
  { const PoolLock told(host_); }  // of the servers, while they are there
  std::vector<pool::ClientId> waiting, linked;
  std::vector<pool::ServerId> servers;
  for (const auto& [id, client] : clients_) {
    if (can_change_over(*client)) (client->server() == nullptr ? waiting : linked).push_back(id);
  }
  for (const auto& [id, server] : servers_) {
    if (can_change_over(*server)) servers.push_back(id);
  }
  for (const auto* ids : {&waiting, &linked}) {
    for (const pool::ClientId id : *ids) clients_.take(id)->give_away();
  }
  for (const pool::ServerId id : servers) {
    servers_.at(id)->give_away();
    servers_.erase(id);
  }
  for (const pool::ClientId id : waiting) leases_.withdraw(id);
  // Those in a queue leave it before a permit becomes free that they might get.
  PoolLock pools(host_);
  for (const pool::ClientId id : waiting) pools->remove_client(id, now_, actions_);
  for (const pool::ServerId id : servers) pools->server_closed(id, pool::CloseKind::Normal, {}, now_, actions_);
  for (const pool::ClientId id : linked) pools->remove_client(id, now_, actions_);
}

}  // namespace pgweir::core
