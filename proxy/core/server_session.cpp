// Life of a server connection outside of relaying: linking, hidden queries, giving back, closing, moving. The relay is
// in server_relay.cpp, the login in server_login.cpp.
#include "proxy/core/server_session.hpp"

#include <fmt/format.h>

#include "pool/mutation.hpp"
#include "protocol/message_builder.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/server_login.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {
/// How long a closing connection may keep its permit before we stop waiting for the server to end it.
constexpr Duration kLinger = std::chrono::seconds(5);
}  // namespace

ServerSession::ServerSession(WorkerCore& core, std::unique_ptr<Port> port, pool::ServerId id, PoolContext& context,
                             PeerAddress address, ServerTarget target)
    : Connection(core, std::move(port)),
      id_(id),
      context_(&context),
      lease_(id),
      last_packet_(core.now()),
      pool_(context.id),
      address_(std::move(address)),
      target_(std::move(target)),
      connected_at_(core.now()),
      connect_wall_us_(core.host().wall_clock_us()),
      number_(core.host().next_number()) {
  parameters_.tracked = std::make_shared<protocol::ParameterSet>(
      protocol::ParameterSet{std::vector<std::optional<std::string>>(core.settings()->tracked->size())});
}

ServerSession::~ServerSession() = default;

std::string ServerSession::log_name() const {
  return fmt::format("S-{:#x}: {}/{}@{}:{} ", number_, context_->database, context_->user, bracketed(address_.host),
                     address_.port);
}

void ServerSession::log_packet(char type, std::size_t length) const {
  core_->log(LogLevel::Noise, log_name() + fmt::format("read pkt='{}', len={}", type, length));
}

void ServerSession::start_login(TimePoint started) {
  login_since_ = started;
  login_ = std::make_unique<ServerLogin>(*this);
  core_->schedule(*this, login_since_ + core_->config().server_connect_timeout);
  login_->start();
}

void ServerSession::on_tls_ready() {
  if (login_) login_->tls_ready();
}

void ServerSession::on_key_derived(const KeyQuestion& question, const protocol::Sha256Digest& key) {
  if (closed() || terminated_ || !login_) return;
  login_->key_derived(question, key);
  core_->wake(*this);
}

void ServerSession::link(ClientSession& client) {
  client_ = &client;
  needs_alignment_ = !replication_;  // a server for one client began with its parameters
  reset_now_ = restored_ = 0;
  last_packet_ = core_->now();
}

void ServerSession::run_hidden(std::string_view sql, HiddenPurpose purpose) {
  if (closed()) return;
  std::string message;
  protocol::append_query(message, sql);
  protocol::ReplyEntry entry;
  entry.kind = protocol::ReplyKind::HiddenQuery;
  entry.purpose = static_cast<std::uint8_t>(purpose);
  ledger_.push(std::move(entry), {});
  ++hidden_;
  unnamed = {};  // a simple query drops the server's unnamed statement
  hidden_result_ = std::make_unique<HiddenResult>();
  send(ByteView(message));
}

void ServerSession::run_lookup(std::string_view sql, std::string_view user) {
  if (closed()) return;
  std::string message;
  const std::optional<std::string_view> parameter = user;
  protocol::append_parse(message, "", sql, {});
  protocol::append_bind_text(message, "", "", {&parameter, 1});
  protocol::append_describe(message, 'P', "");
  protocol::append_execute(message, "", 0);
  protocol::append_sync(message);
  protocol::ReplyEntry entry;
  entry.kind = protocol::ReplyKind::HiddenQuery;
  entry.purpose = static_cast<std::uint8_t>(HiddenPurpose::Lookup);
  ledger_.push(std::move(entry), {});
  ++hidden_;
  unnamed = {};
  hidden_result_ = std::make_unique<HiddenResult>();
  send(ByteView(message));
}

void ServerSession::forward(std::span<const ByteView> pieces) {
  last_packet_ = core_->now();
  send(pieces);
}

void ServerSession::on_output_drained() {
  if (client_ == nullptr) return;
  // A COPY that has failed was answered before all its data had left: only now is the server free.
  if (between_transactions()) core_->wake(*this);
  core_->wake(*client_);
}

std::uint8_t ServerSession::wanted_events() const {
  // One unsent buffer of the client is the whole window: a slow reader stops its server.
  return client_ == nullptr || !client_->has_unsent() ? kRead : 0;
}

