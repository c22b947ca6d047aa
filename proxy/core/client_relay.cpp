// The way of a request: asking for a server when a transaction begins, making its parameters the client's, and passing
// messages on, with statement names rewritten where the pool shares servers between clients.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "pool/mutation.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/client_login.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/server_login.hpp"
#include "proxy/core/worker_core.hpp"
#include "router/sql_lexer.hpp"

namespace pgweir::core {

namespace frontend = protocol::frontend;
using protocol::ReplyEntry;
using protocol::ReplyKind;

namespace {

/// A message up to this size is held until it is complete before a server is asked for, so that a slow sender does not
/// occupy one.
constexpr std::size_t kHoldMax = 16384;
/// A simple query that may name a prepared statement is looked at whole up to this size.
constexpr std::size_t kQueryNamesMax = 65536;

enum : std::uint8_t { kRequestKnown = 1, kRequestCopies = 2 };
constexpr auto kRequestTypes = [] {
  std::array<std::uint8_t, 256> types{};
  for (const char type :
       {frontend::Bind, frontend::Close, frontend::Describe, frontend::Execute, frontend::Flush, frontend::FunctionCall,
        frontend::Parse, frontend::Query, frontend::Sync, frontend::Terminate}) {
    types[static_cast<unsigned char>(type)] = kRequestKnown;
  }
  for (const char type : {frontend::CopyData, frontend::CopyDone, frontend::CopyFail}) {
    types[static_cast<unsigned char>(type)] = kRequestKnown | kRequestCopies;
  }
  return types;
}();

bool request_is(char type, std::uint8_t what) {
  return (kRequestTypes[static_cast<unsigned char>(type)] & what) != 0;
}

bool is_copy_type(char type) {
  return request_is(type, kRequestCopies);
}

}  // namespace

std::size_t ClientSession::relay(ByteView in) {
  OutBatch& out = core_->batch();
  const std::uint32_t max_packet_size = core_->config().max_packet_size;
  std::size_t pos = 0;
  bool dropped = false;
  last_request_ = core_->now();
  while (pos < in.size()) {
    if (stream_left_ > 0) {
      if (stream_forward_ && (server_ == nullptr || server_->has_unsent())) break;
      const std::size_t n = std::min(stream_left_, in.size() - pos);
      if (stream_forward_) out.add(in.substr(pos, n));
      stream_left_ -= n;
      pos += n;
      if (stream_left_ > 0 || !stream_forward_ || !server_->between_transactions()) continue;
      // The rest of a message that the server had answered already. What follows is for another transaction.
      flush_to_server(out);
      core_->wake(*server_);
      if (pos < in.size()) core_->wake(*this);  // behind it, whether it is given back or not
      return pos;
    }
    const ByteView rest = in.substr(pos);
    protocol::FrameHeader header;
    const auto status = read_frame_header(rest, max_packet_size, header);
    if (status == protocol::FrameStatus::NeedMore) break;
    if (status == protocol::FrameStatus::BadLength || !request_is(header.type, kRequestKnown)) [[unlikely]] {
      flush_to_server(out);
      refuse_header(status, rest);
      return in.size();
    }
    const ByteView message = rest.substr(0, header.total());
    if (header.type == frontend::Terminate) [[unlikely]] {
      if (core_->noisy()) log_packet(header);
      flush_to_server(out);
      terminated_ = true;
      disconnect("client close request");
      return in.size();
    }
    if (cancel_pending_ || skip_to_sync_) [[unlikely]] {
      if (cancel_pending_ && server_ != nullptr && server_->runs_hidden()) break;
      if (drop_cancelled(header)) {
        dropped = true;
        pos += pass_over(header, message);
        continue;
      }
    }
    if (server_ == nullptr && is_copy_type(header.type) && !PGWEIR_MUTANT(28)) {
      pos += pass_over(header, message);  // late data of a COPY that has ended
      continue;
    }
    if (server_ == nullptr && header.type == frontend::Close && tracks_) [[unlikely]] {
      if (const std::size_t n = close_alone(rest); n > 0) {
        pos += n;
        if (state_ != State::Ready) return in.size();
        continue;
      }
    }
    // Behind a complete answer the server has begun to say something else, for instance that it ends.
    if (server_ != nullptr && server_->unread_size() > 0 && server_->between_transactions() && releases_server()) break;
    if (context_->routed()) {
      if (held_at_gate(header.type) || left_for_another(header.type)) break;
      const Step answered = answer_route_command(header, message);
      if (answered == Step::Hold) break;
      if (answered == Step::Done) {
        stream_forward_ = false;
        pos += message.size();
        continue;
      }
    }
    if ((server_ == nullptr || route_ || !server_->at_ease()) && !prepare_server(header, rest, out)) break;
    if (route_ && !route_->begun) guard(rest);
    const Step step = take_message(header, message, out);
    if (state_ != State::Ready) [[unlikely]] {
      out.clear();
      return in.size();
    }
    if (step != Step::Done) break;
    if (core_->noisy()) log_packet(header);
    context_->stats.client_bytes += header.total();
    stream_left_ = header.total() - message.size();
    pos += message.size();
  }
  flush_to_server(out);
  if (server_ != nullptr) {
    const bool owed = !server_->ledger().empty();
    server_->answer_local_now();
    // What waited for replies of ours alone goes on; the server has nothing to say that would wake it.
    if (owed && pos < in.size() && server_ != nullptr && server_->ledger().empty()) core_->wake(*this);
  }
  // What a server was asked for has been cancelled, and nothing else has come.
  if (dropped && server_ != nullptr && !sent_to_server_) server_->finish_after_input();
  return pos;
}

void ClientSession::refuse_header(protocol::FrameStatus status, ByteView in) {
  fatal(status == protocol::FrameStatus::BadLength ? fmt::format("bad packet header: '{}'", hex_of(in))
                                                   : std::string("unknown pkt"));
}

// The message is dropped, and the rest of it when it comes. Returns how much of it is there.
std::size_t ClientSession::pass_over(const protocol::FrameHeader& header, ByteView message) {
  context_->stats.client_bytes += header.total();
  stream_forward_ = false;
  stream_left_ = header.total() - message.size();
  return message.size();
}

// A request that was cancelled while it waited in the queue is answered as the server would have: an error, then
// ReadyForQuery, for a pipeline at its Sync. True if the message with this header is to be dropped.
bool ClientSession::drop_cancelled(const protocol::FrameHeader& header) {
  std::string answer;
  if (cancel_pending_) {
    cancel_pending_ = false;
    skip_to_sync_ = header.type != frontend::Query && header.type != frontend::FunctionCall;
    if (header.type == frontend::Query) drop_unnamed();  // as PostgreSQL does before anything else
    protocol::append_error(answer, protocol::ErrorText{.severity = "ERROR",
                                                       .sqlstate = "57014",
                                                       .message = "canceling statement due to user request",
                                                       .add_v = true});
    if (!skip_to_sync_) protocol::append_ready_for_query(answer, 'I');
  }
  if (skip_to_sync_ && header.type == frontend::Sync) {
    skip_to_sync_ = false;
    protocol::append_ready_for_query(answer, 'I');
  }
  in_query_ = in_transaction_ = false;
  send(ByteView(answer));
  return true;
}

void ClientSession::flush_to_server(OutBatch& out) {
  if (!out.empty() && server_ != nullptr) {
    sent_to_server_ = true;
    server_->mark_used(mode_ == PoolMode::Session);
    server_->forward(out.views());
  }
  if (server_ != nullptr) server_->set_mid_request(stream_left_ > 0 && stream_forward_);
  out.clear();
}

// True when this message may go to a server now.
bool ClientSession::prepare_server(const protocol::FrameHeader& header, ByteView rest, OutBatch& out) {
  if (server_ == nullptr) {
    if (rest.size() < header.total() && header.total() <= kHoldMax) return false;
    if (waiting_) return false;
    PoolContext* target = choose_pool(rest);
    if (target == nullptr || !acquire(*target)) return false;
  }
  if (server_->wants_flush()) {
    protocol::append_flush(out.begin_own());
    out.end_own();
  }
  if (!server_->accepts_messages()) return false;
  if (server_->needs_alignment() && !align()) return false;
  return !route_ || route_->begun || still_chosen();
}

// On one server nothing follows a read of a routed database before its replies have come: the next transaction may
// belong elsewhere.
bool ClientSession::held_at_gate(char type) const {
  if (server_ == nullptr || !route_ || !route_->begun || is_copy_type(type)) return false;
  const protocol::ReplyLedger& ledger = server_->ledger();
  if (ledger.idle() || ledger.unsynced()) return false;
  // Nor may another transaction begin on a host that is no longer what it was chosen as.
  return gated() || !may_still_serve(route_->decision);
}

bool ClientSession::gated() const {
  if (server_ == nullptr || !route_ || !route_->begun || !context_->policy.read_write_split) return false;
  if (PGWEIR_MUTANT(19)) return false;
  return route_->decision.role == HostRole::Standby || route_->is_read();
}

// A client that asked what statements are, and got its answer by Flush, goes on without a Sync. Where that belongs is
// decided anew: nothing has run yet that would bind it to this server.
bool ClientSession::left_for_another(char type) {
  if (!gated()) return false;
  const bool begins =
      type == frontend::Query || type == frontend::Parse || type == frontend::Bind || type == frontend::FunctionCall;
  // What comes behind the Flush was not looked at when this server was chosen: it waits for the answer to what did.
  const bool unseen = route_->flushed && begins && !route_->executed;
  route_->flushed = route_->flushed || type == frontend::Flush;
  if (unseen && server_->ledger().unsynced() && !replies_known()) {
    flush_to_server(core_->batch());
    return true;
  }
  if (server_->ledger().size() > 0) return false;
  if (begins && !route_->executed && server_->ledger().unsynced() && !server_->ledger().skipping()) {
    OutBatch& out = core_->batch();
    add_hidden_sync(out);
    flush_to_server(out);
    return true;
  }
  if (type != frontend::Parse && (begins || type == frontend::Execute)) route_->executed = true;
  return false;
}

void ClientSession::on_server_lost(std::string_view reason) {
  if (server_ != nullptr && server_->mid_message()) output_cut_ = true;
  server_ = nullptr;
  sql_parse_sent_ = false;
  if (state_ == State::Closing || closed()) return;
  // The connection of a client that replicates ends with its server, which it knows by what it was welcomed with.
  if (route_ && route_->again) return send_again();
  if (std::exchange(asks_first_, false) && !keeps_server()) {
    sent_to_server_ = false;
    wait_start_ = core_->now();
    if (route_) route_->begun = route_->executed = route_->flushed = false;
  }
  const bool retry = !sent_to_server_ && !replication_;
  if (!retry) {
    note_write_end();  // it may have been carried out
    // What only routing can bring about has its proper code in any case.
    const bool routed = context_ != nullptr && context_->routed();
    fatal(reason, routed ? std::string_view("08006") : core_->sqlstate("08006"));
    return;
  }
  if (cancel_pending_) return core_->wake(*this);  // it needs none any more
  // Nothing of this client has reached the server: it may have another one, with its old place in the queue.
  if (state_ == State::Login) return acquire_again(login_->pool_to_ask());
  acquire_again(context_->routed() && route_ ? pool_of(decide_route()) : *context_);
}

void ClientSession::on_server_released() {
  server_ = nullptr;
  sql_parse_sent_ = sent_to_server_ = false;
  last_request_ = core_->now();
  if (route_) {
    if (route_->again) return send_again();
    route_->end_transaction();
    count_outstanding(std::nullopt);
  }
  if (idle_timeout_ > Duration::zero()) core_->schedule(*this, next_deadline());
  if (state_ == State::Login || (state_ == State::Ready && unread_size() > 0)) core_->wake(*this);
}

bool ClientSession::acquire(PoolContext& target) {
  const bool waits_on = std::exchange(waited_before_, false);
  if (!waits_on) {
    wait_start_ = core_->now();
    notified_ = false;
  }
  if (!waits_on) count_query_start();
  return ask_pool(target, waits_on);
}

// True if a server is there and messages may go to it at once. `again`: it has waited since wait_start_ and keeps its
// place.
bool ClientSession::ask_pool(PoolContext& target, bool again) {
  using Local = pool::WorkerLeases::Acquired;
  enter_pool(target);
  pool::AcquireResult result;
  std::string error;
  const Local local = again ? Local::Ask : core_->leases().acquire(target.local, id_, core_->now(), result.server);
  if (local == Local::Granted) result.status = pool::AcquireStatus::Granted;
  if (local != Local::Ask) return acquired(result, error);
  if (!target.local.waiting.empty()) core_->enqueue_waiting(target);  // they came before
  std::uint64_t epoch;
  {
    PoolLock pools(core_->host());
    result = again ? pools->acquire_again(id_, target.id, wait_start_, core_->now(), core_->actions())
                   : pools->acquire(id_, target.id, core_->now(), core_->actions());
    if (result.status == pool::AcquireStatus::Failing) error = pools->last_login_error(target.id);
    epoch = target.local.board->epoch;
  }
  if (result.status == pool::AcquireStatus::Queued) core_->leases().queued(target.local, id_, wait_start_);
  return acquired(result, error, epoch);
}

void ClientSession::stop_waiting() {
  core_->leases().withdraw(id_);
  {
    PoolLock pools(core_->host());
    pools->stop_waiting(id_, core_->now(), core_->actions());
  }
  waiting_ = false;
}

bool ClientSession::acquired(const pool::AcquireResult& result, const std::string& error,
                             std::optional<std::uint64_t> epoch) {
  switch (result.status) {
    case pool::AcquireStatus::Granted: {
      ServerSession* server = core_->find_server(result.server);
      if (epoch) pool::WorkerLeases::granted(server->lease(), id_, *epoch, core_->now());
      server->link(*this);
      return on_granted(*server, result.needs_check);
    }
    case pool::AcquireStatus::Failing: {
      const auto [sqlstate, message] = decode_login_error(error);
      fatal(fmt::format("server login has been failing, cached error: {} (server_login_retry)", message.substr(0, 99)),
            core_->sqlstate(sqlstate));
      return false;
    }
    case pool::AcquireStatus::Queued:
      waiting_ = true;
      if (core_->shutdown() == ShutdownMode::WaitForServers) {
        stop_waiting();
        fatal(kServerShutdown, core_->sqlstate("57P01"));
        return false;
      }
      if (waits_for_host_ || (route_ && route_->pool != nullptr) || state_ == State::Login)
        core_->note_routed_waiter(*this);
      if (core_->debugs()) core_->log(LogLevel::Debug, log_name() + "pause_client");
      core_->schedule(*this, next_deadline());
      return false;
  }
  return false;
}

// True if the server's parameters are the client's already. Otherwise the client's data waits for the SETs.
bool ClientSession::align() {
  if (!server_->ledger().idle() || server_->transaction_status() != 'I') return true;
  protocol::ServerParameters& theirs = server_->parameters();
  if (same_pointers(parameters_, theirs)) {
    server_->set_aligned();
    return true;
  }
  if (aligned(parameters_, theirs) || PGWEIR_MUTANT(5)) {
    protocol::ParameterSetPtr& own = parameters_.tracked;
    if (own != theirs.tracked && own && theirs.tracked && *own == *theirs.tracked) {
      // Of equal sets one remains in the end, the same for all clients and servers: then pointers are compared.
      if (std::less<>()(own.get(), theirs.tracked.get())) {
        theirs.tracked = own;
      } else {
        own = theirs.tracked;
      }
    }
    server_->set_aligned();
    return true;
  }
  const auto sql = alignment_sql(*core_->settings()->tracked, parameters_, theirs);
  if (!sql) {
    fatal("invalid server parameter", core_->sqlstate("22023"));
    return false;
  }
  if (sql->empty()) {
    theirs.extras = parameters_.extras;
    server_->set_aligned();
    return true;
  }
  server_->run_alignment(*sql, parameters_.extras);
  return false;
}

ClientSession::Step ClientSession::take_message(const protocol::FrameHeader& header, ByteView message, OutBatch& out) {
  switch (header.type) {
    case frontend::Query:
      return take_query(header, message, out);
    case frontend::Parse:
      return take_parse(header, message, out);
    case frontend::Bind:
      return take_bind(header, message, out);
    case frontend::Describe:
    case frontend::Close:
      return take_target(header, message, out);
    case frontend::Execute:
      count_query_start();
      if (bound_resets_ == 0) {
        server_->ledger().push(ReplyKind::Execute);
      } else {
        push_resetting(ReplyKind::Execute, bound_resets_, 0);
      }
      break;
    case frontend::FunctionCall:
      count_query_start();
      server_->ledger().push(ReplyKind::FunctionCall);
      break;
    case frontend::Sync:
      if (!server_->ledger().copying_in()) ++segment_;
      server_->ledger().push(ReplyKind::Sync);
      break;
    case frontend::CopyDone:
    case frontend::CopyFail:
      // Where nothing is owed there is no COPY to end, the server passes over it, and nothing behind it has to wait.
      if (!server_->ledger().empty() || PGWEIR_MUTANT(29)) server_->ledger().push(ReplyKind::CopyEnd);
      break;
    default:  // CopyData and Flush have no reply
      break;
  }
  pass(message, out);
  return Step::Done;
}

void ClientSession::push_skippable(ReplyEntry&& entry) {
  server_->ledger().push(std::move(entry), [this](ReplyEntry& skipped) { server_->undo(skipped); });
}

// Of a message about which nothing but this is to be remembered.
void ClientSession::push_resetting(ReplyKind kind, std::uint32_t resets, std::uint32_t unnamed_serial) {
  ReplyEntry entry;
  entry.kind = kind;
  entry.purpose = resets;
  entry.unnamed_serial = unnamed_serial;
  push_entry(std::move(entry));
}

ClientSession::Step ClientSession::take_query(const protocol::FrameHeader& header, ByteView message, OutBatch& out) {
  const ByteView body = message.substr(protocol::kHeaderSize);
  constexpr std::size_t kGlance = 64;
  if (tracks_ && body.size() < kGlance && message.size() < header.total()) return Step::NeedMore;
  const ByteView glance = body.substr(0, kGlance);
  const bool concerns_session = router::may_concern_session(glance);
  const bool names_statement =
      concerns_session && tracks_ && (statements_->size() > 0 || names_changing_) && router::may_name_statement(glance);
  if (names_statement && message.size() < header.total() && header.total() <= kQueryNamesMax) return Step::NeedMore;
  if (names_statement && !names_settled()) return Step::Hold;
  if (core_->config().disable_pqexec) {
    fatal("PQexec disallowed", core_->sqlstate("0A000"));
    return Step::Hold;
  }
  count_query_start();
  if (names_statement && message.size() == header.total()) {
    if (const auto step = take_statement_sql(body, out)) return *step;
  }
  if (concerns_session && tracks_ && router::may_clear_statements(glance)) names_cleared_ = true;
  if (concerns_session && router::may_change_schema(glance)) core_->schema_may_change(context_->dbname);
  settings_open_ = true;
  const std::uint32_t resets = message.size() == header.total() ? resets_of(body.substr(0, body.size() - 1)) : 0;
  const std::uint32_t dropped = drop_unnamed_unless_skipped();  // as the server does for a simple query
  if (resets == 0 && dropped == 0) {
    server_->ledger().push(ReplyKind::Query);
  } else {
    push_resetting(ReplyKind::Query, resets, dropped);
  }
  server_->unnamed = {};
  pass(message, out);
  return Step::Done;
}

void ClientSession::log_packet(const protocol::FrameHeader& header) const {
  core_->log(LogLevel::Noise, log_name() + fmt::format("read pkt='{}' len={}", header.type, header.total()));
}

void ClientSession::log_duration(const char* what, Duration length) const {
  core_->log(LogLevel::Debug, log_name() + fmt::format("{} time: {} us", what, length.count()));
}

void ClientSession::count_query_start() {
  if (in_query_) return;
  in_query_ = true;
  query_start_ = core_->now();
  ++context_->stats.query_count;
  if (!in_transaction_) {
    in_transaction_ = true;
    transaction_start_ = core_->now();
    ++context_->stats.xact_count;
  }
  if (has_deadlines_) core_->schedule(*this, next_deadline());
}

void ClientSession::count_query_end(TimePoint now, bool transaction_over, Latencies* latencies) {
  PoolStats& stats = context_->stats;
  const bool query = std::exchange(in_query_, false);
  const bool transaction = transaction_over && in_transaction_;
  const Duration query_time = now - query_start_;
  const Duration transaction_time = now - transaction_start_;
  if (query) stats.query_time += static_cast<std::uint64_t>(query_time.count());
  if (transaction) {
    in_transaction_ = false;
    stats.xact_time += static_cast<std::uint64_t>(transaction_time.count());
  }
  if (latencies != nullptr) {
    if (query && transaction && query_time == transaction_time) {
      LatencyHistogram::add_to_both(latencies->query, latencies->transaction, query_time);
    } else {
      if (query) latencies->query.add(query_time);
      if (transaction) latencies->transaction.add(transaction_time);
    }
  }
  if (core_->debugs()) [[unlikely]] {
    if (query) log_duration("query", query_time);
    if (transaction) log_duration("transaction", transaction_time);
  }
  last_request_ = now;
  if (has_deadlines_) core_->schedule(*this, next_deadline());
}

}  // namespace pgweir::core
