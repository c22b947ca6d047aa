// What SQL does to prepared statements in transaction and statement mode: EXECUTE and DEALLOCATE of a statement that
// the client prepared by protocol, which the server knows under our name, and commands after which the server has none.
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"
#include "router/sql_lexer.hpp"

namespace pgweir::core {

using protocol::ReplyEntry;
using protocol::ReplyKind;

namespace {

/// What a DEALLOCATE in extended protocol finds in place of its statement, which others may be using.
constexpr std::string_view kDeallocated = "PGWEIR_deallocated";

std::string with_name(std::string_view sql, const router::StatementNameUse& use, std::string_view name) {
  std::string result(sql.substr(0, use.offset));
  result.append("\"").append(name).append("\"");
  return result.append(sql.substr(use.offset + use.length));
}

}  // namespace

// A statement with this text is bound and may run, and take the server's prepared statements away.
void ClientSession::note_text(std::string_view sql) {
  if (tracks_ && router::may_clear_statements(sql)) names_cleared_ = true;
  settings_open_ = settings_open_ || router::may_change_settings(sql);
  bound_resets_ = resets_of(sql);
}

// Which tracked parameters a text that is about to run resets, and leaves so. It matters only to clients with start-up
// values of their own, to which they go back.
std::uint32_t ClientSession::resets_of(std::string_view sql) const {
  if (!overrides_ || !router::may_change_parameters(sql)) return 0;
  std::uint32_t resets = 0;
  for (const router::ParameterChange& change : router::find_parameter_changes(sql)) {
    const bool reset = change.kind == router::ParameterChange::Kind::Reset;
    const auto index = core_->settings()->tracked->find(change.name);
    const std::uint32_t which = index ? 1U << *index : reset && change.name == "all" ? kResetsAll : 0;
    resets = reset ? resets | which : resets & ~which;
  }
  return resets;
}

// True when it is known how everything went that was sent so far. Otherwise the server is asked to tell, and whoever
// needs to know waits: its replies wake the client.
bool ClientSession::replies_known() {
  const protocol::ReplyLedger& ledger = server_->ledger();
  if (ledger.empty() || ledger.copying_in()) return true;
  if (guarded()) {  // nothing is held back from now on
    end_guard();
    core_->wake(*server_);
  }
  ask_for_replies();
  return false;
}

void ClientSession::ask_for_replies() {
  protocol::ReplyLedger& ledger = server_->ledger();
  if (!ledger.unsynced() || std::exchange(ledger.newest().flushed, true)) return;
  protocol::append_flush(core_->batch().begin_own());
  core_->batch().end_own();
}

// A simple query that names a statement. nullopt: it is none of ours and goes to the server as it is.
std::optional<ClientSession::Step> ClientSession::take_statement_sql(ByteView body, OutBatch& out) {
  const auto query = protocol::parse_query(body);
  const auto use = query ? router::find_statement_name(query->sql) : std::nullopt;
  auto* known = use ? statements_->find(use->name) : nullptr;
  protocol::ReplyLedger& ledger = server_->ledger();
  if (known == nullptr || ledger.copying_in()) return std::nullopt;
  // Where the server does not have it, nothing is parsed to be dropped: that might fail, or wait for a lock.
  const bool there = server_->statements().touch(known->statement->key()) != nullptr;
  if (use->kind == router::StatementNameUse::Kind::Deallocate && (!use->alone || !(there || ledger.may_skip()))) {
    return take_deallocate_among(query->sql, *use, out);
  }
  bool made = false;
  if (ledger.may_skip()) {
    if (const auto step = make_within_pipeline(known->statement, out); !step || *step != Step::NeedMore) return step;
  } else if (made = ensure_on_server(known->statement, out, true); made) {
    // Should the Parse fail, the server skips to a Sync, which a simple query does not bring.
    add_hidden_sync(out);
  }
  const protocol::StatementPtr statement = known->statement;
  protocol::append_query(out.begin_own(), with_name(query->sql, *use, statement->server_name()));
  out.end_own();
  ReplyEntry entry;
  entry.kind = ReplyKind::Query;
  entry.unnamed_serial = drop_unnamed_unless_skipped();
  entry.statement = statement;
  entry.name_serial = known->serial;
  server_->unnamed = {};
  if (use->kind == router::StatementNameUse::Kind::Deallocate) {
    free_name(use->name, entry);
    names_cleared_ = true;
    entry.change->key = statement->key();
    // What was made for this alone may have failed, for instance in a failed transaction: then it is not to be taken
    // for there again.
    entry.change->server_removed = !made;
    server_->statements().remove(statement->key());
  }
  push_entry(std::move(entry));
  settings_open_ = true;
  stream_forward_ = false;
  return Step::Done;
}

// A simple query in which a DEALLOCATE is one of several statements, so that nobody can tell what was run should the
// query fail: then the client's name remains. Or the server does not have what is to be dropped.
std::optional<ClientSession::Step> ClientSession::take_deallocate_among(ByteView sql,
                                                                        const router::StatementNameUse& use,
                                                                        OutBatch& out) {
  if (server_->ledger().may_skip()) return std::nullopt;
  make_deallocated(out);
  add_hidden_sync(out);
  protocol::append_query(out.begin_own(), with_name(sql, use, kDeallocated));
  out.end_own();
  ReplyEntry entry;
  entry.kind = ReplyKind::Query;
  entry.unnamed_serial = drop_unnamed_unless_skipped();
  server_->unnamed = {};
  free_name(use.name, entry);
  names_cleared_ = true;  // what follows without a Sync is not skipped with it
  push_entry(std::move(entry));
  stream_forward_ = false;
  return Step::Done;
}

// Makes what a DEALLOCATE is going to find.
void ClientSession::make_deallocated(OutBatch& out) {
  push_hidden(ReplyKind::HiddenClose);
  push_hidden(ReplyKind::HiddenParse);
  protocol::append_close(out.begin_own(), 'S', kDeallocated);
  out.end_own();
  protocol::append_parse(out.begin_own(), kDeallocated, "", {});
  out.end_own();
}

// Takes the client's name away, until `entry` turns out to have failed.
void ClientSession::free_name(const std::string& name, ReplyEntry& entry) {
  entry.change = std::make_unique<protocol::StatementChange>();
  entry.change->client_name = name;
  entry.change->removed = std::move(*statements_->remove(name));
  note_names_changing();
}

// A simple query behind messages without a Sync: the server skips it if one of those fails, and it is part of their
// transaction, so no Sync of ours may come between. NeedMore: the server has the statement, go on.
std::optional<ClientSession::Step> ClientSession::make_within_pipeline(protocol::StatementPtr& statement,
                                                                       OutBatch& out) {
  protocol::ReplyLedger& ledger = server_->ledger();
  if (server_->statements().touch(statement->key())) {
    if (!sql_parse_sent_) return Step::NeedMore;
    if (!replies_known()) return Step::Hold;
  }
  if (!replies_known()) return Step::Hold;
  const bool failed = ledger.skipping();
  if (!std::exchange(sql_parse_sent_, false)) {
    if (failed) return std::nullopt;
    (void)ensure_on_server(statement, out, false);
    sql_parse_sent_ = true;
    (void)replies_known();
    return Step::Hold;
  }
  if (!failed) return Step::NeedMore;
  // The client has the error of our Parse, which stands for that of its query; what ends the query is still to come.
  ++segment_;
  ledger.push(ReplyKind::Sync);
  protocol::append_sync(out.begin_own());
  out.end_own();
  stream_forward_ = false;
  return Step::Done;
}

// Parse of an unnamed statement that names another. nullopt: it names none of ours.
std::optional<ClientSession::Step> ClientSession::take_statement_sql_parse(const protocol::ParseView& view,
                                                                           OutBatch& out) {
  const auto use = router::find_statement_name(view.query);
  if (!use || !use->alone) return std::nullopt;
  if (!names_settled()) return Step::Hold;
  auto* known = statements_->find(use->name);
  if (known == nullptr) return std::nullopt;
  const bool deallocates = use->kind == router::StatementNameUse::Kind::Deallocate;
  if (!deallocates) (void)ensure_on_server(known->statement, out, false);
  const std::string sql =
      with_name(view.query, *use, deallocates ? kDeallocated : std::string_view(known->statement->server_name()));
  protocol::append_parse(out.begin_own(), "", sql, view.parameter_types_raw);
  out.end_own();
  protocol::ParseView rewritten = view;
  rewritten.query = sql;
  take_unnamed_parse(&rewritten);
  if (!unnamed_.empty()) {
    unnamed_.back().uses = use->name;
    unnamed_.back().deallocates = deallocates;
  }
  stream_forward_ = false;
  return Step::Done;
}

// Bind or Describe of such a statement, whose entry in the ledger is to be `entry`. True: the server has it now, in a
// form of its own.
bool ClientSession::take_statement_sql_use(ReplyEntry& entry, OutBatch& out) {
  Unnamed& unnamed = unnamed_.back();
  auto* known = statements_->find(unnamed.uses);
  const bool runs = entry.kind == ReplyKind::Bind;
  if (known == nullptr && runs) {
    // Its name has been freed since. The server, which has none of that name, is to say so itself, in its own time.
    std::string sql = unnamed.deallocates ? "DEALLOCATE \"" : "EXECUTE \"";
    for (const char c : unnamed.uses) sql.append(c == '"' ? 2 : 1, c);
    push_hidden(ReplyKind::HiddenParse);
    protocol::append_parse(out.begin_own(), "", sql.append("\""), unnamed.parameter_types);
    out.end_own();
    server_->unnamed = {};
    return true;
  }
  if (known == nullptr) return false;
  if (!unnamed.deallocates) {
    const protocol::StatementPtr before = known->statement;
    (void)ensure_on_server(known->statement, out, false);
    const auto use = known->statement == before ? std::nullopt : router::find_statement_name(unnamed.query);
    if (use) {
      unnamed.query = with_name(unnamed.query, *use, known->statement->server_name());
      server_->unnamed = {};  // that one has the other name in it
    }
  } else if (runs) {
    make_deallocated(out);
    free_name(unnamed.uses, entry);
  }
  return false;
}

void ClientSession::add_hidden_sync(OutBatch& out) {
  protocol::append_sync(out.begin_own());
  out.end_own();
  server_->ledger().push(ReplyKind::HiddenSync);
}

void ClientSession::push_hidden(ReplyKind kind) {
  ReplyEntry entry;
  entry.kind = kind;
  push_entry(std::move(entry));
}

}  // namespace pgweir::core
