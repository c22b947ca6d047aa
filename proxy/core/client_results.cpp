// Prepared statements of clients on servers: made where they are missing, and only where their result is the one that
// the client was told of.
#include <algorithm>

#include "pool/mutation.hpp"
#include "protocol/message_builder.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

using protocol::ReplyEntry;
using protocol::ReplyKind;

// The statement that stands for this one under the settings of now: what is parsed now is read by them, and others
// would find it under those of then.
protocol::StatementPtr ClientSession::as_read_now(const protocol::StatementPtr& statement) {
  const std::uint64_t reading = reading_now();
  if (reading == statement->reading()) return statement;
  protocol::StatementPtr other =
      core_->statement_table().intern(statement->query(), statement->parameter_types(), reading, statement->schema());
  if (other->told_types.empty()) other->told_types = statement->told_types;
  return other;
}

// Before a message that uses a named statement of the client: the server has it, or gets it, with the result that the
// client was told of. nullopt: the message may go. `told`: unless something is to be learnt from a description.
std::optional<ClientSession::Step> ClientSession::prepare_use(protocol::ClientStatements::Registration& known,
                                                              bool& told, OutBatch& out) {
  const std::uint64_t* shape = server_->statements().touch(known.statement->key());
  const bool serves = shape != nullptr && *shape == known.shape && known.shape != 0;
  const std::optional<Step> step = serves ? std::nullopt : make_usable(known, told, out);
  if (step != Step::Hold) asks_first_ = false;
  return step;
}

std::optional<ClientSession::Step> ClientSession::make_usable(protocol::ClientStatements::Registration& known,
                                                              bool& told, OutBatch& out) {
  told = false;
  if (known.shape == 0) {
    (void)ensure_on_server(known.statement, out, false);
    return std::nullopt;
  }
  const auto serves = [&](const std::uint64_t* there) {
    return there != nullptr && (*there == known.shape || (*there == 0 && core_->schema_settled(context_->dbname)));
  };
  const std::uint64_t* there = server_->statements().touch(known.statement->key());
  if (serves(there)) return std::nullopt;
  told = true;
  // In a failed transaction the server refuses whatever has a result.
  if (will_be_skipped() || server_->transaction_status() == 'E' || PGWEIR_MUTANT(35)) {
    if (there == nullptr) make_on_server(*known.statement, known.shape, out, false);
    return std::nullopt;
  }
  if (there == nullptr) {
    known.statement = as_read_now(known.statement);
    there = server_->statements().touch(known.statement->key());
    if (serves(there)) return std::nullopt;
  }
  return check_result(known, there, out);
}

// The result on this server is the one that the client was told of: a request must not run that returns something else.
// PostgreSQL, which knows what it has said, refuses it as well. `there`: null, or the shape of another result, or of
// one that is not known.
std::optional<ClientSession::Step> ClientSession::check_result(const protocol::ClientStatements::Registration& known,
                                                               const std::uint64_t* there, OutBatch& out) {
  const std::uint64_t schema = server_->schema_now();
  const protocol::Statement::Result& result = known.statement->result;
  if (result.schema == schema && result.shape != known.shape) return refuse_result(out);
  // Changes come in series, and each is known a moment after it was made: for some time nothing is taken for granted.
  if (there == nullptr && result.schema == schema && core_->schema_settled(context_->dbname)) {
    make_on_server(*known.statement, known.shape, out, false);
    return std::nullopt;
  }
  return ask_for_result(known.statement, there, out);
}

// The server is given the statement to parse and says what the result is.
ClientSession::Step ClientSession::ask_for_result(const protocol::StatementPtr& statement, const std::uint64_t* there,
                                                  OutBatch& out) {
  if (server_->is_asked()) return Step::Hold;
  // What is asked before a transaction begins leaves it free to be sent elsewhere.
  const bool first = server_->between_transactions();
  if (!first && !replies_known()) return Step::Hold;
  if (there != nullptr) {  // it may be one of a time that has passed
    server_->statements().remove(statement->key());
    push_close_on_server(statement->key(), out);
  }
  make_on_server(*statement, protocol::kAnyShape, out, false);
  ReplyEntry entry;
  entry.statement = statement;
  return describe_hidden(statement->server_name(), std::move(entry), first, out);
}

