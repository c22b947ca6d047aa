// The way of a reply: which messages of a server go to the linked client, which are ours and vanish, which of the
// client's messages are answered here, and when the server is free again.
#include <algorithm>
#include <array>

#include "pool/mutation.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/server_login.hpp"
#include "proxy/core/server_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace backend = protocol::backend;
using std::string_view_literals::operator""sv;
using protocol::ReplyEntry;
using protocol::ReplyKind;

namespace {

/// Messages that have to be looked at whole may not be longer than this.
constexpr std::size_t kCompleteMax = 65536;

/// What is to be known of a message by its type.
enum : std::uint8_t {
  kKnown = 1,
  kBodyMatters = 2,  ///< to us
  kResult = 4,       ///< a part of the result of a query, and nothing else: it goes to the client unseen
};
constexpr auto kReplyTypes = [] {
  std::array<std::uint8_t, 256> types{};
  for (const char type : {backend::BackendKeyData,
                          backend::BindComplete,
                          backend::CloseComplete,
                          backend::CommandComplete,
                          backend::CopyBothResponse,
                          backend::CopyData,
                          backend::CopyDone,
                          backend::CopyInResponse,
                          backend::CopyOutResponse,
                          backend::DataRow,
                          backend::EmptyQueryResponse,
                          backend::ErrorResponse,
                          backend::FunctionCallResponse,
                          backend::NoData,
                          backend::NoticeResponse,
                          backend::NotificationResponse,
                          backend::ParameterDescription,
                          backend::ParameterStatus,
                          backend::ParseComplete,
                          backend::PortalSuspended,
                          backend::ReadyForQuery,
                          backend::RowDescription}) {
    types[static_cast<unsigned char>(type)] = kKnown;
  }
  for (const char type :
       {backend::ReadyForQuery, backend::ParameterStatus, backend::ErrorResponse, backend::CommandComplete}) {
    types[static_cast<unsigned char>(type)] |= kBodyMatters;
  }
  for (const char type : {backend::RowDescription, backend::DataRow, backend::CopyData}) {
    types[static_cast<unsigned char>(type)] |= kResult;
  }
  return types;
}();

bool reply_is(char type, std::uint8_t what) {
  return (kReplyTypes[static_cast<unsigned char>(type)] & what) != 0;
}

bool tells_of_write(ByteView tag) {
  return tag.starts_with("INSERT ") || tag.starts_with("UPDATE ") || tag.starts_with("DELETE ") ||
         tag.starts_with("MERGE ") || tag.starts_with("TRUNCATE ");
}

bool tells_of_end(ByteView tag) {
  return tag == "COMMIT\0"sv || tag == "ROLLBACK\0"sv;
}

bool tells_of_schema(ByteView tag) {
  return tag.starts_with("CREATE ") || tag.starts_with("ALTER ") || tag.starts_with("DROP ");
}

/// English text as well as the routine, because lc_messages may translate the former.
bool is_changed_result(const protocol::ErrorFields& error) {
  return error.sqlstate == "0A000" &&
         (error.routine == "RevalidateCachedQuery" || error.message == "cached plan must not change result type");
}

/// Comes at any time, whatever is owed.
bool asynchronous(char type) {
  return type == backend::NoticeResponse || type == backend::NotificationResponse || type == backend::ParameterStatus;
}

}  // namespace

std::size_t ServerSession::consume(ByteView in) {
  last_packet_ = core_->now();
  if (terminated_) return in.size();
  const std::size_t used = login_ && !login_->relaying() ? login_->consume(in) : relay(in);
  if (login_ && login_->done() && !closed() && !terminated_) {
    login_.reset();
    if (used < in.size()) core_->wake(*this);
    PoolLock pools(core_->host());
    pools->server_ready(id_, key_, core_->now(), core_->actions());
  }
  return used;
}

