#include "proxy/core/client_login.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/message_builder.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

std::string parameter_key(std::string_view name, std::string_view value) {
  return protocol::to_lower(name) + '=' + std::string(value);
}

}  // namespace

void ClientLogin::fail(std::string_view text, std::string_view native_sqlstate) {
  client_.fatal(text, client_.core_->sqlstate(native_sqlstate));
}

void ClientLogin::log_failure(std::string_view user) const {
  WorkerCore& core = *client_.core_;
  if (!core.config().log_connections) return;
  core.log(LogLevel::Log, client_.log_name() + fmt::format("login failed: db={} user={}", client_.database_, user));
}

bool ClientLogin::console_login() const {
  return client_.database_ == kConsoleDatabase;
}

std::size_t ClientLogin::consume(ByteView in) {
  heard_ = true;
  std::size_t pos = 0;
  while (pos < in.size() && client_.state_ == ClientSession::State::Login) {
    const ByteView rest = in.substr(pos);
    std::size_t used = 0;
    switch (step_) {
      case Step::FirstPacket:
        used = take_first_packet(rest);
        break;
      case Step::Password:
      case Step::SaslInitial:
      case Step::SaslResponse:
        used = take_password(rest);
        break;
      default:  // waiting for something; the bytes are the client's first messages
        return pos;
    }
    if (used == 0) break;
    pos += used;
  }
  return client_.closed() || client_.state_ == ClientSession::State::Closing ? in.size() : pos;
}

void ClientLogin::check_limits() {
  WorkerCore& core = *client_.core_;
  const Config& config = core.config();
  if (config.log_connections) {
    core.log(LogLevel::Log,
             client_.log_name() + fmt::format("login attempt: db={} user={} tls={} replication={}", client_.database_,
                                              client_.user_, client_.port().is_tls() ? client_.port().tls_info() : "no",
                                              replication_word(replication_)));
  }
  if (over_limit_ && !console_login()) return fail("no more connections allowed (max_client_conn)", "53300");
  if (console_login()) {
    PoolLock pools(core.host());
    pools->exempt_client(client_.id_);
  } else {
    pool::ClientLimit limit;
    const DatabaseConfig* entry = find_database(config, client_.database_);
    const pool::ClientLimits limits{entry == nullptr ? 0 : database_limits(config, *entry).max_db_client_connections,
                                    user_limits(config, client_.user_).max_user_client_connections};
    {
      PoolLock pools(core.host());
      limit = pools->bind_client(client_.id_, client_.database_, client_.user_, &limits);
    }
    if (limit == pool::ClientLimit::Database) {
      return fail("client connections exceeded (max_db_client_connections)", "53300");
    }
    if (limit == pool::ClientLimit::User) {
      return fail("client connections exceeded (max_user_client_connections)", "53300");
    }
  }
  find_user();
}

void ClientLogin::find_user() {
  WorkerCore& core = *client_.core_;
  const Config& config = core.config();
  const DatabaseConfig* entry = console_login() ? nullptr : find_database(config, client_.database_);
  if (console_login()) {
    const PeerAddress& address = client_.address_;
    console_admin_ = config.admin_users.contains(client_.user_);
    if (address.is_unix && address.uid == core.host().own_uid() && client_.user_ == kConsoleDatabase) {
      console_admin_ = true;
      return authenticated();
    }
    if (!console_admin_ && !config.stats_users.contains(client_.user_) && config.auth_type != AuthType::Any) {
      return fail("not allowed", "28000");
    }
  }
  if (config.auth_type == AuthType::Any) {
    if (entry != nullptr && !entry->user) {
      core.log(LogLevel::Error, client_.log_name() + "auth_type=any requires forced user");
      return fail("bouncer config error", "28000");
    }
    return authenticated();
  }
  if (choose_method() == Choice::Made) find_secret();
}

