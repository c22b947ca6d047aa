#include "proxy/core/server_login.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "pool/mutation.hpp"
#include "protocol/auth_md5.hpp"
#include "protocol/auth_secret.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace backend = protocol::backend;
using protocol::AuthRequest;
using protocol::SecretKind;

namespace {
constexpr std::uint32_t kProtocol30 = 196608;
/// No message of a login is longer; a server that sends more is none.
constexpr std::uint32_t kLoginMessageMax = 65536;
constexpr std::size_t kReportMax = 256;
constexpr char kSeparator = '\x1f';
}  // namespace

std::string encode_login_error(std::string_view sqlstate, std::string_view message) {
  return std::string(sqlstate.size() == 5 ? sqlstate : "08P01") + kSeparator + std::string(message);
}

std::pair<std::string_view, std::string_view> decode_login_error(std::string_view text) {
  if (text.size() > 5 && text[5] == kSeparator) return {text.substr(0, 5), text.substr(6)};
  return {"08P01", text};
}

void ServerLogin::start() {
  report_.tracked = server_.parameters_.tracked;
  if (server_.target_.sslmode == SslMode::Disable) {
    send_startup();
    return;
  }
  state_ = State::SslAnswer;
  std::string request;
  protocol::append_ssl_request(request);
  server_.send(ByteView(request));
}

void ServerLogin::send_startup() {
  state_ = State::Messages;
  const PoolContext& context = *server_.context_;
  std::vector<std::pair<std::string_view, std::string_view>> parameters{{"database", context.dbname}};
  if (context.entry != nullptr) {
    const DatabaseConfig& entry = *context.entry;
    const std::pair<const char*, const std::optional<std::string>*> extras[] = {
        {"client_encoding", &entry.client_encoding},
        {"datestyle", &entry.datestyle},
        {"timezone", &entry.timezone},
        {"application_name", &entry.application_name}};
    for (const auto& [name, value] : extras) {
      if (*value) parameters.emplace_back(name, **value);
    }
  }
  if (server_.replication_) add_replication(parameters);
  parameters.emplace_back("user", context.user);
  std::string packet;
  protocol::append_startup_message(packet, kProtocol30, parameters);
  server_.send(ByteView(packet));
}

// The client's values go before those of the database entry, which are what it would have got without asking.
void ServerLogin::add_replication(std::vector<std::pair<std::string_view, std::string_view>>& parameters) const {
  const ReplicationStartup& startup = *server_.replication_;
  for (const auto& [name, value] : startup.parameters) {
    std::erase_if(parameters,
                  [&, own = name](const auto& given) { return protocol::equal_ignoring_case(given.first, own); });
    parameters.emplace_back(name, value);
  }
  parameters.emplace_back("replication", startup.kind == Replication::Logical ? "database" : "true");
  if (startup.options) parameters.emplace_back("options", *startup.options);
}

void ServerLogin::tls_ready() {
  if (state_ == State::Handshake) {
    server_.core_->log(LogLevel::Log, server_.log_name() + "SSL established: " + server_.port().tls_info());
    send_startup();
  }
}

std::size_t ServerLogin::consume(ByteView in) {
  std::size_t pos = 0;
  while (pos < in.size()) {
    if (state_ == State::SslAnswer) {
      const char answer = in[pos++];
      if (answer == 'S' && pos < in.size()) {
        failed("received unencrypted data after SSL response", pool::CloseKind::LoginFailed);
      } else if (answer == 'S') {
        state_ = State::Handshake;
        server_.port().start_tls_client(server_.target_);
      } else if (answer == 'N' && server_.target_.sslmode <= SslMode::Prefer) {
        send_startup();
      } else {
        failed(answer == 'N' ? "server refused SSL" : "bad sslreq answer", pool::CloseKind::LoginFailed);
      }
      continue;
    }
    if (state_ != State::Messages) return state_ == State::Failed ? in.size() : pos;
    protocol::FrameHeader header;
    const auto status = read_frame_header(in.substr(pos), kLoginMessageMax, header);
    if (status == protocol::FrameStatus::NeedMore) return pos;
    if (status == protocol::FrameStatus::BadLength) {
      failed("bad pkt header", pool::CloseKind::LoginFailed);
      return in.size();
    }
    if (in.size() - pos < header.total()) return pos;
    if (server_.core_->noisy()) server_.log_packet(header.type, header.total());
    take_message(header.type, in.substr(pos + protocol::kHeaderSize, header.body()));
    pos += header.total();
  }
  return pos;
}