std::size_t ServerSession::relay(ByteView in) {
  if (client_ != nullptr && client_->has_unsent()) return 0;
  if (client_ != nullptr && client_->guarded() && !discarding_ && hidden_ == 0) {
    switch (weigh(in)) {
      case Weighed::Undecided:
        if (!is_asked()) return 0;
        break;  // what comes is for us
      case Weighed::Deliver:
        if (!PGWEIR_MUTANT(17)) client_->end_guard();
        answer_local(core_->batch());
        break;
      case Weighed::Retry:
        discarding_ = true;
        if (is_asked()) end_question();
        answer_local(core_->batch());
        break;
      case Weighed::Lost:  // the server ends itself
        close("server conn crashed?");
        return in.size();
    }
  }
  OutBatch& out = core_->batch();
  const std::uint32_t max_packet_size = core_->config().max_packet_size;
  std::size_t pos = 0;
  while (pos < in.size()) {
    if (stream_left_ > 0) {
      const std::size_t n = std::min(stream_left_, in.size() - pos);
      if (stream_forward_) out.add(in.substr(pos, n));
      stream_left_ -= n;
      pos += n;
      if (stream_left_ == 0) answer_local(out);
      continue;
    }
    if (reply_is(in[pos], kResult)) {
      if (const std::size_t size = result_size(in.substr(pos), max_packet_size)) {
        context_->stats.server_bytes += size;
        out.add(in.substr(pos, size));
        stream_forward_ = true;
        pos += size;
        continue;
      }
    }
    protocol::FrameHeader header;
    const protocol::FrameStatus status = read_frame_header(in.substr(pos), max_packet_size, header);
    if (status == protocol::FrameStatus::NeedMore) break;
    if (status == protocol::FrameStatus::BadLength || !reply_is(header.type, kKnown)) [[unlikely]] {
      flush_to_client(out);
      protocol_violation(status == protocol::FrameStatus::BadLength ? "bad pkt header" : "unknown pkt");
      return in.size();
    }
    const ByteView message = in.substr(pos, std::min(header.total(), in.size() - pos));
    const Step step = take_message(header, message, out);
    if (step == Step::NeedMore) break;
    if (core_->noisy()) log_packet(header.type, header.total());
    // As in PgBouncer also answers that no client sees, but not those of connect_query.
    if (login_ == nullptr) context_->stats.server_bytes += header.total();
    if (step == Step::Stop) {
      out.clear();
      return in.size();
    }
    if (step == Step::Forward) out.add(message);
    stream_forward_ = step == Step::Forward;
    stream_left_ = header.total() - message.size();
    pos += message.size();
    if (stream_left_ == 0) answer_local(out);
  }
  flush_to_client(out);
  if (pos == in.size() && !release_if_free() && client_ != nullptr && client_->unread_size() > 0 &&
      accepts_messages()) {
    core_->wake(*client_);
  }
  return pos;
}

// How many bytes `in` begins with that are whole messages of a result, which go to the client whatever they say:
// take_message would decide just that of each of them, and leave everything as it is.
std::size_t ServerSession::result_size(ByteView in, std::uint32_t max_packet_size) const {
  if (client_ == nullptr || hidden_ > 0 || ledger_.empty() || core_->noisy()) return 0;
  const ReplyKind front = ledger_.front().kind;
  if (front != ReplyKind::Query && front != ReplyKind::Execute) return 0;
  std::size_t size = 0;
  while (in.size() - size >= protocol::kHeaderSize && reply_is(in[size], kResult)) {
    const std::uint32_t length = protocol::load_u32(in.data() + size + 1);
    if (length < protocol::kLengthMin || length > max_packet_size || length >= in.size() - size) break;
    size += std::size_t{length} + 1;
  }
  return size;
}

void ServerSession::flush_to_client(OutBatch& out) {
  if (discarding_) out.clear();
  if (out.empty()) return;
  if (client_ != nullptr) client_->deliver(out.views());
  out.clear();
}

// The first bytes of a message, at least its header. Everything a message means is decided here, once.
ServerSession::Step ServerSession::take_message(const protocol::FrameHeader& header, ByteView message, OutBatch& out) {
  const bool complete = message.size() == header.total();
  const bool body_matters = reply_is(header.type, kBodyMatters);
  if (!complete && (body_matters || hidden_ > 0) && header.total() <= kCompleteMax) return Step::NeedMore;
  if (hidden_ > 0) return take_hidden(header, message);
  if (client_ == nullptr) return take_idle_message(header, message);
  if (!body_matters) return take_reply(header, message);
  const ByteView body = message.substr(protocol::kHeaderSize);
  if (!complete) {
    if (header.type == backend::ErrorResponse) return take_error({}, out);
    flush_to_client(out);
    protocol_violation(header.type == backend::ParameterStatus ? "broken ParameterStatus packet" : "bad pkt header");
    return Step::Stop;
  }
  switch (header.type) {
    case backend::ReadyForQuery:
      return take_ready(body, out);
    case backend::ErrorResponse:
      return take_error(body, out);
    case backend::ParameterStatus:
      return take_parameter_status(body, out);
    default:
      return take_command_complete(body);
  }
}

