#include "proxy/core/worker_core.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "pool/mutation.hpp"
#include "proxy/core/client_login.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/server_login.hpp"

namespace pgweir::core {

WorkerCore::WorkerCore(pool::WorkerId id, Host& host, std::shared_ptr<const Settings> settings, const ProcessKeys& keys)
    : id_(id),
      host_(host),
      settings_(std::move(settings)),
      keys_(keys),
      verbose_(config().verbose),
      statement_table_(keys.statement_hash),
      leases_(id) {
  host_.set_lease_teller(&lease_teller_);
}

WorkerCore::~WorkerCore() {
  host_.set_lease_teller(nullptr);
}

// ---- the order of things ----

// An event of one session may concern others: servers granted to them, input that can go on. Carried out here, after
// the event, so that no session is entered while another one is in the middle of a decision.
void WorkerCore::run_pending() {
  while (has_pending()) {
    while (!actions_.empty()) {
      performing_.swap(actions_);
      for (const pool::Action& action : performing_) perform(action);
      performing_.clear();
    }
    granting_.swap(leases_.grants());
    for (const pool::WorkerLeases::Grant& grant : granting_) carry_out(grant);
    granting_.clear();
    waking_.swap(woken_);
    for (Connection* session : waking_) {
      if (session != nullptr && !session->closed()) session->on_woken();
    }
    waking_.clear();
  }
}

void WorkerCore::end_batch() {
  run_pending();
  if (!offers_.empty()) answer_offers();
  if (!leases_.quiet()) settle_leases();
  graveyard_.clear();
}

template <class Map, class Id>
static void move_to_graveyard(Map& map, const Id& id, std::vector<std::unique_ptr<Connection>>& graveyard) {
  if (const auto it = map.find(id); it != map.end()) {
    it->second->alarm().cancel();
    graveyard.push_back(std::move(it->second));
    map.erase(it);
  }
}

void WorkerCore::bury(ClientSession& session) {
  session.alarm().cancel();
  if (auto dead = clients_.take(session.id())) graveyard_.push_back(std::move(dead));
}
void WorkerCore::bury(ServerSession& session) {
  move_to_graveyard(servers_, session.id(), graveyard_);
}
void WorkerCore::bury(CancelConnection& session) {
  move_to_graveyard(cancels_, session.token(), graveyard_);
}

// ---- timers ----

TimePoint WorkerCore::next_deadline() const {
  return frozen_ ? pool::kNever : alarms_.next();
}

void WorkerCore::on_time(TimePoint now) {
  now_ = now;
  while (!frozen_ && alarms_.next() <= now) {
    const auto& alarm = static_cast<const Alarm&>(alarms_.pop());
    if (alarm.connection != nullptr) {
      alarm.connection->on_timer(now_);
    } else {
      connect_timeout(alarm.connecting);
    }
    run_pending();
  }
}

// The alarm may be one of a setting that was changed since.
void WorkerCore::connect_timeout(pool::ServerId server) {
  Connecting& connecting = connecting_.at(server);
  const Duration limit = config().server_connect_timeout;
  if (limit <= Duration::zero()) return;
  if (const TimePoint end = connecting.started + limit; now_ < end) return connecting.alarm.set(alarms_, end);
  host_.abandon_server(server);
  server_connect_failed(server, "connect timeout", {});
}

// ---- clients ----

ClientSession& WorkerCore::client_accepted(std::unique_ptr<Port> port, PeerAddress address) {
  std::optional<pool::ClientId> id;
  bool over_limit = false;
  {
    PoolLock pools(host_);
    id = pools->add_client(id_);
    if (!id) {
      // It may be an operator on the way to the console, who must get in; anybody else is refused by name.
      over_limit = true;
      id = pools->add_client(id_, true);
    }
  }
  auto session = std::make_unique<ClientSession>(*this, std::move(port), *id, std::move(address));
  ClientSession& result = *session;
  if (over_limit) result.set_over_limit();
  clients_.add(std::move(session));
  // It was on its way here when all stopped. It must not get at servers that another process may have been told of.
  if (frozen_) host_.detach(result.port());
  return result;
}

ClientSession* WorkerCore::find_client(pool::ClientId id) {
  return clients_.find(id);
}

ServerSession* WorkerCore::find_server(pool::ServerId id) {
  const auto it = servers_.find(id);
  return it == servers_.end() ? nullptr : it->second.get();
}

void WorkerCore::password_checked(pool::ClientId client, const PasswordVerdict& verdict) {
  if (ClientSession* session = find_client(client)) session->on_password_checked(verdict);
}

void WorkerCore::host_name_found(pool::ClientId client, const std::string& name) {
  if (ClientSession* session = find_client(client)) session->on_host_name(name);
}

void WorkerCore::drop_clients_of(const std::string& database, const std::string& reason) {
  std::vector<ClientSession*> found;
  for (const auto& [id, client] : clients_) {
    if (client->database() == database) found.push_back(client);
  }
  for (ClientSession* client : found) client->on_dropped(reason);
}

bool WorkerCore::kill_client(std::uint64_t number) {
  for (const auto& [id, client] : clients_) {
    if (client->number() != number || client->closed()) continue;
    if (client->cancel_request()) {
      client->disconnect("admin forced disconnect");  // nobody expects a message on such a connection
      return true;
    }
    if (client->state() == ClientSession::State::Login) return false;
    client->fatal("admin forced disconnect", sqlstate("57P01"));
    return true;
  }
  return false;
}

void WorkerCore::set_shutdown(ShutdownMode mode) {
  shutdown_ = mode;
  if (mode != ShutdownMode::WaitForServers) return;
  // Whoever asks for a server from now on is refused by the session; these came before.
  for (const auto& [id, context] : contexts_) enqueue_waiting(*context);
  PoolLock pools(host_);
  pools->reject_waiting(kServerShutdown, now_, actions_);
}

void WorkerCore::end_stats_period(Duration length) {
  for (const auto& [id, context] : contexts_) {
    context->period = {context->period.end, context->stats, static_cast<std::uint64_t>(length.count())};
  }
  console_period_ = {console_period_.end, console_stats_, static_cast<std::uint64_t>(length.count())};
}

// ---- pools ----

std::string WorkerCore::pool_user(const std::string& database, const std::string& login_user) const {
  const DatabaseConfig* entry = find_database(config(), database);
  return entry != nullptr && entry->user ? *entry->user : login_user;
}

PoolContext* WorkerCore::context_for(const std::string& database, const std::string& pool_user) {
  const std::string key = pool_key(database, pool_user);
  if (const auto it = context_by_name_.find(key); it != context_by_name_.end()) {
    return it->second->entry != nullptr ? it->second : nullptr;
  }
  const DatabaseConfig* entry = find_database(config(), database);
  if (entry == nullptr) return nullptr;
  auto context = std::make_unique<PoolContext>();
  context->database = database;
  context->user = pool_user;
  return add_context(std::move(context), *entry);
}

PoolContext* WorkerCore::login_context(KnownStartup& startup, const std::string& login_user) {
  const std::string& database = startup.request.database;
  // auth_query may have told the login another name.
  if (login_user != startup.request.user) return context_for(database, pool_user(database, login_user));
  if (startup.pool == nullptr || startup.pool_epoch != contexts_epoch_) {
    startup.pool = context_for(database, pool_user(database, login_user));
    startup.pool_epoch = contexts_epoch_;
  }
  return startup.pool != nullptr && startup.pool->entry != nullptr ? startup.pool : nullptr;
}

PoolContext* WorkerCore::add_context(std::unique_ptr<PoolContext> context, const DatabaseConfig& entry) {
  const std::string& database = context->database;
  const std::string& user = context->user;
  resolve(*context, settings_);
  join_group(*context);
  if (const auto it = credentials_.find(pool_key(database, user)); it != credentials_.end()) {
    context->credentials = it->second;
  }
  {
    PoolLock pools(host_);
    context->id = pools->set_pool(database, user, pool_settings(config(), entry, user, context->host_name), now_,
                                  actions_, context->host_name);
    pools->hold_pool(context->id, id_);
    context->local.id = context->id;
    context->local.board = pools->lease_board(context->id);
    pools->set_database_limits(database, database_limits(config(), entry));
    pools->set_autodb_idle_timeout(database, autodb_idle_timeout(config(), entry), now_);
    pools->set_user_limits(user, user_limits(config(), user));
  }
  PoolContext* result = context.get();
  // What came by `*` is not in the list of catalogues that are read anyway.
  if (result->catalog != nullptr && !result->catalog->knowledge && is_fallback(config(), entry)) {
    host_.catalog_changed(result->group->name, result->dbname);
  }
  if (result->host_name.empty()) context_by_name_.emplace(pool_key(database, user), result);
  contexts_.emplace(result->id, std::move(context));
  return result;
}

void WorkerCore::register_database(const std::string& database, const ClientSession* client) {
  const DatabaseConfig* entry = find_database(config(), database);
  if (entry == nullptr || !is_fallback(config(), *entry)) return;
  bool fresh;
  {
    PoolLock pools(host_);
    fresh = pools->add_database(database);
    pools->set_database_limits(database, database_limits(config(), *entry));
    pools->set_autodb_idle_timeout(database, autodb_idle_timeout(config(), *entry), now_);
  }
  if (!fresh) return;
  const std::string name = client != nullptr ? client->log_name() : std::string();
  log(LogLevel::Log, name + "registered new auto-database: " + database);
}

bool WorkerCore::in_use(const PoolContext& context) const {
  return std::any_of(clients_.begin(), clients_.end(),
                     [&](const auto& client) { return client.second->refers_to(context); }) ||
         std::any_of(servers_.begin(), servers_.end(),
                     [&](const auto& server) { return &server.second->context() == &context; });
}

// A session that is about to end may still have the context although the pools know nothing of it any more. Then we say
// nothing, and are asked again.
void WorkerCore::forget_pool(pool::PoolId pool) {
  const auto it = contexts_.find(pool);
  if (it != contexts_.end() && in_use(*it->second)) return;
  bool forgotten;
  {
    PoolLock pools(host_);
    forgotten = pools->pool_forgotten(pool, id_, now_, actions_);
  }
  if (!forgotten || it == contexts_.end()) return;
  PoolContext& context = *it->second;
  leases_.forget(context.local);
  if (context.home == nullptr) {
    context_by_name_.erase(pool_key(context.database, context.user));
  } else {
    std::replace(context.home->on_hosts.begin(), context.home->on_hosts.end(), &context,
                 static_cast<PoolContext*>(nullptr));
  }
  contexts_.erase(it);
  ++contexts_epoch_;
}

PoolContext* WorkerCore::find_context(pool::PoolId pool) {
  const auto it = contexts_.find(pool);
  if (it != contexts_.end()) return it->second.get();
  // Known to the pools through another worker.
  std::pair<std::string, std::string> name;
  std::string host;
  {
    PoolLock pools(host_);
    name = pools->pool_name(pool);
    host = pools->pool_host(pool);
  }
  return name.first.empty() ? nullptr : context_named(name.first, name.second, host);
}

void WorkerCore::set_settings(std::shared_ptr<const Settings> settings) {
  settings_ = std::move(settings);
  verbose_ = config().verbose;
  known_startups_.clear();
  for (const auto& [id, context] : contexts_) resolve(*context, settings_);
  for (const bool parts : {false, true}) {  // those of single hosts join the others
    for (const auto& [id, context] : contexts_) {
      if ((context->home != nullptr) == parts) join_group(*context);
    }
  }
  for (const auto& [id, client] : clients_) client->settings_changed();
  route_again(nullptr);
}

void WorkerCore::forget_reports(const std::string& database) {
  for (const auto& [id, context] : contexts_) {
    if (!database.empty() && context->database != database) continue;
    context->report.reset();
    context->accepted_parameters.clear();
    ++context->forgotten;
  }
}

void WorkerCore::addresses_changed(const std::string& name, const std::vector<std::string>& addresses) {
  PoolLock pools(host());
  for (const auto& [id, server] : servers_) {
    if (server->target().host.host != name || server->address().is_unix) continue;
    if (std::find(addresses.begin(), addresses.end(), server->address().host) != addresses.end()) continue;
    pools->recycle_server(id, now(), actions());
  }
}

std::uint64_t WorkerCore::settings_hash(const protocol::SessionParameters& parameters) {
  HashedSettings& last = hashed_settings_;
  if (last.of.tracked != parameters.tracked || last.of.extras != parameters.extras ||
      last.names != settings_->tracked) {
    last = {parameters, settings_->tracked,
            protocol::settings_hash(keys_.statement_hash, *settings_->tracked, parameters)};
  }
  return last.hash;
}

protocol::ParameterSetPtr WorkerCore::console_parameters(
    const std::vector<std::pair<std::size_t, std::string>>& own) const {
  auto set = std::make_shared<protocol::ParameterSet>();
  set->values.resize(settings_->tracked->size());
  for (const auto& [index, value] : own) set->values[index] = value;
  return set;
}

// ---- actions of PoolManager ----

void WorkerCore::perform(const pool::Action& action) {
  if (action.worker == id_) {
    perform_local(action);
  } else {
    host_.post(action.worker, [action](WorkerCore& there) { there.perform(action); });
  }
}

void WorkerCore::perform_local(const pool::Action& action) {
  switch (action.kind) {
    case pool::ActionKind::Grant:
      return grant(action);
    case pool::ActionKind::OpenServer:
      return open_server(action);
    case pool::ActionKind::MoveServer:
      return move_server(action);
    case pool::ActionKind::OfferIdle:
      if (!PGWEIR_MUTANT(9)) offers_.push_back(action.pool);
      return;
    case pool::ActionKind::CloseServer:
      if (ServerSession* server = find_server(action.server)) {
        server->close(action.reason);
      } else if (connecting_.erase(action.server) > 0) {
        host_.abandon_server(action.server);
        PoolLock pools(host_);
        pools->server_closed(action.server, pool::CloseKind::Normal, {}, now_, actions_);
      }
      return;
    case pool::ActionKind::RejectClient:
      if (ClientSession* client = find_client(action.client)) client->on_rejected(action.reason);
      return;
    case pool::ActionKind::DropClient:
      if (ClientSession* client = find_client(action.client)) client->on_dropped(action.reason);
      return;
    case pool::ActionKind::FastClose:
      if (ServerSession* server = find_server(action.server)) server->close_between_transactions();
      return;
    case pool::ActionKind::StartCancel:
      if (CancelConnection* cancel = find_cancel(action.cancel); cancel != nullptr && cancel->waiting()) {
        connect_cancel(*cancel);
      }
      return;
    case pool::ActionKind::AbandonCancel:
      if (CancelConnection* cancel = find_cancel(action.cancel)) cancel->abandon();
      return;
    case pool::ActionKind::ForgetPool:
      return forget_pool(action.pool);
    case pool::ActionKind::WaitOver:
      for (const auto& [id, client] : clients_) {
        if (client->console() != nullptr && client->console()->wait_over(action.token)) return;
      }
      host_.wait_over(action.token);
      return;
  }
}

void WorkerCore::open_server(const pool::Action& action) {
  PoolContext* context = find_context(action.pool);
  if (context == nullptr || context->entry == nullptr) {
    PoolLock pools(host_);
    pools->server_closed(action.server, pool::CloseKind::LoginFailed, "database removed", now_, actions_);
    return;
  }
  std::shared_ptr<const ReplicationStartup> replication;
  if (action.client) {
    const ClientSession* client = find_client(action.client);
    if (client == nullptr || !client->waiting()) {  // it left while the message was under way
      PoolLock pools(host_);
      pools->server_closed(action.server, pool::CloseKind::Normal, {}, now_, actions_);
      return;
    }
    replication = client->replication_startup();
  }
  if (!action.reason.empty())
    log(LogLevel::Warning, fmt::format("{}/{}: {}", context->database, context->user, action.reason));
  const std::optional<std::size_t> place = host_for_server(*context, action.token);
  if (!place) {
    // Whoever replicates connects anew by itself; on a wrong host it would get another's WAL.
    static constexpr std::string_view kNoHost = "no host of the list is known to be what is asked for";
    log(LogLevel::Warning, fmt::format("{}/{}: {}", context->database, context->user, kNoHost));
    PoolLock pools(host_);
    pools->server_closed(action.server, pool::CloseKind::LoginFailed, encode_login_error("57P03", kNoHost), now_,
                         actions_);
    return;
  }
  const ServerTarget target = server_target(*context, *place);
  Connecting& connecting =
      connecting_.try_emplace(action.server, action.server, action.pool, target, now_, std::move(replication))
          .first->second;
  if (const Duration limit = config().server_connect_timeout; limit > Duration::zero()) {
    connecting.alarm.set(alarms_, now_ + limit);
  }
  host_.open_server(action.server, target);
}

void WorkerCore::server_connected(pool::ServerId server, std::unique_ptr<Port> port, PeerAddress address) {
  const auto it = connecting_.find(server);
  PoolContext* context = it == connecting_.end() ? nullptr : find_context(it->second.pool);
  if (context == nullptr) {
    port->close();
    if (it == connecting_.end()) return;
    connecting_.erase(it);
    PoolLock pools(host_);
    pools->server_closed(server, pool::CloseKind::LoginFailed, "database removed", now_, actions_);
    return;
  }
  ServerTarget target = std::move(it->second.target);
  const TimePoint started = it->second.started;
  std::shared_ptr<const ReplicationStartup> replication = std::move(it->second.replication);
  connecting_.erase(it);
  auto session =
      std::make_unique<ServerSession>(*this, std::move(port), server, *context, std::move(address), std::move(target));
  ServerSession& result = *session;
  result.dedicate(std::move(replication));
  servers_.emplace(server, std::move(session));
  if (config().log_connections) {
    log(LogLevel::Log,
        result.log_name() + fmt::format("new connection to server (from {}:{})", bracketed(result.address().local_host),
                                        result.address().local_port));
  }
  result.start_login(started);
  // Like a client that was on its way here when all stopped: it must not log in and serve beside another process.
  if (frozen_ && !result.closed() && !PGWEIR_MUTANT(26)) host_.detach(result.port());
}

void WorkerCore::server_connect_failed(pool::ServerId server, const std::string& text, const std::string& detail) {
  const auto it = connecting_.find(server);
  if (it == connecting_.end()) return;
  PoolContext* context = find_context(it->second.pool);
  if (context != nullptr) {
    log(LogLevel::Warning, fmt::format("S: {}/{}@{}:{} closing because: {}{}", context->database, context->user,
                                       it->second.target.host.host, it->second.target.host.port, text,
                                       detail.empty() ? "" : ": " + detail));
    witness(*context, router::Witness::CannotConnect);
  }
  connecting_.erase(it);
  PoolLock pools(host_);
  pools->server_closed(server, pool::CloseKind::LoginFailed, encode_login_error("08001", text), now_, actions_);
}

void WorkerCore::move_server(const pool::Action& action) {
  const auto it = servers_.find(action.server);
  if (it == servers_.end()) return;  // it died; the pools know
  std::shared_ptr<std::unique_ptr<ServerSession>> parcel =
      std::make_shared<std::unique_ptr<ServerSession>>(std::move(it->second));
  servers_.erase(it);
  std::erase(woken_, static_cast<Connection*>(parcel->get()));
  for (Connection*& waking : waking_) {
    if (waking == parcel->get()) waking = nullptr;
  }
  (*parcel)->prepare_move();
  host_.detach((*parcel)->port());
  host_.post(action.to,
             [parcel, id = action.server](WorkerCore& there) { there.adopt_server(std::move(*parcel), id); });
}

void WorkerCore::adopt_server(std::unique_ptr<ServerSession> server, pool::ServerId id) {
  PoolContext* context = find_context(server->pool());
  ServerSession& session = *server;
  servers_.emplace(id, std::move(server));
  if (context == nullptr) {
    session.close("database removed");
    return;
  }
  // Where all stands still it must not be looked at either: it would serve beside the process that has been told of it.
  if (!frozen_) host_.attach(session.port());
  session.arrive(*this, *context);
  PoolLock pools(host_);
  pools->server_arrived(id, now_, actions_);
}

void WorkerCore::process_command_done(pool::ClientId client, const std::string& error, const std::string& notice) {
  ClientSession* session = find_client(client);
  if (session != nullptr && session->console() != nullptr) session->console()->process_command_done(error, notice);
}

}  // namespace pgweir::core