/// Unless the method needs none, from auth_file or by auth_query.
void ClientLogin::find_secret() {
  if (others_judge()) return start_authentication();
  WorkerCore& core = *client_.core_;
  const Config& config = core.config();
  const DatabaseConfig* entry = console_login() ? nullptr : find_database(config, client_.database_);
  const auto& users = *core.settings()->users;
  const auto it = users.find(client_.user_);
  // Whoever runs auth_query is known, if only by name: nobody looks them up.
  const std::string auth_user(entry != nullptr ? effective_auth_user(config, *entry) : config.auth_user.value_or(""));
  const bool in_file = it != users.end();
  const bool listed = in_file || (!auth_user.empty() && auth_user == client_.user_);
  if (in_file && !it->second.empty()) {
    secret_ = it->second;
    return start_authentication();
  }
  if (listed && method_ == AuthType::Trust) return start_authentication();
  if (entry != nullptr || console_login()) {
    const std::string auth_db(entry != nullptr ? effective_auth_dbname(config, *entry)
                                               : std::string_view(config.auth_dbname.value_or("")));
    const std::string lookup_db = auth_db.empty() ? client_.database_ : auth_db;
    if (!auth_user.empty() && auth_user != client_.user_) {
      core.register_database(lookup_db, client_.log_name());
      const bool reserved = lookup_db == kConsoleDatabase;
      PoolContext* pool = reserved ? nullptr : core.context_for(lookup_db, auth_user);
      if (pool == nullptr) {
        core.log(LogLevel::Error,
                 client_.log_name() +
                     (reserved ? std::string(kReservedAuthDatabase)
                               : fmt::format("authentication database \"{}\" is not configured", lookup_db)));
        return fail("bouncer config error", "28000");
      }
      bool disabled;
      {
        PoolLock pools(core.host());
        disabled = pools->is_disabled(lookup_db);
      }
      if (disabled) return fail(fmt::format("authentication database \"{}\" is disabled", lookup_db), "57P03");
      return start_lookup(*pool);
    }
  }
  if (!listed) core.log(LogLevel::Log, client_.log_name() + "no such user: " + client_.user_);
  mock_ = !listed || method_ != AuthType::Cert;  // nothing is compared with a secret where a certificate counts
  start_authentication();
}

void ClientLogin::start_lookup(PoolContext& pool) {
  step_ = Step::Lookup;
  request_server(pool);
}

void ClientLogin::request_server(PoolContext& pool) {
  WorkerCore& core = *client_.core_;
  wanted_ = &pool;
  client_.wait_start_ = core.now();
  client_.wait_timeout_ = effective_query_wait_timeout(core.config(), *pool.entry, client_.user_);
  (void)client_.ask_pool(pool_to_ask(), false);
}

bool ClientLogin::keeps_server() const {
  return client_.replication_ || step_ == Step::Lookup;
}

void ClientLogin::granted(ServerSession& server) {
  if (client_.replication_) {
    welcome_to(server);
  } else if (step_ == Step::Lookup) {
    align_lookup(server);
  } else {
    align(server);
  }
}

/// auth_query must not run with what clients of the auth_user have chosen (search_path, DateStyle, ...): the server
/// goes back to its own values first.
void ClientLogin::align_lookup(ServerSession& server) {
  found_.reset();
  const protocol::SessionParameters own{server.report()->tracked, nullptr};
  if (protocol::aligned(own, server.parameters())) return run_lookup(server);
  const auto sql = alignment_sql(*client_.core_->settings()->tracked, own, server.parameters());
  if (!sql) {
    server.finish_after_input();
    return fail("bouncer config error", "22023");
  }
  if (sql->empty()) return run_lookup(server);
  server.run_alignment(*sql, nullptr);
}

void ClientLogin::run_lookup(ServerSession& server) {
  const Config& config = client_.core_->config();
  const DatabaseConfig* entry = find_database(config, client_.database_);
  server.run_lookup(entry != nullptr ? effective_auth_query(config, *entry) : std::string_view(config.auth_query),
                    client_.user_);
}

bool ClientLogin::rejected() {
  if (step_ != Step::Lookup) return false;
  fail("bouncer config error", "08006");
  return true;
}

void ClientLogin::hidden_done(HiddenPurpose purpose, const HiddenResult& result) {
  ServerSession& server = *client_.server_;
  const bool looks_up = step_ == Step::Lookup;
  if (purpose == HiddenPurpose::Lookup || (looks_up && result.failed)) {
    // What follows may need another server, and a client has one at a time.
    found_ = result;
    server.finish_after_input();
    return;
  }
  if (looks_up) return run_lookup(server);
  if (result.failed) {
    // What the client asked for in its start-up packet is refused: it hears what the server says of it.
    server.finish_after_input();
    client_.fatal(result.message, result.sqlstate);
    return;
  }
  aligned(server);
}

void ClientLogin::server_released() {
  if (!found_) return;
  const HiddenResult result = std::move(*found_);
  found_.reset();
  lookup_done(result);
}

