// What a worker finds out about servers, and tells the others: what they report, which start-up parameters they accept,
// how to log in to them, and when their schema changes.
#include <algorithm>

#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {
/// Longer than a standby takes to make what the primary has done, unless it lags more than it may.
constexpr std::chrono::seconds kSchemaSettles{60};
}  // namespace

void WorkerCore::post_to_all(const Task& task) {
  for (pool::WorkerId worker = 0; worker < host_.worker_count(); ++worker) host_.post(worker, task);
}

void WorkerCore::post_to_others(const Task& task) {
  for (pool::WorkerId worker = 0; worker < host_.worker_count(); ++worker) {
    if (worker != id_) host_.post(worker, task);
  }
}

void WorkerCore::share_knowledge(PoolContext& context, const std::shared_ptr<const ServerReport>& report,
                                 const ParameterList& accepted) {
  remember(context, report, accepted);
  post_to_all([database = context.database, user = context.user, report, accepted](WorkerCore& there) {
    there.learn(database, user, report, accepted);
  });
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
  post_to_others([=](WorkerCore& there) { there.learn_credentials(database, user, what); });
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

void WorkerCore::schema_changed(const std::string& dbname) {
  share_schema_change(dbname, random());
}

void WorkerCore::schema_may_change(const std::string& dbname) {
  const auto known = schemas_.find(dbname);
  if (known != schemas_.end() && now_ - known->second.changed < kSchemaSettles / 2) return;  // they know
  share_schema_change(dbname, 0);
}

void WorkerCore::share_schema_change(const std::string& dbname, std::uint64_t change) {
  note_schema_change(dbname, change);
  post_to_others([dbname, change](WorkerCore& there) { there.note_schema_change(dbname, change); });
}

void WorkerCore::note_schema_change(const std::string& dbname, std::uint64_t change) {
  constexpr std::size_t kSchemasMax = 10'000;
  for (const auto& [id, server] : servers_) {
    if (server->context().dbname == dbname) server->statements().doubt_recent(now_.time_since_epoch());
  }
  if (schemas_.size() >= kSchemasMax && !schemas_.contains(dbname)) {
    keys_.schema += change;  // which makes it one of all databases
    any_schema_changed_ = now_;
    return;
  }
  Schema& schema = schemas_[dbname];
  schema.number += change;
  schema.changed = now_;
}

std::uint64_t WorkerCore::schema_of(const std::string& dbname) const {
  const auto it = schemas_.find(dbname);
  return keys_.schema + (it == schemas_.end() ? 0 : it->second.number);
}

bool WorkerCore::schema_settled(const std::string& dbname) const {
  const auto it = schemas_.find(dbname);
  const TimePoint changed =
      it == schemas_.end() ? any_schema_changed_ : std::max(it->second.changed, any_schema_changed_);
  return changed == TimePoint{} || now_ - changed > kSchemaSettles;
}

}  // namespace pgweir::core