// Messages without a body that matters: settle the ledger's front entry.
ServerSession::Step ServerSession::take_reply(const protocol::FrameHeader& header, ByteView message) {
  const char type = header.type;
  if (asynchronous(type) || copy_both_) return Step::Forward;
  if (ledger_.empty()) return unexpected(type);
  if (type == backend::DataRow || type == backend::CopyData) return Step::Forward;
  const ReplyKind front = ledger_.front().kind;
  switch (type) {
    case backend::ParseComplete:
      if (front != ReplyKind::Parse && front != ReplyKind::HiddenParse) return unexpected(type);
      confirm(ledger_.front());
      ledger_.drop_front();
      return front == ReplyKind::Parse || PGWEIR_MUTANT(6) ? Step::Forward : Step::Drop;
    case backend::BindComplete:
      if (front != ReplyKind::Bind) return unexpected(type);
      ledger_.drop_front();
      return Step::Forward;
    case backend::CloseComplete:
      if (front != ReplyKind::Close && front != ReplyKind::HiddenClose) return unexpected(type);
      confirm(ledger_.front());
      ledger_.drop_front();
      return front == ReplyKind::Close ? Step::Forward : Step::Drop;
    case backend::ParameterDescription:
    case backend::RowDescription:
    case backend::NoData:
      if (front != ReplyKind::Query && (ledger_.front().statement || ledger_.front().purpose != 0)) [[unlikely]] {
        return take_description(header, message);
      }
      if (front == ReplyKind::Describe && type != backend::ParameterDescription) ledger_.drop_front();
      return Step::Forward;
    case backend::EmptyQueryResponse:
    case backend::PortalSuspended:
      if (front == ReplyKind::Execute) ledger_.drop_front();
      return Step::Forward;
    case backend::CopyInResponse:
      wrote_seen_ = true;
      if (PGWEIR_MUTANT(7)) return Step::Forward;
      for (std::size_t ignored = ledger_.begin_copy_in(); ignored > 0; --ignored) client_->segment_done(false);
      return Step::Forward;
    case backend::CopyBothResponse:
      copy_both_ = true;
      return Step::Forward;
    default:
      return Step::Forward;
  }
}

// A reply that nobody asked for: the client may have use for it, the next client must not meet this server.
ServerSession::Step ServerSession::unexpected(char type) {
  if (dirty_.empty()) {
    dirty_ = "unexpected message from server";
    core_->log(LogLevel::Warning, log_name() + "unexpected message '" + std::string(1, type) + "' from server");
  }
  return Step::Forward;
}