void ServerLogin::take_message(char type, ByteView body) {
  switch (type) {
    case backend::Authentication:
      take_authentication(body);
      return;
    case backend::ParameterStatus: {
      const auto parameter = protocol::parse_parameter_status(body);
      if (!parameter) return failed("broken ParameterStatus packet", pool::CloseKind::LoginFailed);
      if (server_.core_->debugs()) {
        server_.core_->log(LogLevel::Debug,
                           server_.log_name() + fmt::format("S: param: {} = {}", parameter->name, parameter->value));
      }
      if (const auto index = server_.core_->settings()->tracked->find(parameter->name)) {
        report_.tracked = with_value(report_.tracked, *index, parameter->value);
      } else if (report_.untracked.size() < kReportMax) {
        report_.untracked.emplace_back(parameter->name, parameter->value);
      }
      return;
    }
    case backend::BackendKeyData:
      if (const auto key = protocol::parse_backend_key_data(body)) {
        server_.key_ = {key->pid, std::string(key->secret)};
      }
      return;
    case backend::ErrorResponse:
      take_error(body);
      return;
    case backend::NoticeResponse:
    case backend::NegotiateProtocolVersion:
      return;
    case backend::ReadyForQuery:
      if (!authenticated_) return failed("ready before it was authenticated", pool::CloseKind::LoginFailed);
      if (protocol::parse_ready_for_query(body) != 'I')
        return failed("bad ReadyForQuery", pool::CloseKind::LoginFailed);
      logged_in();
      return;
    default:
      failed("unexpected message from server during login", pool::CloseKind::LoginFailed);
  }
}

std::optional<std::string> ServerLogin::secret() const {
  const PoolContext& context = *server_.context_;
  if (context.entry != nullptr && context.forced_user && context.entry->password) return context.entry->password;
  // What was found right last goes before what a file says; a forced user has its own.
  const AuthType type = context.settings->config->auth_type;
  const bool others_judge = type == AuthType::Pam || type == AuthType::Ldap || type == AuthType::Hba;
  if (others_judge && !context.forced_user && context.credentials.password) return context.credentials.password;
  const auto& users = *context.settings->users;
  if (const auto it = users.find(context.user); it != users.end() && !it->second.empty()) return it->second;
  return context.credentials.secret;
}

void ServerLogin::take_authentication(ByteView body) {
  const auto request = protocol::parse_authentication(body);
  if (!request) return failed("bad authentication request", pool::CloseKind::LoginFailed);
  protocol::Crypto& crypto = server_.core_->host().crypto();
  const std::string stored = secret().value_or("");
  const SecretKind kind = protocol::classify_secret(stored);
  std::string answer;
  switch (request->kind) {
    case AuthRequest::Ok:
      authenticated_ = true;
      if (server_.core_->debugs()) server_.core_->log(LogLevel::Debug, server_.log_name() + "S: auth ok");
      return;
    case AuthRequest::CleartextPassword:
      if (kind == SecretKind::Empty) break;
      protocol::append_password(answer, stored);
      server_.send(ByteView(answer));
      return;
    case AuthRequest::Md5Password: {
      const auto salt = protocol::md5_salt(*request);
      if (!salt || (kind != SecretKind::Plain && kind != SecretKind::Md5)) break;
      const std::string hashed =
          kind == SecretKind::Md5 ? stored : protocol::md5_secret(crypto, server_.context_->user, stored);
      protocol::append_password(answer, protocol::md5_response(crypto, hashed, *salt));
      server_.send(ByteView(answer));
      return;
    }
    case AuthRequest::Sasl:
      start_sasl(request->data);
      return;
    case AuthRequest::SaslContinue:
      if (auto missing = scram_ ? scram_->missing_key(request->data) : std::nullopt) {
        state_ = State::DeriveKey;
        server_first_ = std::string(request->data);
        derivation_ = server_.core_->derive_key(
            server_.id(), {std::move(missing->password), std::move(missing->salt), missing->iterations});
        return;
      }
      return continue_sasl(request->data);
    case AuthRequest::SaslFinal:
      if (!scram_ || !scram_->verify(request->data)) {
        failed("server login failed: invalid server signature", pool::CloseKind::LoginRejected);
      }
      return;
    default:
      // Waiting clients are not told, as in PgBouncer: the next try may find other rules in the server's pg_hba.conf.
      server_.core_->log(LogLevel::Error, server_.log_name() + fmt::format("unknown/unsupported auth method: {}",
                                                                           static_cast<unsigned>(request->kind)));
      failed("failed to answer authreq", pool::CloseKind::LoginFailed);
      return;
  }
  failed("server login failed: wrong password type", pool::CloseKind::LoginRejected);
}

