// What a worker finds out about servers, and tells the others: what they report, which start-up parameters they accept,
// how to log in to them.
#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

void WorkerCore::share_knowledge(PoolContext& context, const std::shared_ptr<const ServerReport>& report,
                                 const ParameterList& accepted) {
  remember(context, report, accepted);
  for (pool::WorkerId worker = 0; worker < host_.worker_count(); ++worker) {
    host_.post(worker, [database = context.database, user = context.user, report, accepted](WorkerCore& there) {
      there.learn(database, user, report, accepted);
    });
  }
}

void WorkerCore::remember(PoolContext& context, const std::shared_ptr<const ServerReport>& report,
                          const ParameterList& accepted) {
  context.report = report;
  auto& known = context.accepted_parameters;
  if (known.size() + accepted.size() > PoolContext::kAcceptedMax) known.clear();
  for (const auto& [key, value] : accepted) known[key] = value;
}

void WorkerCore::learn(const std::string& database, const std::string& user,
                       const std::shared_ptr<const ServerReport>& report, const ParameterList& accepted) {
  PoolContext* context = context_for(database, user);
  if (context == nullptr) return;
  remember(*context, report, accepted);
  std::vector<ClientSession*> waiting;
  for (const auto& [id, client] : clients_) {
    if (client->state() == ClientSession::State::Login && client->waiting()) waiting.push_back(client);
  }
  for (ClientSession* client : waiting) client->retry_welcome(*context);
}

void WorkerCore::share_credentials(const std::string& database, const std::string& user, const Credentials& what) {
  learn_credentials(database, user, what);
  for (pool::WorkerId worker = 0; worker < host_.worker_count(); ++worker) {
    if (worker == id_) continue;
    host_.post(worker, [=](WorkerCore& there) { there.learn_credentials(database, user, what); });
  }
}

void WorkerCore::learn_credentials(const std::string& database, const std::string& user, const Credentials& what) {
  const std::string key = pool_key(database, user);
  Credentials& known = credentials_[key];
  if (what.secret) known.secret = what.secret;
  if (what.scram_keys) known.scram_keys = what.scram_keys;
  if (what.password) known.password = what.password;
  const auto it = context_by_name_.find(key);
  if (it == context_by_name_.end()) return;
  it->second->credentials = known;
  for (PoolContext* part : it->second->on_hosts) {
    if (part != nullptr) part->credentials = known;
  }
}

}  // namespace pgweir::core