void ServerSession::hidden_done() {
  const auto purpose = static_cast<HiddenPurpose>(ledger_.front().purpose);
  ledger_.drop_front();
  --hidden_;
  const std::unique_ptr<HiddenResult> result = std::move(hidden_result_);
  switch (purpose) {
    case HiddenPurpose::Connect:
      login_->connect_query_done(*result);
      return;
    case HiddenPurpose::Align:
      if (!result->failed) {
        parameters_.extras = std::move(aligning_extras_);
        parameters_.extras_unknown = false;
      }
      [[fallthrough]];
    case HiddenPurpose::Check:
    case HiddenPurpose::Lookup:
      if (client_ != nullptr) {
        client_->on_hidden_done(purpose, *result);
      } else {
        finish_ = true;  // the client left meanwhile
      }
      return;
    case HiddenPurpose::Reset:
      // PgBouncer ignores errors of the reset query; a server that is still in a transaction afterwards is not used.
      // A canceled one is another matter, and one that a standby refuses with all that is serializable: it has reset
      // nothing, and the next client must not meet what is left.
      if (result->failed && result->sqlstate == "57014" && dirty_.empty()) dirty_ = "reset query was canceled";
      if (result->failure == router::FailureKind::Serializable && dirty_.empty()) dirty_ = "reset query was refused";
      statement_tables_cleared();
      parameters_.extras.reset();
      parameters_.extras_unknown = false;
      finish_ = true;
      return;
    case HiddenPurpose::Rollback:
      finish_ = true;
      return;
  }
}

void ServerSession::client_left(bool by_terminate) {
  client_ = nullptr;
  if (closed() || terminated_) return;
  if (replication_) {
    // A stream or a copy of the cluster has no end that anybody waits for. Only SQL may finish, as below.
    const bool may_finish =
        by_terminate && replication_->kind == Replication::Logical && !copy_both_ && !ledger_.idle();
    return abandon("replication client was closed", !may_finish);
  }
  if (hidden_ > 0) {
    testing_ = true;
    release(pool::ReleaseKind::NeedsTest);
    core_->schedule(*this, core_->now() + core_->config().server_connect_timeout);
    return;  // goes on in hidden_done
  }
  // Of a COPY that has failed the client may have sent but half a CopyData: the rest would be the next client's
  // request.
  const bool at_rest =
      ledger_.idle() && stream_left_ == 0 && unread_size() == 0 && !has_unsent() && !copy_both_ && !mid_request_;
  if (at_rest && status_ == 'I') {
    give_back();
  } else if (at_rest) {
    testing_ = true;
    release(pool::ReleaseKind::NeedsTest);
    core_->schedule(*this, core_->now() + core_->config().server_connect_timeout);
    run_hidden("ROLLBACK", HiddenPurpose::Rollback);
  } else {
    // A query whose client said goodbye may finish, as it would without a pooler. One whose client died is stopped.
    abandon("client disconnect while server was not ready", !by_terminate);
  }
}

void ServerSession::finish_after_input() {
  finish_ = true;
  core_->wake(*this);
}

void ServerSession::take_back() {
  client_ = nullptr;
  give_back();
}

void ServerSession::on_woken() {
  if (client_ != nullptr && !PGWEIR_MUTANT(27)) {
    // In a process that has taken over: what the old one held back because it might have sent the request again.
    OutBatch& out = core_->batch();
    answer_local(out);
    flush_to_client(out);
  }
  resume_input();
  if (!closed() && unread_size() == 0) (void)release_if_free();
  update_interest();
}

void ServerSession::give_back() {
  finish_ = mid_request_ = discarding_ = catalog_seen_ = wrote_seen_ = ended_seen_ = false;
  if (client_ != nullptr) {
    ClientSession* client = client_;
    client_ = nullptr;
    client->on_server_released();
  }
  if (closed() || terminated_) return;
  const bool settled = ledger_.idle() || PGWEIR_MUTANT(2);
  if (status_ != 'I' || !settled || stream_left_ > 0 || unread_size() > 0 || has_unsent()) {
    close(dirty_.empty() ? "server was not ready" : std::string(dirty_));
    return;
  }
  if (!dirty_.empty()) {
    close(std::string(dirty_));
    return;
  }
  const Config& config = core_->config();
  const bool reset = (session_used_ || config.server_reset_query_always) && !config.server_reset_query.empty() && used_;
  used_ = session_used_ = false;
  if (!reset) {
    testing_ = false;
    release(pool::ReleaseKind::Clean);
    return;
  }
  if (!testing_) release(pool::ReleaseKind::NeedsTest);
  testing_ = true;
  core_->schedule(*this, core_->now() + config.server_connect_timeout);
  run_hidden(config.server_reset_query, HiddenPurpose::Reset);
}

void ServerSession::release(pool::ReleaseKind kind) {
  if (kind == pool::ReleaseKind::Clean) testing_ = false;
  testing_since_ = core_->now();
  const bool clean = kind == pool::ReleaseKind::Clean;
  if (clean && core_->leases().release(context_->local, lease_, core_->now())) return;
  lease_.end();
  PoolLock pools(core_->host());
  pools->release(id_, kind, core_->now(), core_->actions());
}

bool ServerSession::wants_flush() {
  if (!ledger_.full()) {
    flush_wanted_ = true;
    return false;
  }
  const bool wanted = flush_wanted_ && ledger_.unsynced() && !ledger_.copying_in();
  flush_wanted_ = false;
  return wanted;
}

void ServerSession::close_between_transactions() {
  fast_close_ = true;
  if (unread_size() == 0) (void)release_if_free();
}

void ServerSession::drop_client(std::string_view reason) {
  client_ = nullptr;
  close(reason);
}