void ServerLogin::start_sasl(ByteView mechanisms) {
  std::vector<ByteView> offered;
  const bool listed = protocol::sasl_mechanisms(mechanisms, offered);
  const auto has = [&](std::string_view name) {
    return std::find(offered.begin(), offered.end(), name) != offered.end();
  };
  if (!listed || !has(protocol::kScramMechanism)) {
    return failed("server login failed: none of the server's SASL authentication mechanisms are supported",
                  pool::CloseKind::LoginRejected);
  }
  WorkerCore& core = *server_.core_;
  protocol::ScramClientOptions options;
  options.server_offered_plus = has(protocol::kScramPlusMechanism);
  options.channel_binding_data = server_.port().tls_server_end_point();
  const std::string stored = secret().value_or("");
  const SecretKind kind = protocol::classify_secret(stored);
  const auto& keys = server_.context_->credentials.scram_keys;
  const std::string nonce = protocol::make_scram_nonce(core.host().crypto());
  if (kind == SecretKind::Plain) {
    scram_ =
        std::make_unique<protocol::ScramClient>(core.host().crypto(), stored, nonce, options, &core.password_cache());
  } else if (keys) {
    scram_ = std::make_unique<protocol::ScramClient>(core.host().crypto(), *keys, nonce, options);
  } else {
    return failed("server login failed: wrong password type", pool::CloseKind::LoginRejected);
  }
  std::string answer;
  protocol::append_sasl_initial_response(answer, scram_->mechanism(), scram_->first());
  server_.send(ByteView(answer));
}

void ServerLogin::continue_sasl(ByteView server_first) {
  const auto response = scram_ ? scram_->answer(server_first) : std::nullopt;
  if (!response) return failed("server login failed: invalid server message", pool::CloseKind::LoginRejected);
  std::string answer;
  protocol::append_sasl_response(answer, *response);
  server_.send(ByteView(answer));
}

void ServerLogin::key_derived(const KeyQuestion& question, const protocol::Sha256Digest& key) {
  if (state_ != State::DeriveKey) return;
  state_ = State::Messages;
  scram_->take_key(question.salt, question.iterations, key);
  continue_sasl(std::exchange(server_first_, {}));
}

void ServerLogin::take_error(ByteView body) {
  const auto error = protocol::parse_error_fields(body);
  if (!error) return failed("login failed", pool::CloseKind::LoginRejected);
  const bool shuts_down = error->sqlstate == "57P01" || error->sqlstate == "57P02";
  const bool not_there = error->sqlstate == "57P03" || (shuts_down && !server_.context_->host_name.empty());
  if (not_there) server_.core_->witness(*server_.context_, router::Witness::CannotConnect);
  const auto kind = not_there ? pool::CloseKind::ServerNotReadyYet : pool::CloseKind::LoginRejected;
  const ByteView text = error->message.empty() ? ByteView("login failed") : error->message;
  failed(text, kind, error->sqlstate, error->severity);
}

void ServerLogin::failed(std::string_view text, pool::CloseKind kind, std::string_view sqlstate,
                         std::string_view severity) {
  if (state_ == State::Failed) return;
  state_ = State::Failed;
  server_.core_->log(LogLevel::Warning, server_.log_name() + fmt::format("server login failed: {}{}{}", severity,
                                                                         severity.empty() ? "" : " ", text));
  server_.close(text, kind, encode_login_error(sqlstate, text));
}

void ServerLogin::hung_up(const std::string& reason) {
  if (state_ == State::Handshake) return failed(reason, pool::CloseKind::LoginFailed);
  failed("server conn crashed?", pool::CloseKind::LoginFailed);
}

void ServerLogin::logged_in() {
  if (server_.core_->debugs()) {
    server_.core_->log(LogLevel::Debug, server_.log_name() + "server login ok, start accepting queries");
  }
  server_.parameters_.tracked = report_.tracked;
  server_.report_ = std::make_shared<const ServerReport>(std::move(report_));
  // One that replicates has its client's values, which are no example for others.
  if (!server_.replication_ || PGWEIR_MUTANT(10)) share_report();
  HostRole role = HostRole::Unknown;
  for (const auto& [name, value] : server_.report_->untracked) {
    if (name == kHotStandby) role = role_of(value);
  }
  server_.set_role(role);
  const PoolContext& context = *server_.context_;
  // A walsender for physical replication knows no SQL.
  const bool may_query = server_.replication() != Replication::Physical;
  if (may_query && context.entry != nullptr && context.entry->connect_query && !context.entry->connect_query->empty()) {
    state_ = State::ConnectQuery;
    server_.run_hidden(*context.entry->connect_query, HiddenPurpose::Connect);
    return;
  }
  state_ = State::Done;
}

void ServerLogin::share_report() {
  PoolContext& context = server_.context_->client_side();
  // Keep the old pointer where nothing changed, so that clients welcomed earlier compare equal by pointer.
  if (context.report && *context.report == *server_.report_) {
    server_.report_ = context.report;
    server_.parameters_.tracked = context.report->tracked;
  } else {
    server_.core_->share_knowledge(context, server_.report_, {});
  }
}

void ServerLogin::connect_query_done(const HiddenResult& result) {
  if (result.failed) {
    server_.core_->log(LogLevel::Warning, server_.log_name() + "connect_query failed: " + result.message);
  }
  state_ = State::Done;
}

}  // namespace pgweir::core
