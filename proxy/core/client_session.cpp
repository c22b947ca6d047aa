// Life of a client connection outside of relaying: links to servers, time limits, ways out. The relay is in
// client_relay.cpp, the login in client_login.cpp.
#include "proxy/core/client_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "protocol/message_builder.hpp"
#include "proxy/core/client_login.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/server_login.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {
/// Unread bytes kept of a client that may not send on yet (waiting for a server, or for replies).
constexpr std::size_t kUnreadMax = 65536;
/// A text whose memory is used again is not longer: it is held by a client, too, that needs less.
constexpr std::size_t kSpareTextMax = 512;
/// How long a last message may take to leave.
constexpr Duration kLinger = std::chrono::seconds(5);

TimePoint after(TimePoint start, Duration limit) {
  return limit > Duration::zero() ? start + limit : pool::kNever;
}
}  // namespace

ClientSession::ClientSession(WorkerCore& core, std::unique_ptr<Port> port, pool::ClientId id, PeerAddress address)
    : Connection(core, std::move(port)),
      id_(id),
      last_request_(core.now()),
      login_(std::make_unique<ClientLogin>(*this)),
      address_(std::move(address)),
      connected_at_(core.now()),
      connect_wall_us_(core.host().wall_clock_us()),
      number_(core.host().next_number()) {
  core.schedule(*this, next_deadline());
}

ClientSession::~ClientSession() = default;

// Without fmt's formats: with log_connections there are two lines for each login, and this is most of both.
std::string ClientSession::log_name() const {
  constexpr std::size_t kUsualSize = 160;  // with the rest of the line
  const auto append_number = [](std::string& out, std::uint64_t number, int base) {
    std::array<char, 20> digits;
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number, base).ptr;
    out.append(digits.data(), end);
  };
  std::string name;
  name.reserve(kUsualSize);
  name += "C-0x";
  append_number(name, number_, 16);
  name += ": ";
  name += database_.empty() ? std::string_view("(nodb)") : std::string_view(database_);
  name += '/';
  name += user_.empty() ? std::string_view("(nouser)") : std::string_view(user_);
  name += '@';
  if (address_.is_unix) {
    name += "unix(";
    append_number(name, static_cast<std::uint64_t>(std::max(address_.pid, 0)), 10);
    name += "):";
    append_number(name, static_cast<std::uint64_t>(core_->config().listen_port), 10);
  } else {
    name += bracketed(address_.host);
    name += ':';
    append_number(name, static_cast<std::uint64_t>(address_.port), 10);
  }
  name += ' ';
  return name;
}

std::optional<pool::CancelId> ClientSession::cancel_request() const {
  if (state_ != State::Login || !login_->is_cancel()) return std::nullopt;
  return login_->cancel();
}

std::string ClientSession::application_name() const {
  const auto index = protocol::TrackedNames::kApplicationName;
  if (!parameters_.tracked || parameters_.tracked->values.size() <= index) return {};
  return parameters_.tracked->values[index].value_or("");
}

std::size_t ClientSession::consume(ByteView in) {
  switch (state_) {
    case State::Login:
      return login_->consume(in);
    case State::Ready:
      return relay(in);
    case State::Console:
      return console_->consume(in);
    case State::Closing:
      return in.size();
  }
  return in.size();
}

bool ClientSession::wants_input() const {
  if (state_ == State::Closing || (core_->suspending() && state_ == State::Ready)) return false;
  if (state_ == State::Ready && server_ != nullptr && server_->has_unsent()) return false;
  // Answers of our own pile up if the client does not read them: it may send on when it has. A stream has no answers,
  // and the server would end it if it heard nothing from a client that is only slow.
  if (has_unsent() && (server_ == nullptr || !server_->streaming())) return false;
  return unread_size() < kUnreadMax || (state_ == State::Ready && server_ != nullptr && server_->accepts_messages());
}

std::uint8_t ClientSession::wanted_events() const {
  const bool hangup = waiting_ || (state_ == State::Login && login_->waits_for_host());
  return static_cast<std::uint8_t>((wants_input() ? kRead : 0) | (hangup ? kHangup : 0));
}

void ClientSession::on_woken() {
  if (login_ && state_ != State::Login) login_.reset();
  if (login_ && server_ == nullptr && !waiting_ && !closed()) login_->server_released();
  resume_input();
  update_interest();
}