ServerSession::Step ServerSession::take_ready(ByteView body, OutBatch& out) {
  const std::optional<char> status = protocol::parse_ready_for_query(body);
  if (!status) {
    flush_to_client(out);
    protocol_violation("bad pkt header");
    return Step::Stop;
  }
  status_ = *status;
  if (!ledger_.empty() && ledger_.front().kind == ReplyKind::HiddenSync) {
    ledger_.drop_front();
    return Step::Drop;
  }
  bool expected = false;
  while (!ledger_.empty() && !expected) {
    const ReplyKind kind = ledger_.front().kind;
    expected = kind == ReplyKind::Query || kind == ReplyKind::Sync || kind == ReplyKind::FunctionCall;
    if (kind == ReplyKind::Sync) client_->segment_done(false);
    if (kind == ReplyKind::Query) confirm(ledger_.front());
    if (!expected && kind != ReplyKind::CopyEnd) (void)unexpected('Z');
    ledger_.drop_front();
  }
  if (!expected) (void)unexpected('Z');
  copy_both_ = false;
  if (std::exchange(reset_now_, 0) != 0) needs_alignment_ = !replication_;
  // In a transaction block a ROLLBACK may still take it back.
  if (restored_ != 0 && status_ == 'I') {
    client_->restore_startup(std::exchange(restored_, 0), out);
    needs_alignment_ = !replication_;
  }
  // CopyDone behind a COPY that did not start has no reply to wait for.
  while (!ledger_.empty() && ledger_.front().kind == ReplyKind::CopyEnd) ledger_.drop_front();
  if (ledger_.idle()) {
    client_->segment_done(true);
    ledger_.trim();
  }
  const bool schema_changed = status_ == 'I' && std::exchange(catalog_seen_, false);
  if (schema_changed) core_->schema_changed(context_->dbname);  // others see it from now on
  if (discarding_) {
    if (status_ == 'I') return Step::Drop;
    flush_to_client(out);
    close("server was not ready");
    return Step::Stop;
  }
  if (std::exchange(ended_seen_, false) && status_ != 'I') wrote_seen_ = true;  // COMMIT AND CHAIN
  if (context_->routed() && status_ == 'I') {
    client_->note_write_end(schema_changed || std::exchange(wrote_seen_, false));
    if (schema_changed && context_->catalog != nullptr) {
      core_->host().catalog_changed(context_->group->name, context_->dbname);
    }
  }
  if (ledger_.empty()) client_->count_query_end(core_->now(), status_ == 'I', latencies_);
  if (context_->mode == PoolMode::Statement && status_ != 'I' && !replication_) {
    ClientSession* client = client_;
    flush_to_client(out);
    client->fatal("transaction blocks not allowed in statement pooling mode");
    return Step::Stop;
  }
  return Step::Forward;
}

ServerSession::Step ServerSession::take_error(ByteView body, OutBatch& out) {
  const auto undo_entry = [this](ReplyEntry& entry) { undo(entry); };
  const auto error = protocol::parse_error_fields(body);
  if (ledger_.empty()) {
    // Between requests a server says so only when it ends (57P01, a timeout of an idle transaction).
    const bool fatal = error && (error->severity_v == "FATAL" || error->severity_v == "PANIC");
    if (!fatal) return unexpected(backend::ErrorResponse);
    if (status_ != 'I' || !ledger_.idle() || client_->keeps_server()) return Step::Forward;
    // The client has had all it asked for, or has not asked yet: it has nothing to do with the end of this server.
    flush_to_client(out);
    hung_up_ = true;
    close("server conn crashed?");
    return Step::Stop;
  }
  if (error && error->sqlstate == "25006") client_->learn_from_refusal();
  reset_now_ = restored_ = 0;  // undone, with all that the transaction has done so far
  ReplyEntry& front = ledger_.front();
  if (front.kind == ReplyKind::Mistake && error && error->sqlstate == front.change->sqlstate) {
    out.begin_own() += front.change->error;
    out.end_own();
    ledger_.fail(undo_entry);
    return Step::Drop;
  }
  if (front.unnamed_serial != 0 && front.kind == ReplyKind::Parse) {
    client_->unnamed_failed(front.unnamed_serial);
    unnamed = {};
  }
  const bool changed = front.statement && error && is_changed_result(*error);
  if (error) {
    if (front.statement) {
      if (error->sqlstate == "26000" && error->message.find(front.statement->server_name()) != ByteView::npos) {
        statements_.remove(front.statement->key());
      }
      if (changed) {
        // What was thought to be of today is not: the schema was changed past us.
        if (front.statement->is_fresh(schema_now())) core_->schema_changed(context_->dbname);
        core_->statement_table().outdate(*front.statement, core_->now().time_since_epoch());
      }
    }
    if (front.kind == ReplyKind::HiddenParse && error->sqlstate == "42P05") (void)unexpected('E');
    if (router::classify_failure(error->sqlstate, error->message, error->routine) ==
        router::FailureKind::Serializable) {
      core_->learn_serializable(*context_);
    }
  }
  if (front.kind == ReplyKind::Query && front.change) {  // a DEALLOCATE that did not happen
    const std::uint32_t dropped = std::exchange(front.unnamed_serial, 0);
    undo(front);
    front.change.reset();
    front.unnamed_serial = dropped;
  }
  if (!discarding_ && is_asked()) client_->question_failed();
  const bool quiet = front.quiet;
  const protocol::StatementPtr statement = front.statement;
  const std::uint64_t name_serial = front.name_serial;
  ledger_.fail(undo_entry);
  if (ledger_.uncertain() && dirty_.empty()) dirty_ = "COPY failed while a Sync was under way";
  if (quiet) return Step::Drop;
  if (changed) client_->forget_untold(name_serial);
  return statement && tell_renamed(body, *statement, name_serial, out) ? Step::Drop : Step::Forward;
}

