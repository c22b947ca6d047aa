// The login of a client that replicates. It gets no pooled server: one is opened for it, with what it asked for in its
// start-up packet, and what that one reports is its welcome. From then on the two belong together.
#include "protocol/session_parameters.hpp"
#include "proxy/core/client_login.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

void ClientLogin::request_own_server() {
  WorkerCore& core = *client_.core_;
  const auto& names = *core.settings()->tracked;
  auto startup = std::make_shared<ReplicationStartup>();
  const StartupRequest& request = startup_->request;
  startup->kind = request.replication;
  startup->options = request.options;
  for (const auto& [index, value] : request.tracked) startup->parameters.emplace_back(names.name(index), value);
  startup->parameters.insert(startup->parameters.end(), request.extras.begin(), request.extras.end());
  client_.replication_ = std::move(startup);

  step_ = Step::Welcome;
  client_.waiting_ = true;
  client_.wait_start_ = core.now();
  client_.wait_timeout_ = effective_query_wait_timeout(core.config(), *wanted_->entry, client_.user_);
  core.schedule(client_, client_.next_deadline());
  PoolLock pools(core.host());
  pools->acquire_dedicated(client_.id_, wanted_->id, core.now(), core.actions());
}

void ClientLogin::welcome_to(ServerSession& server) {
  client_.parameters_.tracked = server.parameters().tracked;
  std::string text;
  const std::size_t key_at = append_welcome(text, server.report());
  send_welcome(text, key_at);
}

}  // namespace pgweir::core