void ClientSession::on_output_drained() {
  if (state_ == State::Closing) {
    finish_closing();
    return;
  }
  if (server_ != nullptr) core_->wake(*server_);
  core_->wake(*this);
}

void ClientSession::deliver(std::span<const ByteView> pieces) {
  if (state_ == State::Closing) return;
  send(pieces);
  if (has_unsent() && server_ != nullptr) server_->update_interest();
}

void ClientSession::retry_welcome(const PoolContext& pool) {
  if (state_ == State::Login && waiting_) login_->retry_welcome(pool);
}

void ClientSession::on_password_checked(const PasswordVerdict& verdict) {
  if (state_ != State::Login) return;
  login_->password_checked(verdict);
  core_->wake(*this);
}

void ClientSession::on_host_name(const std::string& name) {
  if (state_ != State::Login) return;
  login_->host_name_found(name);
  core_->wake(*this);
}

void ClientSession::on_key_derived(const KeyQuestion& question, const protocol::Sha256Digest& key) {
  if (state_ != State::Login) return;
  login_->key_derived(question, key);
  core_->wake(*this);
}

void ClientSession::set_over_limit() {
  login_->set_over_limit();
}

void ClientSession::on_tls_ready() {
  if (login_) login_->tls_ready();
}

void ClientSession::on_hangup(const std::string& reason) {
  if (closed()) return;
  disconnect(reason);
}

bool ClientSession::on_granted(ServerSession& server, bool needs_check) {
  if (waiting_ && core_->debugs()) core_->log(LogLevel::Debug, log_name() + "activate_client");
  waiting_ = false;
  server_ = &server;
  sent_to_server_ = asks_first_ = false;
  PoolContext& context = server.context();
  // A server that is only asked whether it takes the client's start-up parameters has not been given to the client.
  if (state_ != State::Login || login_->keeps_server()) ++context.stats.server_assignment_count;
  context.stats.wait_time += static_cast<std::uint64_t>((core_->now() - wait_start_).count());
  if (server.latencies() != nullptr) server.latencies()->wait.add(core_->now() - wait_start_);
  if (!accepts_role(server)) return false;
  if (needs_check) {
    const std::string& query = core_->config().server_check_query;
    server.run_hidden(query == "<empty>" ? std::string_view() : std::string_view(query), HiddenPurpose::Check);
    return false;
  }
  if (state_ != State::Login) return true;
  login_->granted(server);
  return false;
}

void ClientSession::on_hidden_done(HiddenPurpose purpose, const HiddenResult& result) {
  ServerSession& server = *server_;
  if (purpose == HiddenPurpose::Check) {
    if (result.failed) {
      server.close("test query failed");  // ends in on_server_lost, which asks for another
    } else if (state_ == State::Login) {
      login_->granted(server);
    } else {
      core_->wake(*this);
    }
    return;
  }
  if (result.failure == router::FailureKind::Serializable && server.context().policy.read_write_split) {
    core_->learn_serializable(server.context());
    server.close("serializable by default, which a standby refuses");  // here, too, another one is asked for
    return;
  }
  if (state_ == State::Login) {
    login_->hidden_done(purpose, result);
    return;
  }
  if (result.failed) {
    // The SETs were one transaction, so the server is as it was; this client cannot have what it asks for.
    core_->log(LogLevel::Warning, log_name() + "cannot set parameters on server: " + result.message);
    fatal("invalid server parameter", core_->sqlstate("22023"));
    return;
  }
  server.parameters().extras = parameters_.extras;
  server.parameters().extras_unknown = false;
  if (parameters_.tracked && server.parameters().tracked) take_spelling(*server.parameters().tracked);
  if (parameters_.tracked && *parameters_.tracked == *server.parameters().tracked) {
    parameters_.tracked = server.parameters().tracked;
  }
  server.set_aligned();
  core_->wake(*this);
}

// The client's values as the server spells them.
void ClientSession::take_spelling(const protocol::ParameterSet& server) {
  for (std::size_t i = 0; i < server.values.size() && i < parameters_.tracked->values.size(); ++i) {
    if (server.values[i] && parameters_.tracked->values[i]) {
      parameters_.tracked = with_value(parameters_.tracked, i, *server.values[i]);
    }
  }
}