void ClientLogin::lookup_done(const HiddenResult& result) {
  WorkerCore& core = *client_.core_;
  if (result.failed || (result.rows > 0 && (result.columns != 2 || result.row.size() != 2 || !result.row[0]))) {
    core.log(LogLevel::Warning,
             client_.log_name() + "auth_query failed: " +
                 (result.failed ? result.message : std::string("wrong number of columns or no name")));
    return fail("bouncer config error", "28000");
  }
  if (result.rows == 0) {
    core.log(LogLevel::Log, client_.log_name() + "no such user: " + client_.user_);
    return fail("no such user", "28P01");
  }
  client_.user_ = *result.row[0];
  secret_ = result.row[1].value_or("");
  if (!secret_.empty() && !console_login()) {
    Credentials credentials;
    credentials.secret = secret_;
    core.share_credentials(client_.database_, client_.user_, credentials);
  }
  secret_known_ = true;
  if (choose_method() == Choice::Made) secret_found();
}

void ClientLogin::secret_found() {
  mock_ = secret_.empty() && method_ != AuthType::Cert && !others_judge();
  start_authentication();
}

void ClientLogin::authenticated() {
  WorkerCore& core = *client_.core_;
  if (console_login()) return start_console();
  if (find_database(core.config(), client_.database_) == nullptr) {
    log_failure(client_.user_);
    return fail(fmt::format("no such database: {}", client_.database_), "3D000");
  }
  bool disabled;
  {
    PoolLock pools(core.host());
    disabled = pools->is_disabled(client_.database_);
  }
  if (disabled) return fail(fmt::format("database \"{}\" is disabled", client_.database_), "57P03");
  if (core.shutdown() != ShutdownMode::None) return fail("pooler is shutting down", "57P01");
  core.register_database(client_.database_, client_.log_name());
  wanted_ = core.context_for(client_.database_, core.pool_user(client_.database_, client_.user_));
  if (wanted_ == nullptr) return fail(fmt::format("no such database: {}", client_.database_), "3D000");
  if (replication_ != Replication::None) return request_own_server();
  if (!extras_.empty()) {
    client_.parameters_.extras = std::make_shared<const protocol::ExtraParameters>(extras_.begin(), extras_.end());
  }
  prepare_welcome();
}

void ClientLogin::start_console() {
  step_ = Step::Done;
  client_.context_ = nullptr;
  client_.console_ = std::make_unique<Console>(client_, console_admin_);
  client_.state_ = ClientSession::State::Console;
  client_.parameters_.tracked = client_.core_->console_parameters(tracked_);
  client_.console_->welcome(client_.core_->new_cancel_key(client_.id_, true));
  ++client_.core_->console_stats().client_login_count;
  client_.core_->wake(client_);
}

bool ClientLogin::parameters_known() const {
  const auto& accepted = wanted_->accepted_parameters;
  const auto& names = *client_.core_->settings()->tracked;
  for (const auto& [index, value] : tracked_) {
    if (index == protocol::TrackedNames::kApplicationName) continue;
    if (!accepted.contains(parameter_key(names.name(index), value))) return false;
  }
  return std::all_of(extras_.begin(), extras_.end(),
                     [&](const auto& extra) { return accepted.contains(parameter_key(extra.first, extra.second)); });
}

// A login needs a server only where nothing is known yet: what servers of the pool report, or what they make of this
// client's start-up parameters.
void ClientLogin::prepare_welcome() {
  step_ = Step::Welcome;
  if (wanted_->report) sort_parameters(*wanted_->report);
  if (wanted_->report && parameters_known()) {
    welcome();
    return;
  }
  request_server(*wanted_);
}

void ClientLogin::retry_welcome(const PoolContext& pool) {
  if (step_ != Step::Welcome || client_.replication_ || wanted_ != &pool || !pool.report) return;
  sort_parameters(*pool.report);
  if (!parameters_known()) return;
  client_.stop_waiting();
  welcome();
}

/// What track_extra_parameters lists and the server does not report cannot be followed by its reports: it is kept as
/// any other parameter is.
void ClientLogin::sort_parameters(const ServerReport& report) {
  const auto& names = *client_.core_->settings()->tracked;
  const auto moved = std::erase_if(tracked_, [&](const auto& entry) {
    const auto& [index, value] = entry;
    const auto& values = report.tracked->values;
    if (index <= protocol::TrackedNames::kApplicationName || index >= values.size() || values[index]) return false;
    extras_[protocol::to_lower(names.name(index))] = value;
    return true;
  });
  if (moved == 0) return;
  client_.parameters_.extras = std::make_shared<const protocol::ExtraParameters>(extras_.begin(), extras_.end());
}