// An error that names a statement as the server knows it is told with the client's own name for it.
bool ServerSession::tell_renamed(ByteView body, const protocol::Statement& statement, std::uint64_t name_serial,
                                 OutBatch& out) {
  const std::string& name = statement.server_name();
  std::size_t found = body.find(name);
  if (found == ByteView::npos) return false;
  const std::string* own = client_->statements()->name_of(name_serial);
  ledger_.for_each([&](const ReplyEntry& later) {  // that closed it
    if (later.change && later.change->removed.serial == name_serial) own = &later.change->client_name;
  });
  if (own == nullptr) return false;
  std::string told;
  for (; found != ByteView::npos; found = body.find(name)) {
    told.append(body.substr(0, found)).append(*own);
    body.remove_prefix(found + name.size());
  }
  protocol::append_message(out.begin_own(), backend::ErrorResponse, told.append(body));
  out.end_own();
  return true;
}

ServerSession::Step ServerSession::take_parameter_status(ByteView body, OutBatch& out) {
  const auto parameter = protocol::parse_parameter_status(body);
  if (!parameter) {
    flush_to_client(out);
    protocol_violation("broken ParameterStatus packet");
    return Step::Stop;
  }
  const auto index = core_->settings()->tracked->find(parameter->name);
  if (!index || *index >= parameters_.tracked->values.size()) {
    if (parameter->name != kHotStandby) return Step::Forward;
    set_role(role_of(parameter->value));
    return context_->routed() && context_->policy.read_write_split ? Step::Drop : Step::Forward;
  }
  const protocol::ParameterSetPtr before = parameters_.tracked;
  parameters_.tracked = with_value(before, *index, parameter->value);
  if (client_ == nullptr) return Step::Drop;
  const bool reset = (reset_now_ >> *index & 1U) != 0;
  if (!reset && client_->parameters().tracked == before) {
    client_->parameters().tracked = parameters_.tracked;
    return Step::Forward;
  }
  const protocol::ParameterSetPtr told = client_->parameters().tracked;
  const std::string* own = client_->take_parameter(*index, parameter->value, reset);
  if (own == nullptr) return Step::Forward;
  if (told->values[*index] == *own) return Step::Drop;
  protocol::append_parameter_status(out.begin_own(), core_->settings()->tracked->name(*index), *own);
  out.end_own();
  return Step::Drop;
}

ServerSession::Step ServerSession::take_command_complete(ByteView body) {
  if (ledger_.empty()) return unexpected(backend::CommandComplete);
  const std::uint32_t resets = ledger_.front().purpose;
  if (ledger_.front().kind == ReplyKind::Execute) ledger_.drop_front();
  if (tells_of_schema(body) && !PGWEIR_MUTANT(32)) {
    catalog_seen_ = true;
    core_->schema_changed(context_->dbname);  // for what the same transaction prepares now
  }
  if (context_->routed()) {
    // A block that began as READ ONLY may have become READ WRITE, or have ended with more to come behind it.
    wrote_seen_ = wrote_seen_ || ended_seen_ || tells_of_write(body);
    ended_seen_ = tells_of_end(body);
  }
  // The tag with its terminator, and nothing behind it.
  const bool discard_all = body == "DISCARD ALL\0"sv;
  if (discard_all || body == "DEALLOCATE ALL\0"sv) {
    statement_tables_cleared();
    if (client_->statements() != nullptr) client_->statements()->clear_confirmed();
  }
  if (discard_all) {
    parameters_.extras.reset();
    parameters_.extras_unknown = false;
    note_reset(ClientSession::kResetsAll, ClientSession::kResetsAll);
  } else if (body == "RESET\0"sv) {
    parameters_.extras_unknown = true;
    note_reset(resets != 0 ? resets : ClientSession::kResetsAll, resets);
  } else if (body == "SET\0"sv) {
    parameters_.extras_unknown = true;
    // To a value, which may be that of a parameter that was reset before; or, as a RESET under another name, TO
    // DEFAULT.
    if (resets == 0) restored_ = 0;
    note_reset(resets, resets);
  } else if (body == "ROLLBACK\0"sv) {
    reset_now_ = restored_ = 0;
  }
  return Step::Forward;
}