bool ClientSession::releases_server() const {
  return state_ == State::Ready && sent_to_server_ && pinned_ == PinReason::None &&
         (stream_left_ == 0 || !stream_forward_);
}

void ClientSession::on_rejected(std::string_view reason) {
  if (!waiting_) return;  // it has been served since, by its own worker
  core_->leases().withdraw(id_);
  waiting_ = false;
  if (state_ == State::Login && login_->rejected()) return;
  const auto [sqlstate, message] = decode_login_error(reason);
  const bool login_error = message.size() < reason.size();
  if (login_error && replication_) return fatal("login failed", core_->sqlstate("08006"));
  fatal(message, sqlstate);
}

void ClientSession::on_dropped(std::string_view reason) {
  if (state_ == State::Closing || closed()) return;
  fatal(reason, core_->sqlstate("57P01"));
}

bool ClientSession::on_cancel_while_waiting() {
  if (state_ == State::Console) {
    console_->interrupt();
    return true;
  }
  if (state_ != State::Ready) return true;
  if (!waiting_) return server_ == nullptr || cancel_unsent();
  stop_waiting();
  cancel_pending_ = true;
  if (route_) {
    route_->end_transaction();
    count_outstanding(std::nullopt);
  }
  core_->wake(*this);
  return true;
}

void ClientSession::cancel_begun(pool::CancelId cancel) {
  if (login_) login_->cancel_begun(cancel);
}

// A request is held back while something of ours runs on its server, which a cancel must not hit instead.
bool ClientSession::cancel_unsent() {
  if (state_ != State::Ready || server_ == nullptr || !server_->runs_hidden() || unread_size() == 0) return false;
  cancel_pending_ = true;
  return true;
}

void ClientSession::fatal(std::string_view text, std::string_view sqlstate) {
  if (state_ == State::Closing || closed()) return;
  std::string message;
  protocol::append_error(message, "FATAL", sqlstate, text);
  log_closing(text);
  if (core_->config().log_pooler_errors)
    core_->log(LogLevel::Warning, log_name() + fmt::format("pooler error: {}", text));
  if (server_ != nullptr && server_->mid_message()) output_cut_ = true;
  state_ = State::Closing;
  leave();
  if (!output_cut_) send(ByteView(message));
  closing_at_ = core_->now();
  if (!has_unsent()) {
    finish_closing();
  } else {
    core_->schedule(*this, next_deadline());
  }
}

void ClientSession::disconnect(std::string_view reason) {
  if (closed()) return;
  // Whoever leaves before saying who it is is not logged: health probes would fill the log.
  if (state_ != State::Closing && !user_.empty()) log_closing(reason);
  state_ = State::Closing;
  leave();
  finish_closing();
}

void ClientSession::finish_closing() {
  if (closed()) return;
  close_port();
  core_->bury(*this);
}

void ClientSession::log_closing(std::string_view reason) {
  if (!core_->config().log_disconnections) return;
  const auto age = std::chrono::duration_cast<std::chrono::seconds>(core_->now() - connected_at_).count();
  std::string line = log_name();
  line.append("closing because: ").append(reason).append(" (age=").append(std::to_string(age)).append("s)");
  core_->log(LogLevel::Log, std::move(line));
}

void ClientSession::leave() {
  if (left_) return;
  left_ = true;
  count_outstanding(std::nullopt);
  console_.reset();
  if (login_) login_->abandon();
  if (server_ != nullptr) {
    ServerSession* server = server_;
    server_ = nullptr;
    server->client_left(terminated_);
  }
  if (waiting_) core_->leases().withdraw(id_);
  waiting_ = false;
  PoolLock pools(core_->host());
  pools->remove_client(id_, core_->now(), core_->actions());
}

const std::string* ClientSession::take_parameter(std::size_t index, std::string_view value, bool after_reset) {
  if (!parameters_.tracked || index >= parameters_.tracked->values.size()) return nullptr;
  if (after_reset && overrides_) {
    for (const auto& [overridden, own] : *overrides_) {
      if (overridden != index) continue;
      parameters_.tracked = with_value(parameters_.tracked, index, own);
      return &own;
    }
  }
  parameters_.tracked = with_value(parameters_.tracked, index, value);
  return nullptr;
}