void ServerSession::lose_host() {
  host_lost_ = true;
  close("server conn crashed?");
}

void ServerSession::abandon(std::string_view reason, bool interrupt) {
  finish_when_done_ = !interrupt;
  close(reason);
}

void ServerSession::close(std::string_view reason, pool::CloseKind kind, std::string_view message) {
  if (closed() || terminated_) return;
  const bool was_logged_in = logged_in();
  const bool working = was_logged_in && (!ledger_.idle() || copy_both_);
  if (core_->config().log_disconnections || !was_logged_in) {
    const auto age = std::chrono::duration_cast<std::chrono::seconds>(core_->now() - connected_at_).count();
    core_->log(LogLevel::Log, log_name() + fmt::format("closing because: {} (age={}s)", reason, age));
  }
  if (client_ != nullptr && client_->guarded()) take_back_request();
  // Between two transactions it is none of the client's business, even if it has not been given back yet.
  const bool is_over = client_ != nullptr && (finish_ || client_->releases_server());
  const bool has_had_all =
      is_over && was_logged_in && status_ == 'I' && ledger_.idle() && !mid_message() && !mid_request_;
  if (was_logged_in && hung_up_) core_->witness(*context_, router::Witness::ConnectionLost);
  ClientSession* client = client_;
  client_ = nullptr;
  // One that failed to log in is ended by the server itself.
  if ((was_logged_in || kind == pool::CloseKind::Normal) && !hung_up_) {
    // The backend counts against the limits until it has ended, so the permit is kept until the server closes.
    terminated_ = true;
    {
      PoolLock pools(core_->host());
      pools->server_closing(id_, core_->now(), core_->actions());
    }
    if (working && !finish_when_done_ && !host_lost_) core_->interrupt_server(*this);
    if (mid_request_ || !was_logged_in || host_lost_) {
      // A Terminate would be taken for the rest of the message, which might then be carried out; or for a password.
      end_output();
    } else {
      std::string terminate;
      protocol::append_terminate(terminate);
      send(ByteView(terminate));
    }
    if (!finish_when_done_) core_->schedule(*this, core_->now() + kLinger);
    closing_at_ = core_->now();
  } else {
    {
      PoolLock pools(core_->host());
      pools->server_closed(id_, kind, message, core_->now(), core_->actions());
    }
    close_port();
    core_->bury(*this);
  }
  if (client == nullptr) return;
  if (has_had_all) {
    client->on_server_released();
    core_->wake(*client);  // it may not have been read while this one took no more
  } else {
    client->on_server_lost(reason);
  }
}

void ServerSession::on_hangup(const std::string& reason) {
  if (closed()) return;
  hung_up_ = true;
  if (terminated_) {
    {
      PoolLock pools(core_->host());
      pools->server_closed(id_, pool::CloseKind::Normal, {}, core_->now(), core_->actions());
    }
    close_port();
    core_->bury(*this);
    return;
  }
  if (login_) {
    login_->hung_up(reason);
    return;
  }
  close("server conn crashed?");
}

void ServerSession::on_timer(TimePoint now) {
  if (closed()) return;
  if (terminated_) {
    if (finish_when_done_) return;
    if (now < closing_at_ + kLinger) {
      core_->schedule(*this, closing_at_ + kLinger);
      return;
    }
    on_hangup("linger");
    return;
  }
  const Duration limit = core_->config().server_connect_timeout;
  if (login_ && limit > Duration::zero()) {
    if (now >= login_since_ + limit) {
      login_->failed("connect timeout", pool::CloseKind::LoginFailed);
    } else {
      core_->schedule(*this, login_since_ + limit);
    }
    return;
  }
  if (testing_ && limit > Duration::zero()) {
    if (now >= testing_since_ + limit) {
      close("test query timed out");
    } else {
      core_->schedule(*this, testing_since_ + limit);
    }
  }
}

void ServerSession::prepare_move() {
  lease_.end();
  alarm().cancel();  // the queue is this worker's
}

void ServerSession::arrive(WorkerCore& core, PoolContext& context) {
  core_ = &core;
  context_ = &context;
  set_role(role_);
}

void ServerSession::set_role(HostRole role) {
  role_ = role;
  core_->note_role(*context_, role);
  latencies_ = &context_->latencies_of(target_.host, role);
}

void ServerSession::protocol_violation(const char* what) {
  // Never try to find the thread of a byte stream again. Whatever the client is told, this connection ends.
  core_->log(LogLevel::Warning, log_name() + what);
  hung_up_ = true;  // no Terminate: the server would not understand us either
  close(what);
}

void ServerSession::statement_tables_cleared() {
  statements_.clear();
  unnamed = {};
  // What was sent behind the command that cleared them is on the server nevertheless.
  ledger_.for_each([this](const protocol::ReplyEntry& entry) {
    if (!entry.change || !entry.change->server_added) return;
    statements_.add(entry.change->key, protocol::kAnyShape, core_->now().time_since_epoch());
  });
}

}  // namespace pgweir::core