void ClientLogin::align(ServerSession& server) {
  sort_parameters(*server.report());
  const auto& names = *client_.core_->settings()->tracked;
  protocol::ParameterSetPtr desired = server.report()->tracked;
  for (const auto& [index, value] : tracked_) desired = with_value(desired, index, value);
  client_.parameters_.tracked = desired;
  const auto sql = alignment_sql(names, client_.parameters_, server.parameters());
  if (!sql) {
    server.finish_after_input();
    return fail("invalid server parameter", "22023");
  }
  if (sql->empty()) {
    aligned(server);
  } else {
    server.run_alignment(*sql, client_.parameters_.extras);
  }
}

void ClientLogin::aligned(ServerSession& server) {
  const auto& names = *client_.core_->settings()->tracked;
  server.parameters().extras = client_.parameters_.extras;
  server.parameters().extras_unknown = false;
  ParameterList learned;
  for (const auto& [index, value] : tracked_) {
    const auto& reported = server.parameters().tracked->values[index];
    learned.emplace_back(parameter_key(names.name(index), value), reported.value_or(value));
  }
  for (const auto& [name, value] : extras_) learned.emplace_back(parameter_key(name, value), value);
  client_.core_->share_knowledge(*wanted_, server.report(), learned);
  server.finish_after_input();
  welcome();
}

void ClientLogin::welcome() {
  const PoolContext& pool = *wanted_;
  const auto& names = *client_.core_->settings()->tracked;
  const std::shared_ptr<const ServerReport> report = pool.report;
  protocol::ParameterSetPtr values = report->tracked;
  for (auto& [index, value] : tracked_) {
    const auto it = pool.accepted_parameters.find(parameter_key(names.name(index), value));
    if (it != pool.accepted_parameters.end() && index != protocol::TrackedNames::kApplicationName) value = it->second;
    values = with_value(values, index, value);
  }
  client_.parameters_.tracked = values;
  if (!tracked_.empty()) client_.overrides_ = std::make_unique<StartupOverrides>(std::move(tracked_));
  send_welcome(report);
}

void ClientLogin::send_welcome(const std::shared_ptr<const ServerReport>& report) {
  WorkerCore& core = *client_.core_;
  PoolContext& pool = *wanted_;
  std::string message;
  append_welcome(message, report);
  step_ = Step::Done;
  client_.become_ready(pool);
  ++pool.stats.client_login_count;
  {
    PoolLock pools(core.host());
    pools->attach_client(client_.id_, pool.id, core.now(), core.actions());
  }
  client_.send(ByteView(message));
  if (core.debugs()) core.log(LogLevel::Debug, client_.log_name() + "logged in");
  core.wake(client_);
}

/// Valid until the next call. It is put together once for each report of a server.
const std::string& ClientLogin::shared_welcome(const std::shared_ptr<const ServerReport>& report) const {
  PoolContext::SharedWelcome& shared = wanted_->shared_welcome;
  const bool writable = wanted_->policy.read_write_split && wanted_->routed();
  if (shared.report == report && shared.writable == writable) return shared.text;
  shared = {report, writable, {}};
  protocol::append_authentication_ok(shared.text);
  for (const auto& [name, value] : report->untracked) {
    // Where a transaction goes decides itself: no single server's role is that of the whole.
    protocol::append_parameter_status(shared.text, name,
                                      writable && name == kHotStandby ? std::string_view("off") : value);
  }
  return shared.text;
}

void ClientLogin::append_welcome(std::string& out, const std::shared_ptr<const ServerReport>& report) const {
  constexpr std::size_t kUsualSize = 768;
  WorkerCore& core = *client_.core_;
  const auto& names = *core.settings()->tracked;
  out.reserve(kUsualSize);
  out += shared_welcome(report);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto& value = client_.parameters_.tracked->values[i];
    if (value) protocol::append_parameter_status(out, names.name(i), *value);
  }
  const std::uint64_t key = core.new_cancel_key(client_.id_, false);
  char secret[4];
  protocol::store_u32(secret, static_cast<std::uint32_t>(key));
  protocol::append_backend_key_data(out, static_cast<std::uint32_t>(key >> 32),
                                    std::string_view(secret, sizeof secret));
  if (!core.config().login_notify_message.empty()) {
    protocol::append_notice(out, "NOTICE", "00000", core.config().login_notify_message);
  }
  protocol::append_ready_for_query(out, 'I');
}

}  // namespace pgweir::core
