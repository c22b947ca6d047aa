// Prepared statements of clients in transaction and statement mode: named ones are renamed and made where they are
// missing, the unnamed one follows its client, mistakes fail as they would on a server of the client's own.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "pool/mutation.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"
#include "router/sql_lexer.hpp"

namespace pgweir::core {

namespace frontend = protocol::frontend;
using protocol::ReplyEntry;
using protocol::ReplyKind;

namespace {

/// Names of statements and portals, and messages that consist of them, may not be longer.
constexpr std::size_t kNamesMax = 65536;
/// A named Parse has to be kept whole, since it may be needed on other servers.
constexpr std::size_t kParseMax = 64UL << 20;
/// An unnamed Parse beyond this is not kept: it is good for this server only.
constexpr std::size_t kUnnamedKept = 16384;

/// By which a Describe that follows a Bind at once is known to be about its portal.
std::uint32_t portal_number(std::string_view portal) {
  return static_cast<std::uint32_t>(std::hash<std::string_view>{}(portal)) | 1U;
}

}  // namespace

ClientSession::Step ClientSession::take_parse(const protocol::FrameHeader& header, ByteView message, OutBatch& out) {
  const ByteView body = message.substr(protocol::kHeaderSize);
  if (body.empty() && header.body() > 0) return Step::NeedMore;
  const bool complete = message.size() == header.total();
  const bool named = !body.empty() && body[0] != '\0';
  const bool tracked = named && tracks_;
  if (!complete && ((tracked && header.total() <= kParseMax) || header.total() <= kUnnamedKept)) return Step::NeedMore;
  if (tracked && !complete) {
    fatal("prepared statement is too long", core_->sqlstate("54000"));
    return Step::Hold;
  }
  count_query_start();
  if (mode_ == PoolMode::Session || (named && !tracks_)) {
    const auto texts = overrides_ ? protocol::two_strings(body) : std::nullopt;
    if (texts) bound_resets_ = resets_of(texts->second);
    if (!named) server_->unnamed = {};
    server_->ledger().push(ReplyKind::Parse);
    pass(message, out);
    return Step::Done;
  }
  const auto view = complete ? protocol::parse_parse(body) : std::nullopt;
  if (complete && !view) {
    fatal("broken Parse packet");
    return Step::Hold;
  }
  if (view && router::may_change_schema(view->query)) core_->schema_may_change(context_->dbname);
  if (!named) {
    if (view && tracks_ && router::may_name_statement(view->query)) {
      if (const auto step = take_statement_sql_parse(*view, out)) return *step;
    }
    take_unnamed_parse(view ? &*view : nullptr);
    pass(message, out);
    return Step::Done;
  }
  return take_named_parse(*view, out);
}

void ClientSession::take_unnamed_parse(const protocol::ParseView* view) {
  Unnamed statement;
  statement.serial = next_unnamed_serial();
  statement.segment = segment_;
  statement.kept = view != nullptr;
  if (view != nullptr) {
    statement.query.swap(core_->spare_text());
    statement.query.assign(view->query);
    statement.parameter_types.assign(view->parameter_types_raw);
  }
  ReplyEntry entry;
  entry.kind = ReplyKind::Parse;
  entry.unnamed_serial = statement.serial;
  server_->unnamed = {id_, statement.serial};
  unnamed_.push_back(std::move(statement));
  push_entry(std::move(entry));
}

// What names mean may depend on the outcome of Parse and Close messages of an earlier part of the pipeline, which an
// error may have made the server skip, and on that of a DISCARD ALL or the like, which empties the server. False while
// that is open; then the message has to wait for the replies.
bool ClientSession::names_settled() {
  if (names_cleared_ && !replies_known()) return false;
  names_cleared_ = false;
  return !names_changing_ || changing_segment_ == segment_ || segments_done_ > changing_segment_;
}

void ClientSession::note_names_changing() {
  names_changing_ = true;
  changing_segment_ = segment_;
}

ClientSession::Step ClientSession::take_named_parse(const protocol::ParseView& view, OutBatch& out) {
  if (!names_settled()) return Step::Hold;
  if (auto* known = statements_->find(view.statement)) return take_duplicate_parse(view, known->statement, out);
  if (statements_->size() >= kStatementsMax) {
    add_mistake(out, "53400", "too many prepared statements");
    stream_forward_ = false;
    return Step::Done;
  }
  const protocol::StatementPtr statement =
      core_->statement_table().intern(view.query, view.parameter_types_raw, reading_now(), server_->schema_now());
  ReplyEntry entry;
  entry.kind = ReplyKind::Parse;
  entry.change = std::make_unique<protocol::StatementChange>();
  entry.change->client_name = std::string(view.statement);
  entry.change->added_serial = statements_->add(view.statement, statement, segment_);
  entry.change->key = statement->key();
  note_names_changing();
  ++context_->stats.client_parse_count;
  if (server_->statements().touch(statement->key())) {
    if (server_->transaction_status() == 'E') {
      // In a failed transaction the server refuses most texts, so it is asked. What it accepts (ROLLBACK) it has.
      protocol::append_parse(out.begin_own(), "", view.query, view.parameter_types_raw);
      out.end_own();
      server_->unnamed = {};
    } else {
      entry.kind = ReplyKind::LocalParse;
    }
  } else {
    entry.change->server_added = true;
    entry.change->schema = server_->schema_now();
    server_->statements().add(statement->key(), 0, core_->now().time_since_epoch());
    evict_statements(out);
    protocol::append_parse(out.begin_own(), statement->server_name(), view.query, view.parameter_types_raw);
    out.end_own();
    ++context_->stats.server_parse_count;
  }
  push_entry(std::move(entry));
  stream_forward_ = false;
  return Step::Done;
}

// The server is given the text under a name that it has, so that whatever else is wrong with it is found first, as
// without a pooler; its "already exists" is replaced by one that names the client's name.
ClientSession::Step ClientSession::take_duplicate_parse(const protocol::ParseView& view,
                                                        protocol::StatementPtr existing, OutBatch& out) {
  (void)ensure_on_server(existing, out, false);
  protocol::append_parse(out.begin_own(), existing->server_name(), view.query, view.parameter_types_raw);
  out.end_own();
  const std::string text = fmt::format("prepared statement \"{}\" already exists", view.statement);
  push_mistake({.severity = "ERROR", .sqlstate = "42P05", .message = text, .add_v = true});
  stream_forward_ = false;
  return Step::Done;
}

ClientSession::Step ClientSession::take_bind(const protocol::FrameHeader& header, ByteView message, OutBatch& out) {
  count_query_start();
  if (mode_ == PoolMode::Session) {
    server_->ledger().push(ReplyKind::Bind);
    pass(message, out);
    return Step::Done;
  }
  const ByteView body = message.substr(protocol::kHeaderSize);
  const auto names = protocol::two_strings(body);
  if (!names) {
    if (message.size() < header.total() && body.size() < kNamesMax) return Step::NeedMore;
    fatal("broken Bind packet");
    return Step::Hold;
  }
  const auto& [portal, name] = *names;
  if (name.empty()) return take_unnamed_use(ReplyKind::Bind, message, out);
  if (!tracks_) {
    server_->ledger().push(ReplyKind::Bind);
    pass(message, out);
    return Step::Done;
  }
  if (!names_settled()) return Step::Hold;
  auto* known = statements_->find(name);
  bool told = true;
  const auto step = known == nullptr ? std::nullopt : prepare_use(*known, told, out);
  if (step == Step::Hold) return Step::Hold;
  ++context_->stats.bind_count;
  if (step) return *step;
  if (known == nullptr) {
    add_mistake(out, "26000", fmt::format("prepared statement \"{}\" does not exist", name));
    stream_forward_ = false;
    return Step::Done;
  }
  const std::uint64_t serial = known->serial;
  const protocol::StatementPtr statement = known->statement;
  note_text(statement->query());
  const std::size_t offset = portal.size() + name.size() + 2;
  const std::string& server_name = statement->server_name();
  std::string& own = out.begin_own();
  char head[protocol::kHeaderSize];
  head[0] = header.type;
  protocol::store_u32(head + 1, static_cast<std::uint32_t>(header.length - name.size() + server_name.size()));
  own.append(head, sizeof head);
  own.append(portal).push_back('\0');
  own.append(server_name).push_back('\0');
  out.end_own();
  pass(body.substr(offset), out);
  ReplyEntry entry;
  entry.kind = ReplyKind::Bind;
  if (!told) [[unlikely]] {
    entry.purpose = portal_number(portal);
    bound_name_.assign(name);
  }
  entry.statement = statement;
  entry.name_serial = serial;
  push_entry(std::move(entry));
  return Step::Done;
}

// Bind or Describe of the unnamed statement.
ClientSession::Step ClientSession::take_unnamed_use(ReplyKind kind, ByteView message, OutBatch& out) {
  // The latest Parse of it may have been skipped with an earlier part of the pipeline, and so may a hidden one.
  const auto open = [this](std::uint64_t segment) { return segment != segment_ && segments_done_ <= segment; };
  if (!unnamed_.empty() && !unnamed_.back().parsed && open(unnamed_.back().segment)) return Step::Hold;
  if (unnamed_hidden_ && open(unnamed_hidden_segment_)) return Step::Hold;
  if (server_->is_asked()) return Step::Hold;
  const ServerSession::UnnamedOwner mine{id_, unnamed_.empty() ? 0 : unnamed_.back().serial};
  if (unnamed_.empty() || (server_->unnamed != mine && !unnamed_.back().kept)) {
    // Whatever unnamed statement the server has, it is not this client's.
    add_mistake(out, "26000", "unnamed prepared statement does not exist");
    stream_forward_ = false;
    return Step::Done;
  }
  ReplyEntry entry;
  entry.kind = kind;
  if (kind == ReplyKind::Describe) {
    entry.purpose = mine.serial;
    if (!unnamed_.back().told) unnamed_.back().told = std::make_unique<UnnamedTold>();
    if (unnamed_.back().told->shape == 0) unnamed_.back().told->schema = server_->schema_now();
  }
  bool made = false;
  if (!unnamed_.back().uses.empty()) {
    if (!names_settled()) return Step::Hold;
    made = take_statement_sql_use(entry, out);
  }
  const bool there = made || server_->unnamed == mine;
  if (kind == ReplyKind::Bind && unnamed_.back().kept && unnamed_.back().uses.empty()) note_text(unnamed_.back().query);
  if (!there && !PGWEIR_MUTANT(8)) {
    if (const auto step = make_unnamed(mine, out)) return *step;
  } else if (unnamed_.back().told && std::exchange(unnamed_.back().told->changed, false)) {
    server_->unnamed = {};
    asks_first_ = false;
    return refuse_result(out);
  }
  asks_first_ = false;
  push_entry(std::move(entry));
  pass(message, out);
  return Step::Done;
}

// The server gets the unnamed statement of the client, `mine`. Not nullopt: what to do with the message that uses it,
// as long as it is not known whether the result is still what the client was told.
std::optional<ClientSession::Step> ClientSession::make_unnamed(const ServerSession::UnnamedOwner& mine, OutBatch& out) {
  const Unnamed& unnamed = unnamed_.back();
  const UnnamedTold* told = unnamed.told.get();
  const bool asks = told != nullptr && told->shape != 0 && told->schema != server_->schema_now() &&
                    !will_be_skipped() && server_->transaction_status() != 'E';
  const bool first = server_->between_transactions();
  if (asks && !first && !replies_known()) return Step::Hold;
  const std::string& types = told == nullptr || told->types.empty() ? unnamed.parameter_types : told->types;
  protocol::append_parse(out.begin_own(), "", unnamed.query, types);
  unnamed_hidden_ = true;
  unnamed_hidden_segment_ = segment_;
  out.end_own();
  ReplyEntry hidden;
  hidden.kind = ReplyKind::HiddenParse;
  hidden.unnamed_serial = mine.serial;
  server_->unnamed = mine;
  push_entry(std::move(hidden));
  if (!asks) return std::nullopt;
  ReplyEntry entry;
  entry.purpose = mine.serial;
  return describe_hidden("", std::move(entry), first, out);
}

ClientSession::UnnamedTold* ClientSession::told_of_unnamed(std::uint32_t serial) {
  return !unnamed_.empty() && unnamed_.back().serial == serial ? unnamed_.back().told.get() : nullptr;
}

void ClientSession::unnamed_described(std::uint32_t serial, std::string types) {
  if (UnnamedTold* told = told_of_unnamed(serial)) told->types = std::move(types);
}

void ClientSession::unnamed_described(std::uint32_t serial, std::uint64_t shape, std::optional<std::uint64_t> schema) {
  UnnamedTold* told = told_of_unnamed(serial);
  if (told == nullptr) return;
  if (!schema) {
    told->shape = shape;
  } else if (shape == told->shape) {
    told->schema = *schema;
  } else {
    told->changed = true;
  }
}

// Describe and Close.
ClientSession::Step ClientSession::take_target(const protocol::FrameHeader& header, ByteView message, OutBatch& out) {
  count_query_start();
  const bool describe = header.type == frontend::Describe;
  const ReplyKind kind = describe ? ReplyKind::Describe : ReplyKind::Close;
  if (mode_ == PoolMode::Session) {
    server_->ledger().push(kind);
    pass(message, out);
    return Step::Done;
  }
  if (message.size() < header.total() && header.total() <= kNamesMax) return Step::NeedMore;
  const auto target =
      message.size() == header.total() ? protocol::parse_target(message.substr(protocol::kHeaderSize)) : std::nullopt;
  if (!target) {
    fatal(describe ? "broken Describe packet" : "broken Close packet");
    return Step::Hold;
  }
  if (target->kind == 'P' || (!target->name.empty() && !tracks_)) {
    if (!describe || !describe_bound(*target)) server_->ledger().push(kind);
    pass(message, out);
    return Step::Done;
  }
  if (target->name.empty()) {
    if (describe) return take_unnamed_use(kind, message, out);
    ReplyEntry entry;
    entry.kind = kind;
    entry.unnamed_serial = drop_unnamed_unless_skipped();
    server_->unnamed = {};
    push_entry(std::move(entry));
    pass(message, out);
    return Step::Done;
  }
  if (!names_settled()) return Step::Hold;
  stream_forward_ = false;
  return describe ? take_named_describe(target->name, out) : take_named_close(target->name);
}

// True if it describes the portal of the Bind before it, of whose statement something is to be learnt: its entry is in
// the ledger then. Drivers that keep what they are told of the portal know the statement's result from that.
bool ClientSession::describe_bound(const protocol::TargetView& target) {
  protocol::ReplyLedger& ledger = server_->ledger();
  if (target.kind != 'P' || ledger.empty()) return false;
  const ReplyEntry& bound = ledger.newest();
  if (bound.kind != ReplyKind::Bind || bound.purpose == 0 || bound.purpose != portal_number(target.name)) return false;
  if (bound.statement == nullptr || PGWEIR_MUTANT(36)) return false;
  push_describe(bound.statement, bound_name_, bound.name_serial);
  return true;
}

// `name`: of the client's registration, to which what the server says belongs.
void ClientSession::push_describe(protocol::StatementPtr statement, ByteView name, std::uint64_t serial) {
  ReplyEntry entry;
  entry.kind = ReplyKind::Describe;
  entry.statement = std::move(statement);
  entry.name_serial = serial;
  entry.change = std::make_unique<protocol::StatementChange>();
  entry.change->client_name = std::string(name);
  push_entry(std::move(entry));
}

ClientSession::Step ClientSession::take_named_describe(ByteView name, OutBatch& out) {
  auto* known = statements_->find(name);
  if (known == nullptr) {
    add_mistake(out, "26000", fmt::format("prepared statement \"{}\" does not exist", name));
    return Step::Done;
  }
  bool told = true;
  if (const auto step = prepare_use(*known, told, out)) return *step;
  protocol::append_describe(out.begin_own(), 'S', known->statement->server_name());
  out.end_own();
  push_describe(known->statement, name, known->serial);
  return Step::Done;
}

void ClientSession::forget_untold(std::uint64_t serial) {
  const std::string* found = statements_ ? statements_->name_of(serial) : nullptr;
  if (found == nullptr) return;
  const std::string name = *found;
  const auto* known = statements_->find(name);
  if (known->shape == 0 && known->segment >= segments_done_) (void)statements_->remove(name);
}

// Never forwarded: other clients may use the same statement on that server.
ClientSession::Step ClientSession::take_named_close(ByteView name) {
  ReplyEntry entry;
  entry.kind = ReplyKind::LocalClose;
  if (auto removed = statements_->remove(name)) {
    entry.change = std::make_unique<protocol::StatementChange>();
    entry.change->client_name = std::string(name);
    entry.change->removed = std::move(*removed);
    note_names_changing();
  }
  push_entry(std::move(entry));
  return Step::Done;
}

// What a client calls its statements is known here, so to close them takes no server. Some libraries hold a lock
// meanwhile that others need who have all the servers. Returns how much of `in` was Close of named statements and their
// Sync; 0: it does not begin with that, or the client has a place in the queue, for a Close whose Sync came later.
std::size_t ClientSession::close_alone(ByteView in) {
  if (waiting_ || waited_before_) return 0;
  std::vector<ByteView> names;
  std::size_t pos = 0;
  for (bool synced = false; !synced;) {
    protocol::FrameHeader header;
    const ByteView rest = in.substr(pos);
    if (read_frame_header(rest, kNamesMax, header) != protocol::FrameStatus::Ok || rest.size() < header.total())
      return 0;
    pos += header.total();
    synced = header.type == frontend::Sync && header.body() == 0;
    if (synced) continue;
    const auto target = header.type == frontend::Close
                            ? protocol::parse_target(rest.substr(protocol::kHeaderSize, header.body()))
                            : std::nullopt;
    if (!target || target->kind != 'S' || target->name.empty()) return 0;
    names.push_back(target->name);
  }
  std::string answer;
  for (const ByteView name : names) {
    (void)statements_->remove(name);
    protocol::append_close_complete(answer);
  }
  protocol::append_ready_for_query(answer, 'I');
  context_->stats.client_bytes += pos;
  send(ByteView(answer));
  return pos;
}

// A message that PostgreSQL would refuse for a name that only we know about. To get its consequences right (aborted
// transaction, skipping to Sync) the server is made to fail too, and its error is replaced by the right one.
void ClientSession::add_mistake(OutBatch& out, std::string_view sqlstate, std::string_view text) {
  add_mistake(out, {.severity = "ERROR", .sqlstate = sqlstate, .message = text, .add_v = true});
}

void ClientSession::add_mistake(OutBatch& out, const protocol::ErrorText& error) {
  protocol::append_describe(out.begin_own(), 'S', "PGWEIR_no_such_statement");
  out.end_own();
  push_mistake(error);
}

void ClientSession::push_mistake(const protocol::ErrorText& error) {
  ReplyEntry entry;
  entry.kind = ReplyKind::Mistake;
  entry.change = std::make_unique<protocol::StatementChange>();
  entry.change->sqlstate = error.sqlstate == "42P05" ? "42P05" : "26000";
  protocol::append_error(entry.change->error, error);
  push_entry(std::move(entry));
}

// For the settings by which the server is going to read a text that is sent now. While something is under way that may
// change them, which is known by its ReadyForQuery, what is made is for nobody else, nor for later.
std::uint64_t ClientSession::reading_now() {
  if (PGWEIR_MUTANT(34)) return 0;
  settings_open_ = settings_open_ && !server_->ledger().idle();
  return settings_open_ ? core_->random() : core_->settings_hash(parameters_);
}

}  // namespace pgweir::core
