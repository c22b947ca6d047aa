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
    std::string line = client_.log_name();
    line.append("login attempt: db=").append(client_.database_).append(" user=").append(client_.user_);
    line.append(" tls=").append(client_.port().is_tls() ? client_.port().tls_info() : "no");
    line.append(" replication=").append(replication_word(startup_->request.replication));
    core.log(LogLevel::Log, std::move(line));
  }
  if (over_limit_ && !console_login()) return fail("no more connections allowed (max_client_conn)", "53300");
  if (console_login()) {
    PoolLock pools(core.host());
    pools->exempt_client(client_.id_);
  } else {
    pool::ClientLimit limit;
    const pool::ClientLimits& limits = startup().limits;
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
    if (entry() != nullptr && !entry()->user) {
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
  const DatabaseConfig* entry = this->entry();
  const std::string* in_file = startup().secret;
  if (in_file != nullptr && method_ == AuthType::Trust) return start_authentication();
  if (in_file != nullptr && !in_file->empty()) {
    secret_ = *in_file;
    return start_authentication();
  }
  // Whoever runs auth_query is known, if only by name: nobody looks them up.
  const std::string auth_user(entry != nullptr ? effective_auth_user(config, *entry) : config.auth_user.value_or(""));
  const bool listed = in_file != nullptr || (!auth_user.empty() && auth_user == client_.user_);
  if (listed && method_ == AuthType::Trust) return start_authentication();
  if (entry != nullptr || console_login()) {
    const std::string auth_db(entry != nullptr ? effective_auth_dbname(config, *entry)
                                               : std::string_view(config.auth_dbname.value_or("")));
    const std::string lookup_db = auth_db.empty() ? client_.database_ : auth_db;
    if (!auth_user.empty() && auth_user != client_.user_) {
      core.register_database(lookup_db, &client_);
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
  server.run_lookup(entry() != nullptr ? effective_auth_query(config, *entry()) : std::string_view(config.auth_query),
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
  if (entry() == nullptr) {
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
  if (is_fallback(core.config(), *entry())) core.register_database(client_.database_, &client_);
  wanted_ = core.login_context(*startup_, client_.user_);
  if (wanted_ == nullptr) return fail(fmt::format("no such database: {}", client_.database_), "3D000");
  if (startup_->request.replication != Replication::None) return request_own_server();
  prepare_welcome();
}

void ClientLogin::start_console() {
  step_ = Step::Done;
  client_.context_ = nullptr;
  client_.console_ = std::make_unique<Console>(client_, console_admin_);
  client_.state_ = ClientSession::State::Console;
  client_.parameters_.tracked = client_.core_->console_parameters(startup_->request.tracked);
  client_.console_->welcome(client_.core_->new_console_key(client_.id_));
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
  if (welcome_as_known()) return;
  tracked_ = startup_->request.tracked;
  extras_ = startup_->request.extras;
  if (!extras_.empty()) {
    client_.parameters_.extras = std::make_shared<const protocol::ExtraParameters>(extras_.begin(), extras_.end());
  }
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

/// Somebody who sent the same packet was welcomed by what the servers report now.
bool ClientLogin::welcome_as_known() {
  KnownWelcome& known = startup_->welcome;
  if (startup_->settings != client_.core_->settings() || known.report == nullptr) return false;
  if (known.report != wanted_->report || known.forgotten != wanted_->forgotten ||
      known.writable != wanted_->writable()) {
    return false;
  }
  client_.parameters_ = known.parameters;
  client_.overrides_ = known.overrides;
  send_welcome(known.text, known.key_at);
  return true;
}

void ClientLogin::welcome() {
  const PoolContext& pool = *wanted_;
  WorkerCore& core = *client_.core_;
  const auto& names = *core.settings()->tracked;
  const std::shared_ptr<const ServerReport> report = pool.report;
  protocol::ParameterSetPtr values = report->tracked;
  for (auto& [index, value] : tracked_) {
    const auto it = pool.accepted_parameters.find(parameter_key(names.name(index), value));
    if (it != pool.accepted_parameters.end() && index != protocol::TrackedNames::kApplicationName) value = it->second;
    values = with_value(values, index, value);
  }
  client_.parameters_.tracked = values;
  if (!tracked_.empty()) client_.overrides_ = std::make_shared<const StartupOverrides>(std::move(tracked_));
  const std::shared_ptr<KnownStartup> known = startup_;  // the login may be over when its welcome has been sent
  known->welcome = {report, pool.forgotten, pool.writable(), client_.parameters_, client_.overrides_, {}, 0};
  known->welcome.key_at = append_welcome(known->welcome.text, report);
  if (!packet_.empty() && known->settings == core.settings()) core.known_startups().keep(packet_, known);
  send_welcome(known->welcome.text, known->welcome.key_at);
}

/// `key_at`: where in the text the client's own key belongs.
void ClientLogin::send_welcome(std::string& text, std::size_t key_at) {
  WorkerCore& core = *client_.core_;
  PoolContext& pool = *wanted_;
  step_ = Step::Done;
  client_.become_ready(pool);
  ++pool.stats.client_login_count;
  protocol::store_u64(text.data() + key_at, core.admit_client(client_.id_, pool.id));
  client_.send(ByteView(text));
  if (core.debugs()) core.log(LogLevel::Debug, client_.log_name() + "logged in");
  core.wake(client_);
}

/// Valid until the next call. It is put together once for each report of a server.
const std::string& ClientLogin::shared_welcome(const std::shared_ptr<const ServerReport>& report) const {
  PoolContext::SharedWelcome& shared = wanted_->shared_welcome;
  const bool writable = wanted_->writable();
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

/// Returns where in `out` the client's key belongs, eight bytes.
std::size_t ClientLogin::append_welcome(std::string& out, const std::shared_ptr<const ServerReport>& report) const {
  constexpr std::size_t kUsualSize = 768;
  constexpr std::string_view kNoSecret("\0\0\0\0", 4);
  const Config& config = client_.core_->config();
  const auto& names = *client_.core_->settings()->tracked;
  out.reserve(kUsualSize);
  out += shared_welcome(report);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto& value = client_.parameters_.tracked->values[i];
    if (value) protocol::append_parameter_status(out, names.name(i), *value);
  }
  protocol::append_backend_key_data(out, 0, kNoSecret);
  const std::size_t key_at = out.size() - sizeof(std::uint64_t);
  if (!config.login_notify_message.empty()) {
    protocol::append_notice(out, "NOTICE", "00000", config.login_notify_message);
  }
  protocol::append_ready_for_query(out, 'I');
  return key_at;
}

}  // namespace pgweir::core