void ServerSession::note_reset(std::uint32_t possibly, std::uint32_t surely) {
  reset_now_ |= possibly;
  restored_ |= surely;
}

void ServerSession::confirm_change(const ReplyEntry& entry) {
  if (entry.unnamed_serial != 0 && client_ != nullptr) {
    client_->unnamed_parsed(entry.unnamed_serial);
  }
  // The server may have waited for a lock until the schema had changed.
  if (entry.change && entry.change->server_added && entry.change->schema != schema_now()) {
    statements_.doubt(entry.change->key);
  }
  if (entry.change && client_ != nullptr && client_->statements() != nullptr && entry.change->added_serial != 0) {
    client_->statements()->confirm(entry.change->client_name, entry.change->added_serial);
    client_->note_prepared(entry.change->client_name, entry.change->added_serial);
  }
}

void ServerSession::undo(ReplyEntry& entry) {
  if (entry.unnamed_serial != 0) {
    if (client_ != nullptr && entry.kind != ReplyKind::HiddenParse) client_->unnamed_skipped(entry.unnamed_serial);
    if (unnamed.serial == entry.unnamed_serial) unnamed = {};
  }
  if (!entry.change) return;
  protocol::StatementChange& change = *entry.change;
  if (change.server_added) statements_.remove(change.key);
  if (change.server_removed) statements_.add_oldest(change.key);
  if (client_ == nullptr || client_->statements() == nullptr) return;
  if (change.added_serial != 0) client_->statements()->undo_add(change.client_name, change.added_serial);
  if (change.removed.statement) {
    client_->statements()->undo_remove(change.client_name, std::move(change.removed));
  }
}

// Replies that we give in the server's place, when their turn has come. Not in the middle of a message.
void ServerSession::answer_in_place(OutBatch& out) {
  if (client_ != nullptr && client_->guarded() && !discarding_) return;  // in their turn, when it is known how it went
  while (!ledger_.empty() && stream_left_ == 0) {
    switch (ledger_.front().kind) {
      case ReplyKind::LocalParse:
        confirm(ledger_.front());
        protocol::append_parse_complete(out.begin_own());
        break;
      case ReplyKind::LocalClose:
        protocol::append_close_complete(out.begin_own());
        break;
      case ReplyKind::CopyEnd:
        out.begin_own();
        break;
      default:
        return;
    }
    out.end_own();
    ledger_.drop_front();
  }
}

void ServerSession::answer_local_now() {
  OutBatch& out = core_->batch();
  answer_local(out);
  flush_to_client(out);
  if (unread_size() == 0) (void)release_if_free();
}

// The one place where a server is found free for the next client: ReadyForQuery said that no transaction is open, no
// reply and no Sync is owed, no byte of it is unread, nothing of ours is under way, and the client has had its turn.
// What the client has not taken yet was copied to its own buffer. A cancel in flight is looked after by PoolManager.
bool ServerSession::release_if_free() {
  if (closed() || terminated_ || login_ || hidden_ > 0 || stream_left_ > 0) return false;
  if (finish_) {
    finish_ = false;
    give_back();
    return true;
  }
  const bool settled = ledger_.idle() || PGWEIR_MUTANT(2);
  if (client_ == nullptr || !settled || status_ != 'I' || copy_both_ || has_unsent()) return false;
  if (client_->releases_server()) {
    give_back();
    return true;
  }
  // The setting is looked at again because it may have been taken back.
  if (!fast_close_ || mid_request_ || !core_->config().server_fast_close) return false;
  close("database configuration changed");
  return true;
}

}  // namespace pgweir::core
