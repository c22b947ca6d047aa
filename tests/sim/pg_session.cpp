#include "tests/sim/pg_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"
#include "tests/sim/schema.hpp"
#include "tests/sim/sql_text.hpp"

namespace pgweir::sim {

namespace {

const std::array<const char*, 6> kReported{"DateStyle",        "IntervalStyle",   "TimeZone",
                                           "application_name", "client_encoding", "standard_conforming_strings"};

std::string canonical_name(const std::string& name) {
  for (const char* known : kReported) {
    if (std::equal(name.begin(), name.end(), known, known + std::string_view(known).size(),
                   [](char a, char b) { return std::tolower(a) == std::tolower(b); })) {
      return known;
    }
  }
  return name;
}

bool returns_rows(const std::string& sql) {
  const std::string first = words(sql).empty() ? "" : words(sql).front();
  return first == "ECHO" || first == "SLEEP" || first == "SHOW" || first == "SELECT" || first == "ROWS";
}

void append_copy_out(std::string& out) {
  const char response[] = {'H', 0, 0, 0, 7, 0, 0, 0};
  out.append(response, sizeof response);
}

// `certain`: see Schema. Told by the size of the type, of which nobody takes notice.
void append_row_type(std::string& out, std::size_t columns = 1, bool certain = true) {
  const std::int16_t size = certain ? -1 : -2;
  const std::vector<protocol::Column> all(columns, protocol::Column{.name = "value", .type_len = size});
  protocol::append_row_description(out, all);
}

// The values of a Bind, all of them text.
std::vector<std::string> bound_values(std::string_view body, std::size_t offset) {
  const auto load_u16 = [&](std::size_t at) { return protocol::load_u16(body.data() + at); };
  offset += 2 + 2U * load_u16(offset);
  std::size_t count = load_u16(offset);
  std::vector<std::string> values;
  for (offset += 2; count > 0; --count) {
    const std::size_t size = protocol::load_u32(body.data() + offset);
    values.emplace_back(body.substr(offset + 4, size));
    offset += 4 + size;
  }
  return values;
}

}  // namespace

PgSession::PgSession() {
  defaults_ = {{"DateStyle", "ISO, MDY"}, {"IntervalStyle", "postgres"}, {"TimeZone", "GMT"},
               {"application_name", ""},  {"client_encoding", "UTF8"},   {"standard_conforming_strings", "on"},
               {"search_path", "public"}, {"statement_timeout", "0"},    {"geqo", "on"}};
  values_ = told_ = defaults_;
}

bool PgSession::reported(const std::string& name) {
  return std::any_of(kReported.begin(), kReported.end(), [&](const char* known) { return name == known; });
}

PgSession::Outcome PgSession::set(const std::string& name, const std::string& value) {
  const std::string known = canonical_name(name);
  if (!defaults_.contains(known)) return Failure{"42704", "unrecognized configuration parameter"};
  if (value == "bad") return Failure{"22023", "invalid value for parameter"};
  std::string canonical = value;
  if (known == "client_encoding" && (value == "utf-8" || value == "'utf-8'" || value == "utf8")) canonical = "UTF8";
  if (known == "DateStyle" && value == "ISO") canonical = "ISO, MDY";
  values_[known] = canonical;
  return std::nullopt;
}

void PgSession::start(const Parameters& startup) {
  for (const auto& [name, value] : startup) {
    (void)set(name, value);
    const std::string known = canonical_name(name);
    if (defaults_.contains(known)) defaults_[known] = values_[known];
  }
  told_ = values_;
}

void PgSession::attach(Data& data, bool in_hot_standby) {
  data_ = &data;
  hot_standby_ = hot_standby_told_ = in_hot_standby;
}

void PgSession::append_report(std::string& out) const {
  protocol::append_parameter_status(out, "server_version", "15.0");
  if (data_ != nullptr) protocol::append_parameter_status(out, "in_hot_standby", hot_standby_ ? "on" : "off");
  for (const char* name : kReported) protocol::append_parameter_status(out, name, values_.at(name));
}

std::string PgSession::take_output() {
  std::string result = std::move(out_);
  out_.clear();
  return result;
}

std::string PgSession::next() const {
  protocol::FrameHeader header;
  if (sleeping_ || (!rest_.empty() && !copy_)) return {};
  if (read_frame_header(in_, 1U << 30, header) != protocol::FrameStatus::Ok || in_.size() < header.total()) return {};
  std::string text(1, header.type);
  for (const char c : in_.substr(5, std::min<std::size_t>(header.body(), 40))) text += c >= ' ' && c <= '~' ? c : '.';
  return text;
}

// What step() has come to.
PgSession::Step PgSession::pause() const {
  if (closed_) return Step::Closed;
  if (sleeping_) return Step::Sleeping;
  return ready_due_ ? Step::Committing : Step::Progress;
}

PgSession::Step PgSession::step() {
  if (pause() != Step::Progress) return pause();
  if (!rest_.empty() && !copy_) {
    continue_query();
    return pause();
  }
  protocol::FrameHeader header;
  if (read_frame_header(in_, 1U << 30, header) != protocol::FrameStatus::Ok || in_.size() < header.total()) {
    return Step::NeedInput;
  }
  const std::string message = in_.substr(0, header.total());
  in_.erase(0, header.total());
  handle(header.type, std::string_view(message).substr(5));
  if (held_.size() > 8192) {
    out_ += held_;
    held_.clear();
  }
  return pause();
}

void PgSession::handle(char type, std::string_view body) {
  if (type == 'X') {
    closed_ = true;
    return;
  }
  if (copy_) {
    if (type == 'c') return end_copy(true);
    if (type == 'f') return end_copy(false);
    if (type == 'd') return copy_data(body);
    if (type == 'H' || type == 'S') return;
    closed_ = true;  // a server would lose the thread of the protocol here
    return;
  }
  if (stream_) return take_stream(type, body);
  if (type == 'S') {
    skip_ = false;
    extended_ = false;
    end_implicit(true);
    return ready();
  }
  if (skip_) return;
  extended_ = type != 'Q' && type != 'F';
  switch (type) {
    case 'Q':
      statements_.erase("");
      return run_query(std::string(body.substr(0, body.size() - 1)));
    case 'P':
      return parse(body);
    case 'B':
      return bind(body);
    case 'D':
      return describe(body);
    case 'C':
      return close(body);
    case 'E':
      return execute(body);
    case 'H':
      out_ += held_;
      held_.clear();
      return;
    case 'F':
      return call_function();
    default:  // late COPY data
      return;
  }
}

// It answers with its oid.
void PgSession::call_function() {
  begin_statement();
  if (status_ == 'E') {
    error({"25P02", "current transaction is aborted"});
    return ready();
  }
  const char response[] = {'V', 0, 0, 0, 10, 0, 0, 0, 2, '4', '2'};
  held_.append(response, sizeof response);
  end_implicit(true);
  ready();
}

// ---- simple query ----

void PgSession::run_query(std::string sql) {
  rest_ = split_statements(sql);
  if (rest_.empty()) {
    protocol::append_empty_query_response(held_);
    return ready();
  }
  continue_query();
}

void PgSession::continue_query() {
  const std::string sql = rest_.front();
  rest_.erase(rest_.begin());
  begin_statement();
  const Outcome outcome = std::exchange(cancel_next_, false)
                              ? Failure{"57014", "canceling statement due to user request"}
                              : run(sql, false);
  if (outcome) {
    rest_.clear();
    error(*outcome);
    if (closed_) return;
    end_implicit(false);
    return ready();
  }
  if (sleeping_ || copy_ || stream_) return;
  if (rest_.empty()) {
    end_implicit(true);
    ready();
  }
}

void PgSession::begin_statement() {
  if (status_ == 'I' && !implicit_) {
    implicit_ = true;
    saved_ = values_;
    read_only_ = data_ != nullptr && data_->begin();
  }
}

void PgSession::end_implicit(bool ok) {
  if (!implicit_) return;
  implicit_ = false;
  if (!ok) values_ = saved_;
  end_transaction(ok);
}

void PgSession::end_transaction(bool commit) {
  if (data_ != nullptr && data_->end(commit)) commit_wait_ = true;
}

void PgSession::commit_done() {
  commit_wait_ = false;
  if (std::exchange(ready_due_, false)) ready();
}

void PgSession::ready() {
  if (commit_wait_) {
    ready_due_ = true;
    return;
  }
  if (data_ != nullptr && hot_standby_ != hot_standby_told_) {
    hot_standby_told_ = hot_standby_;
    protocol::append_parameter_status(held_, "in_hot_standby", hot_standby_ ? "on" : "off");
  }
  for (const char* name : kReported) {
    if (values_.at(name) == told_.at(name)) continue;
    told_[name] = values_.at(name);
    protocol::append_parameter_status(held_, name, values_.at(name));
  }
  protocol::append_ready_for_query(held_, status_);
  out_ += held_;
  held_.clear();
  running_.clear();
}

void PgSession::error(const Failure& failure) {
  protocol::append_error(held_, protocol::ErrorText{.severity = failure.fatal ? "FATAL" : "ERROR",
                                                    .sqlstate = failure.sqlstate,
                                                    .message = failure.message,
                                                    .add_v = true});
  // An error is sent at once, also in the middle of a pipeline whose Flush is then skipped.
  out_ += held_;
  held_.clear();
  if (status_ == 'T') status_ = 'E';
  if (failure.fatal) closed_ = true;
}

// ---- statements ----

void PgSession::row(const std::string& token) {
  const std::optional<std::string_view> value = token;
  protocol::append_data_row(held_, {&value, 1});
}

void PgSession::complete(const std::string& tag) {
  protocol::append_command_complete(held_, tag);
}

PgSession::Outcome PgSession::run(const std::string& sql, bool extended) {
  const std::vector<std::string> word = words(sql);
  running_ = sql;
  if (status_ == 'E' && word[0] != "ROLLBACK" && word[0] != "COMMIT") {
    return Failure{"25P02", "current transaction is aborted"};
  }
  if (word[0] == "FAIL") return Failure{"22012", "failed " + word.at(1)};
  if (data_ != nullptr) {
    if (data_->copies_in(sql)) return begin_data_copy();
    if (const auto columns = data_->columns(sql)) return run_data(sql, extended, *columns);
  }
  if (!extended && returns_rows(sql)) append_row_type(held_);
  if (word[0] == "ECHO") {
    row(word.at(1));
    complete("SELECT 1");
  } else if (word[0] == "SLEEP") {
    out_ += held_;
    held_.clear();
    sleeping_ = true;
  } else if (word[0] == "ROWS") {
    const std::string payload = word.at(1) + ":" + std::string(std::stoul(word.at(3)), 'x');
    for (unsigned long i = 0; i < std::stoul(word.at(2)); ++i) row(payload);
    complete("SELECT " + word.at(2));
  } else if (schema_ != nullptr && word[0] == "TABLE") {
    run_table(word);
  } else if (schema_ != nullptr && word[0] == "ALTER") {
    schema_->change(word.at(1), std::stoul(word.at(2)), std::stoi(word.at(3)));
    complete("ALTER TABLE");
  } else if (word[0] == "COPYIN") {
    begin_copy();
  } else if (word[0] == "STREAM") {
    const char response[] = {'W', 0, 0, 0, 7, 0, 0, 0};
    held_.append(response, sizeof response);
    out_ += held_;
    held_.clear();
    stream_ = true;
  } else if (word[0] == "COPYOUT") {
    append_copy_out(held_);
    for (unsigned long i = 0; i < std::stoul(word.at(2)); ++i) protocol::append_copy_data(held_, word.at(1));
    protocol::append_copy_done(held_);
    complete("COPY " + word.at(2));
  } else {
    return run_utility(sql);
  }
  return std::nullopt;
}

PgSession::Outcome PgSession::run_data(const std::string& sql, bool extended, std::size_t columns) {
  const Data::Result result = data_->run(sql, read_only_);
  if (!extended && columns > 0 && (!result.failure || result.failure->late)) append_row_type(held_, columns);
  if (result.copies) {
    append_copy_out(held_);
    for (const std::vector<std::string>& row : result.rows) {
      protocol::append_copy_data(held_, fmt::format("{}\n", fmt::join(row, "\t")));
    }
  }
  if (result.failure) return result.failure;
  if (result.copies) {
    protocol::append_copy_done(held_);
    complete(result.tag);
    return std::nullopt;
  }
  for (const std::vector<std::string>& row : result.rows) {
    const std::vector<std::optional<std::string_view>> values(row.begin(), row.end());
    protocol::append_data_row(held_, values);
  }
  complete(result.tag);
  return std::nullopt;
}

// A TABLE as it is parsed now: with the columns that it has, and whether they are certain.
std::string PgSession::with_columns(const std::string& sql) const {
  if (schema_ == nullptr || !sql.starts_with("TABLE ")) return sql;
  const std::string table = words(sql).at(1);
  return fmt::format("TABLE {} {} {}", table, schema_->columns(table), schema_->certain(table, clock_()) ? 'y' : 'n');
}

PgSession::Outcome PgSession::revalidate(const std::string& sql) const {
  if (schema_ == nullptr || !sql.starts_with("TABLE ")) return std::nullopt;
  const std::vector<std::string> word = words(sql);
  if (std::stoul(word.at(2)) == schema_->columns(word.at(1))) return std::nullopt;
  return Failure{"0A000", "cached plan must not change result type"};
}

void PgSession::run_table(const std::vector<std::string>& word) {
  const std::vector<std::optional<std::string_view>> values(std::stoul(word.at(2)), word.at(3));
  protocol::append_data_row(held_, values);
  complete("SELECT 1");
}

std::size_t PgSession::columns_of(const std::string& sql) const {
  if (sql.starts_with("TABLE ")) return std::stoul(words(sql).at(2));
  const auto columns = data_ != nullptr ? data_->columns(sql) : std::nullopt;
  return columns ? *columns : returns_rows(sql) ? 1 : 0;
}

PgSession::Outcome PgSession::run_utility(const std::string& sql) {
  const std::vector<std::string> word = words(sql);
  if (word[0] == "BEGIN" || word[0] == "START") {
    if (status_ == 'I') {
      if (!implicit_) saved_ = values_;
      implicit_ = false;
      status_ = 'T';
      if (sql.find("READ ONLY") != std::string::npos) read_only_ = true;
    }
    complete(word[0] == "START" ? "START TRANSACTION" : "BEGIN");
  } else if (word[0] == "COMMIT" || word[0] == "ROLLBACK") {
    const bool undo = status_ == 'E' || (word[0] == "ROLLBACK" && status_ == 'T');
    if (undo) values_ = saved_;
    status_ = 'I';
    implicit_ = false;
    end_transaction(!undo);
    complete(undo ? "ROLLBACK" : word[0]);
  } else if (word[0] == "SHOW") {
    const auto it = values_.find(canonical_name(word.at(1)));
    if (it == values_.end()) return Failure{"42704", "unrecognized configuration parameter"};
    row(it->second);
    complete("SHOW");
  } else if (word[0] == "SELECT") {  // set_config
    const auto literal = literals(sql);
    if (const Outcome outcome = set(literal.at(0), literal.at(1))) return outcome;
    row(literal.at(1));
    complete("SELECT 1");
  } else if (word[0] == "SET") {
    if (const Outcome outcome = set(trim(sql.substr(4, sql.find('=') - 4)), literals(sql).at(0))) return outcome;
    complete("SET");
  } else if (word[0] == "RESET") {
    const std::string name = canonical_name(word.at(1));
    if (!defaults_.contains(name)) return Failure{"42704", "unrecognized configuration parameter"};
    values_[name] = defaults_.at(name);
    complete("RESET");
  } else if (sql == "DISCARD ALL") {
    if (status_ != 'I') return Failure{"25001", "DISCARD ALL cannot run inside a transaction block"};
    values_ = saved_ = defaults_;
    statements_.clear();
    complete("DISCARD ALL");
  } else if (sql == "DEALLOCATE ALL") {
    statements_.clear();
    complete("DEALLOCATE ALL");
  } else if (word[0] == "DEALLOCATE") {
    if (statements_.erase(unquoted(word.at(1))) == 0) return Failure{"26000", "prepared statement does not exist"};
    complete("DEALLOCATE");
  } else if (word[0] == "EXECUTE") {
    const auto it = statements_.find(unquoted(word.at(1)));
    if (it == statements_.end()) return Failure{"26000", "prepared statement does not exist"};
    return run(it->second, false);
  } else {
    return Failure{"42601", "syntax error"};
  }
  return std::nullopt;
}

void PgSession::wake(bool canceled) {
  sleeping_ = false;
  if (canceled) {
    const Failure failure{"57014", "canceling statement due to user request"};
    if (extended_) return fail_extended(failure);
    rest_.clear();
    error(failure);
    end_implicit(false);
    return ready();
  }
  row(words(running_).at(1));
  complete("SELECT 1");
  if (extended_) return;
  if (rest_.empty()) {
    end_implicit(true);
    ready();
  }
}

void PgSession::begin_copy() {
  const char response[] = {'G', 0, 0, 0, 7, 0, 0, 0};
  held_.append(response, sizeof response);
  out_ += held_;
  held_.clear();
  copy_ = true;
  data_copy_ = false;
}

PgSession::Outcome PgSession::begin_data_copy() {
  if (const Outcome failure = data_->begin_copy(read_only_)) return failure;
  begin_copy();
  data_copy_ = true;
  return std::nullopt;
}

void PgSession::copy_data(std::string_view line) {
  if (!data_copy_) return;
  if (const Outcome failure = data_->copy_line(line)) fail_copy(*failure);
}

void PgSession::end_copy(bool ok) {
  if (ok) {
    copy_ = false;
    complete(data_copy_ ? data_->end_copy() : "COPY 1");
    if (extended_) return;
    if (rest_.empty()) {
      end_implicit(true);
      ready();
    }
    return;
  }
  fail_copy({"57014", "COPY from stdin failed"});
}

// What the client still sends of it is passed over.
void PgSession::fail_copy(const Failure& failure) {
  copy_ = false;
  if (extended_) return fail_extended(failure);
  rest_.clear();
  error(failure);
  end_implicit(false);
  ready();
}

void PgSession::take_stream(char type, std::string_view body) {
  if (type == 'd') {
    protocol::append_copy_data(out_, body);
    return;
  }
  stream_ = false;
  if (type != 'c') {
    closed_ = true;  // a server ends such a connection
    return;
  }
  protocol::append_copy_done(held_);
  complete("START_REPLICATION");
  end_implicit(true);
  ready();
}

// ---- extended query ----

void PgSession::fail_extended(const Failure& failure) {
  error(failure);
  if (closed_) return;
  end_implicit(false);
  skip_ = true;
}

void PgSession::parse(std::string_view body) {
  const auto view = protocol::parse_parse(body);
  const std::string name(view->statement);
  std::string sql(view->query);
  begin_statement();
  // What a server makes of a text when it parses it, as of the literal '1/2/2020'::date.
  if (sql.starts_with("READ ")) {
    sql = fmt::format("ECHO {}@{}", sql.substr(5), values_.at("DateStyle"));
    std::replace(sql.begin() + 5, sql.end(), ' ', '_');
  }
  if (status_ == 'E' && sql != "ROLLBACK" && sql != "COMMIT") return fail_extended({"25P02", "aborted"});
  if (name.empty()) statements_.erase("");
  if (sql.substr(0, 6) == "SYNTAX") return fail_extended({"42601", "syntax error"});
  if (statements_.contains(name)) return fail_extended({"42P05", "prepared statement already exists"});
  statements_[name] = with_columns(sql);
  protocol::append_parse_complete(held_);
}

void PgSession::bind(std::string_view body) {
  const auto view = protocol::parse_bind(body);
  begin_statement();
  const auto it = statements_.find(std::string(view->statement));
  if (it == statements_.end()) return fail_extended({"26000", "prepared statement does not exist"});
  if (status_ == 'E' && it->second != "ROLLBACK" && it->second != "COMMIT") return fail_extended({"25P02", "aborted"});
  if (const Outcome outcome = revalidate(it->second)) return fail_extended(*outcome);
  portals_[std::string(view->portal)] = with_values(it->second, bound_values(body, view->rest_offset));
  protocol::append_bind_complete(held_);
}

void PgSession::describe(std::string_view body) {
  const auto view = protocol::parse_target(body);
  const std::string name(view->name);
  begin_statement();
  const auto& map = view->kind == 'S' ? statements_ : portals_;
  const auto it = map.find(name);
  if (it == map.end()) return fail_extended({view->kind == 'S' ? "26000" : "34000", "does not exist"});
  const std::size_t columns = columns_of(it->second);
  if (status_ == 'E' && columns > 0) return fail_extended({"25P02", "aborted"});
  const Outcome changed = view->kind == 'S' ? revalidate(it->second) : std::nullopt;
  if (changed) return fail_extended(*changed);
  if (view->kind == 'S') held_.append("t\0\0\0\6\0\0", 7);
  if (columns > 0) {
    append_row_type(held_, columns, schema_ == nullptr || !it->second.ends_with(" n"));
  } else {
    protocol::append_no_data(held_);
  }
}

void PgSession::close(std::string_view body) {
  const auto view = protocol::parse_target(body);
  begin_statement();
  (view->kind == 'S' ? statements_ : portals_).erase(std::string(view->name));
  protocol::append_close_complete(held_);
}

void PgSession::execute(std::string_view body) {
  const auto view = protocol::parse_execute(body);
  begin_statement();
  const auto it = portals_.find(std::string(view->portal));
  if (it == portals_.end()) return fail_extended({"34000", "portal does not exist"});
  if (it->second.empty()) return protocol::append_empty_query_response(held_);
  if (const Outcome outcome = run(it->second, true)) fail_extended(*outcome);
}

}  // namespace pgweir::sim