// Asks for what the result is of the statement that the server calls `name`. `first`: before a transaction begins.
ClientSession::Step ClientSession::describe_hidden(std::string_view name, ReplyEntry entry, bool first, OutBatch& out) {
  entry.kind = ReplyKind::HiddenDescribe;
  entry.change = std::make_unique<protocol::StatementChange>();
  entry.change->schema = server_->schema_now();
  push_entry(std::move(entry));
  protocol::append_describe(out.begin_own(), 'S', name);
  out.end_own();
  asks_first_ = first;
  if (!first && guarded()) end_guard();
  ask_for_replies();
  return Step::Hold;
}

ClientSession::Step ClientSession::refuse_result(OutBatch& out) {
  // Drivers know it by the routine, or by the text.
  add_mistake(out, {.severity = "ERROR",
                    .sqlstate = "0A000",
                    .message = "cached plan must not change result type",
                    .add_v = true,
                    .routine = "RevalidateCachedQuery"});
  stream_forward_ = false;
  return Step::Done;
}

// The server does not come to what is sent now.
bool ClientSession::will_be_skipped() const {
  return server_->ledger().skipping() || server_->ledger().copying_in();
}

// True if a hidden Parse was needed. `quiet`: the client does not hear if that fails. For those who were told nothing,
// or are told again: what the result is with the schema of now does not matter.
bool ClientSession::ensure_on_server(protocol::StatementPtr& statement, OutBatch& out, bool quiet) {
  if (server_->statements().touch(statement->key()) != nullptr) return false;
  if (!will_be_skipped()) {
    statement = as_read_now(statement);
    if (server_->statements().touch(statement->key()) != nullptr) return false;
  }
  make_on_server(*statement, statement->is_fresh(server_->schema_now()) ? 0 : protocol::kAnyShape, out, quiet);
  return true;
}

// `shape`: of the result that it will have.
void ClientSession::make_on_server(const protocol::Statement& statement, std::uint64_t shape, OutBatch& out,
                                   bool quiet) {
  server_->statements().add(statement.key(), shape, core_->now().time_since_epoch());
  evict_statements(out);
  protocol::append_parse(out.begin_own(), statement.server_name(), statement.query(), statement.known_types());
  out.end_own();
  ReplyEntry entry;
  entry.kind = ReplyKind::HiddenParse;
  entry.change = std::make_unique<protocol::StatementChange>();
  entry.change->key = statement.key();
  entry.change->server_added = true;
  entry.change->schema = server_->schema_now();
  entry.quiet = quiet;
  note_names_changing();
  ++context_->stats.server_parse_count;
  push_entry(std::move(entry));
}

void ClientSession::evict_statements(OutBatch& out) {
  if (server_->ledger().skipping()) return;  // the Close would be skipped too, and so would the Parse it makes room for
  // Not the one that room is made for, even where a reload has switched all this off for later clients.
  const std::size_t limit = std::max<std::size_t>(context_->max_prepared_statements, 1);
  while (const auto key = server_->statements().evict_over(limit)) push_close_on_server(*key, out);
}

// The server is to have it no more; the key has been removed from those that it has.
void ClientSession::push_close_on_server(const protocol::Hash128& key, OutBatch& out) {
  protocol::append_close(out.begin_own(), 'S', protocol::statement_server_name(key));
  out.end_own();
  ReplyEntry entry;
  entry.kind = ReplyKind::HiddenClose;
  entry.change = std::make_unique<protocol::StatementChange>();
  entry.change->key = key;
  entry.change->server_removed = true;
  note_names_changing();
  push_entry(std::move(entry));
}

}  // namespace pgweir::core