// The server does not report a parameter that had its default already; the client's own start-up value is another one.
void ClientSession::restore_startup(std::uint32_t which, OutBatch& out) {
  if (!overrides_ || !parameters_.tracked) return;
  for (const auto& [index, own] : *overrides_) {
    if ((which >> index & 1U) == 0) continue;
    const protocol::ParameterSetPtr before = parameters_.tracked;
    parameters_.tracked = with_value(before, index, own);
    if (parameters_.tracked == before) continue;
    protocol::append_parameter_status(out.begin_own(), core_->settings()->tracked->name(index), own);
    out.end_own();
  }
}

// As drop_unnamed(), because of a message that the server skips if one before it fails: then nothing was dropped.
// Returns the serial for the message's entry in the ledger, which tells how it went.
std::uint32_t ClientSession::mark_unnamed_dropped() {
  Unnamed none;  // never kept, so that it cannot be used
  none.serial = next_unnamed_serial();
  none.segment = segment_;
  unnamed_.push_back(std::move(none));
  return unnamed_.back().serial;
}

std::uint32_t ClientSession::next_unnamed_serial() {
  const std::uint32_t serial = next_unnamed_serial_++;
  if (next_unnamed_serial_ == 0) next_unnamed_serial_ = 1;
  return serial;
}

void ClientSession::unnamed_parsed(std::uint32_t serial) {
  for (std::size_t i = 0; i < unnamed_.size(); ++i) {
    if (unnamed_[i].serial != serial) continue;
    unnamed_[i].parsed = true;
    if (i == 0) return;
    // Whoever prepares one after another needs no memory for each.
    std::string& dropped = unnamed_.front().query;
    if (dropped.capacity() <= kSpareTextMax) core_->spare_text().swap(dropped);
    unnamed_.erase(unnamed_.begin(), unnamed_.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
}

// A Parse drops the statement before it, whether it succeeds or not; those behind it have been skipped.
void ClientSession::unnamed_failed(std::uint32_t serial) {
  const bool known =
      std::any_of(unnamed_.begin(), unnamed_.end(), [&](const Unnamed& one) { return one.serial == serial; });
  if (known) unnamed_.clear();
}

void ClientSession::unnamed_skipped(std::uint32_t serial) {
  std::erase_if(unnamed_, [&](const Unnamed& one) { return one.serial == serial; });
}

void ClientSession::become_ready(PoolContext& context) {
  context_ = &context;
  state_ = State::Ready;
  mode_ = replication_ ? PoolMode::Session : context.mode;
  pinned_ = replication_                 ? PinReason::Replication
            : mode_ == PoolMode::Session ? PinReason::SessionMode
                                         : PinReason::None;
  tracks_ = !replication_ && context.tracks_statements();
  if (tracks_) statements_ = std::make_unique<protocol::ClientStatements>();
  settings_changed();
  last_request_ = core_->now();
  core_->schedule(*this, next_deadline());
}

bool ClientSession::refers_to(const PoolContext& context) const {
  // Of contexts of single hosts the one of the clients is as good as a reference.
  return context_ == &context || (route_ && route_->pool == &context) || (login_ && login_->refers_to(context));
}

void ClientSession::settings_changed() {
  if (context_ == nullptr || context_->entry == nullptr) return;
  const Config& config = core_->config();
  wait_timeout_ = effective_query_wait_timeout(config, *context_->entry, user_);
  idle_timeout_ = effective_client_idle_timeout(config, user_);
  has_deadlines_ = context_->query_timeout > Duration::zero() || context_->transaction_timeout > Duration::zero() ||
                   context_->idle_transaction_timeout > Duration::zero();
  if (state_ == State::Ready) core_->schedule(*this, next_deadline());
}

TimePoint ClientSession::wait_deadline() const {
  return waiting_ ? std::min(after(wait_start_, wait_timeout_), route_deadline()) : pool::kNever;
}

// A stream of changes is one query for as long as both ends live; what shows that the client does is what it sends.
TimePoint ClientSession::query_deadline() const {
  return in_query_ ? after(replication_ ? last_request_ : query_start_, context_->query_timeout) : pool::kNever;
}

TimePoint ClientSession::transaction_deadline() const {
  const bool counts = in_transaction_ && server_ != nullptr && !server_->streaming();
  return counts ? after(transaction_start_, context_->transaction_timeout) : pool::kNever;
}

/// A login that waits for a server is under the same limit as a query that does.
TimePoint ClientSession::login_query_deadline() const {
  const PoolContext* wanted = login_->wanted_pool();
  return waiting_ && wanted != nullptr ? after(wait_start_, wanted->query_timeout) : pool::kNever;
}

TimePoint ClientSession::next_deadline() const {
  const Config& config = core_->config();
  if (state_ == State::Closing) return closing_at_ + kLinger;
  if (state_ == State::Console) return console_->deadline();
  TimePoint at = wait_deadline();
  if (state_ == State::Login) {
    if (login_->is_cancel()) return pool::kNever;
    return std::min({at, login_query_deadline(), after(connected_at_, config.client_login_timeout)});
  }
  if (waiting_) {
    if (!notified_) at = std::min(at, after(wait_start_, config.query_wait_notify));
  } else if (server_ == nullptr) {
    at = std::min(at, after(last_request_, idle_timeout_));
  }
  if (!has_deadlines_) return at;
  at = std::min({at, query_deadline(), transaction_deadline()});
  if (in_transaction_ && !in_query_ && server_ != nullptr) {
    at = std::min(at, after(last_request_, context_->idle_transaction_timeout));
  }
  return at;
}

void ClientSession::on_timer(TimePoint now) {
  if (closed()) return;
  if (state_ == State::Closing) {
    if (now >= closing_at_ + kLinger) {
      finish_closing();
    } else {
      core_->schedule(*this, closing_at_ + kLinger);
    }
    return;
  }
  if (state_ == State::Console) {
    console_->on_timer(now);
    if (closed() || state_ != State::Console) return;
  } else if (state_ == State::Login) {
    if (login_->is_cancel()) return;
    if (now >= after(connected_at_, core_->config().client_login_timeout)) {
      fatal(waiting_ ? "client_login_timeout (server down)" : "client_login_timeout", core_->sqlstate("08006"));
      return;
    }
    if (now >= login_query_deadline()) return fatal("query_timeout", core_->sqlstate("57014"));
    if (!check_wait_timeout(now)) return;
  } else if (state_ == State::Ready && (!check_wait_limits(now) || !check_query_limits(now))) {
    return;
  }
  const TimePoint at = next_deadline();
  if (at != pool::kNever) core_->schedule(*this, at);
}

// False if the client was closed.
bool ClientSession::check_wait_timeout(TimePoint now) {
  if (now < wait_deadline()) return true;
  if (now >= route_deadline()) {
    fatal(no_host_text(), "57P03");
  } else {
    fatal("query_wait_timeout", core_->sqlstate("57014"));
  }
  return false;
}

// False if the client was closed.
bool ClientSession::check_wait_limits(TimePoint now) {
  const Config& config = core_->config();
  if (waiting_) {
    if (!check_wait_timeout(now)) return false;
    if (!notified_ && now >= after(wait_start_, config.query_wait_notify)) {
      notified_ = true;
      std::string notice;
      protocol::append_notice(notice, "NOTICE", "00000",
                              "No server connection available in postgres backend, client being queued");
      send(ByteView(notice));
    }
  } else if (server_ == nullptr && now >= after(last_request_, idle_timeout_)) {
    fatal("client_idle_timeout", core_->sqlstate("57P05"));
    return false;
  }
  return true;
}

bool ClientSession::check_query_limits(TimePoint now) {
  if (!has_deadlines_) return true;
  const char* over = nullptr;
  if (now >= query_deadline()) {
    over = waiting_ ? "query_timeout" : "query timeout";
  } else if (now >= transaction_deadline()) {
    over = "transaction timeout";
  } else if (in_transaction_ && !in_query_ && server_ != nullptr &&
             now >= after(last_request_, context_->idle_transaction_timeout)) {
    over = "idle transaction timeout";
  }
  if (over == nullptr) return true;
  if (server_ != nullptr) {
    // The server connection goes too, whatever state it is in.
    ServerSession* server = server_;
    output_cut_ = server->mid_message();
    server_ = nullptr;
    server->drop_client(over);
  }
  fatal(over, core_->sqlstate("57014"));
  return false;
}

}  // namespace pgweir::core
