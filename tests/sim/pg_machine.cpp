#include "tests/sim/pg_machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"
#include "tests/sim/tiny_sql.hpp"

namespace pgweir::sim {

namespace {

constexpr std::size_t kHeldMax = 8192;
const std::array<std::string, 6> kReported{"DateStyle",        "IntervalStyle",   "TimeZone",
                                           "application_name", "client_encoding", "standard_conforming_strings"};

std::vector<Message> parse_all(std::string bytes) {
  return take_messages(bytes);
}

bool ends_transaction(const std::string& sql) {
  return sql == "COMMIT" || sql == "ROLLBACK";
}

bool is_slow(const std::string& verb) {
  return verb == "SET" || verb == "SELECT" || verb == "RESET" || verb == "DISCARD";
}

bool returns_rows(const std::string& sql) {
  const auto word = tiny_sql::words(sql);
  if (word.empty()) return false;
  static const std::array<std::string, 5> verbs{"ECHO", "ROWS", "SLEEP", "SHOW", "SELECT"};
  return std::find(verbs.begin(), verbs.end(), word[0]) != verbs.end();
}

}  // namespace

std::vector<Message> take_messages(std::string& bytes) {
  std::vector<Message> messages;
  std::size_t pos = 0;
  protocol::FrameHeader header;
  while (read_frame_header(std::string_view(bytes).substr(pos), 1U << 30, header) == protocol::FrameStatus::Ok &&
         bytes.size() - pos >= header.total()) {
    messages.push_back({header.type, bytes.substr(pos + protocol::kHeaderSize, header.body())});
    pos += header.total();
  }
  bytes.erase(0, pos);
  return messages;
}

std::string sqlstate_of(const Message& error) {
  const auto fields = protocol::parse_error_fields(error.body);
  return fields ? std::string(fields->sqlstate) : std::string("?");
}

std::string text_of(const Message& error) {
  const auto fields = protocol::parse_error_fields(error.body);
  return fields ? std::string(fields->message) : std::string("?");
}

std::string describe(const Message& message) {
  std::string text(1, message.type);
  if (message.type == 'E' || message.type == 'N') return text + "(" + sqlstate_of(message) + " " + text_of(message) + ")";
  for (const char c : message.body.substr(0, 60)) text += c >= 32 && c < 127 ? c : '.';
  return text;
}

PgMachine::PgMachine() {
  defaults_ = {{"DateStyle", "ISO, MDY"},     {"IntervalStyle", "postgres"}, {"TimeZone", "GMT"},
               {"application_name", ""},      {"client_encoding", "UTF8"},   {"standard_conforming_strings", "on"},
               {"search_path", "public"},     {"statement_timeout", "0"},    {"geqo", "on"},
               {"lock_timeout", "0"}};
  values_ = saved_ = told_ = defaults_;
}

bool PgMachine::reported(const std::string& name) {
  return std::find(kReported.begin(), kReported.end(), name) != kReported.end();
}

std::string PgMachine::canonical(const std::string& name) {
  for (const std::string& known : kReported) {
    if (protocol::ByteView(known).size() == name.size() &&
        std::equal(name.begin(), name.end(), known.begin(), [](char a, char b) { return std::tolower(a) == std::tolower(b); })) {
      return known;
    }
  }
  return name;
}

PgMachine::Outcome PgMachine::set(const std::string& name, const std::string& value) {
  const std::string known = canonical(name);
  if (!defaults_.contains(known)) {
    return Failure{"42704", fmt::format("unrecognized configuration parameter \"{}\"", name)};
  }
  if (value == "bad") return Failure{"22023", fmt::format("invalid value for parameter \"{}\": \"{}\"", known, value)};
  std::string spelled = value;
  if (known == "client_encoding" && value == "utf-8") spelled = "UTF8";
  if (known == "DateStyle" && value == "iso") spelled = "ISO, MDY";
  values_[known] = spelled;
  return std::nullopt;
}

std::optional<Message> PgMachine::start(const Values& startup) {
  for (const auto& [name, value] : startup) {
    if (const Outcome outcome = set(name, value)) {
      std::string bytes;
      protocol::append_error(bytes, protocol::ErrorText{.severity = "FATAL",
                                                        .sqlstate = outcome->sqlstate,
                                                        .message = outcome->message,
                                                        .add_v = true});
      return take_messages(bytes).front();
    }
  }
  defaults_ = saved_ = told_ = values_;
  return std::nullopt;
}

std::vector<Message> PgMachine::report() const {
  std::string bytes;
  protocol::append_parameter_status(bytes, "server_version", "16.4");
  protocol::append_parameter_status(bytes, "is_superuser", "off");
  for (const std::string& name : kReported) protocol::append_parameter_status(bytes, name, values_.at(name));
  return take_messages(bytes);
}

bool PgMachine::at_rest() const {
  return state_ == State::Reading && status_ == 'I' && !implicit_ && !skip_ && !copy_ && held_.empty() && rest_.empty();
}

// ---- output ----

void PgMachine::put(char type, std::string body) {
  held_size_ += body.size() + protocol::kHeaderSize;
  held_.push_back({type, std::move(body)});
  if (held_size_ > kHeldMax) flush();
}

void PgMachine::flush() {
  std::move(held_.begin(), held_.end(), std::back_inserter(out_));
  held_.clear();
  held_size_ = 0;
}

std::deque<Message> PgMachine::take_output() {
  return std::exchange(out_, {});
}

void PgMachine::row(const std::string& value) {
  std::string bytes;
  const std::optional<std::string_view> column = value;
  protocol::append_data_row(bytes, {&column, 1});
  put('D', bytes.substr(protocol::kHeaderSize));
}

void PgMachine::complete(const std::string& tag) {
  put('C', tag + '\0');
}

void PgMachine::error(const Failure& failure) {
  std::string bytes;
  protocol::append_error(bytes, protocol::ErrorText{.severity = "ERROR",
                                                    .sqlstate = failure.sqlstate,
                                                    .message = failure.message,
                                                    .add_v = true});
  put('E', bytes.substr(protocol::kHeaderSize));
  if (status_ == 'T') status_ = 'E';
  rest_.clear();
  end_implicit(false);
}

void PgMachine::ready() {
  for (const std::string& token : std::exchange(notifications_, {})) {
    put('A', std::string("\0\0\0\1", 4) + "channel" + '\0' + token + '\0');
  }
  for (const std::string& name : kReported) {
    if (values_.at(name) == told_.at(name)) continue;
    told_[name] = values_.at(name);
    put('S', name + '\0' + values_.at(name) + '\0');
  }
  put('Z', std::string(1, status_));
  flush();
  running_.clear();
}

// ---- transactions ----

void PgMachine::begin_implicit() {
  if (status_ != 'I' || implicit_) return;
  implicit_ = true;
  saved_ = values_;
}

void PgMachine::end_implicit(bool ok) {
  if (!implicit_) return;
  implicit_ = false;
  if (!ok) values_ = saved_;
  portals_.clear();
}

PgMachine::Outcome PgMachine::run_transaction(const std::string& verb) {
  if (verb == "BEGIN") {
    // Inside an implicit block it turns that block into an ordinary one, with what was done before.
    implicit_ = false;
    status_ = 'T';
    complete("BEGIN");
    return std::nullopt;
  }
  const bool undo = status_ == 'E' || verb == "ROLLBACK";
  const bool open = status_ != 'I' || implicit_;
  if (open && undo) values_ = saved_;
  status_ = 'I';
  implicit_ = false;
  portals_.clear();
  complete(undo ? "ROLLBACK" : "COMMIT");
  return std::nullopt;
}

// ---- messages ----

void PgMachine::take(Message message) {
  if (message.type == 'X') {
    state_ = State::Ended;
    return;
  }
  if (copy_) return take_in_copy(message);
  if (message.type == 'S') {
    skip_ = false;
    end_implicit(true);
    ready();
    return;
  }
  if (skip_) return;
  switch (message.type) {
    case 'Q': {
      via_ = Via::Simple;
      statements_.erase("");
      const std::string sql = message.body.substr(0, message.body.size() - 1);
      for (std::string& statement : tiny_sql::split(sql)) rest_.push_back(std::move(statement));
      if (rest_.empty()) {
        put('I');
        ready();
        return;
      }
      state_ = State::Working;
      return;
    }
    case 'F':
      via_ = Via::Simple;
      return function_call();
    case 'd':  // late COPY data
    case 'c':
    case 'f':
      return;
    case 'H':
      return flush();
    default:
      via_ = Via::Extended;
      return take_extended(message);
  }
}

void PgMachine::advance() {
  state_ = State::Reading;
  const std::string sql = rest_.front();
  rest_.pop_front();
  begin_implicit();
  if (const Outcome outcome = run(sql, Via::Simple)) return fail_simple(*outcome);
  if (state_ == State::Reading && !copy_) after_statement();
}

// A statement of a simple query is over.
void PgMachine::after_statement() {
  if (!rest_.empty()) {
    state_ = State::Working;
    return;
  }
  end_implicit(true);
  ready();
}

void PgMachine::fail_simple(const Failure& failure) {
  error(failure);
  ready();
}

void PgMachine::fail_pipeline(const Failure& failure) {
  error(failure);
  flush();
  skip_ = true;
}

void PgMachine::function_call() {
  begin_implicit();
  if (status_ == 'E') return fail_simple({"25P02", "current transaction is aborted"});
  put('V', std::string("\0\0\0\1x", 5));
  end_implicit(true);
  ready();
}

void PgMachine::refuse(const Message& message) {
  const Failure failure{"57014", "canceling statement due to user request"};
  if (message.type == 'Q' || message.type == 'F') {
    statements_.erase("");
    return fail_simple(failure);
  }
  fail_pipeline(failure);
  if (message.type == 'S') take(message);
}

// ---- statements ----

PgMachine::Outcome PgMachine::run(const std::string& sql, Via via) {
  const std::vector<std::string> word = tiny_sql::words(sql);
  running_ = sql;
  if (status_ == 'E' && !ends_transaction(sql)) {
    return Failure{"25P02", "current transaction is aborted, commands ignored until end of transaction block"};
  }
  if (word[0] == "ERROR") return Failure{"22012", "error " + word.at(1)};
  if (slow_ && delayed_.empty() && is_slow(word[0])) {
    flush();
    delayed_ = sql;
    state_ = State::Sleeping;
    return std::nullopt;
  }
  if (via == Via::Simple && returns_rows(sql)) {
    std::string bytes;
    const protocol::Column column{.name = "value"};
    protocol::append_row_description(bytes, {&column, 1});
    if (word[0] != "SHOW" || values_.contains(canonical(word.at(1)))) put('T', bytes.substr(protocol::kHeaderSize));
  }
  return run_utility(word, sql, via);
}

void PgMachine::copy_out(const std::string& token, std::size_t count) {
  put('H', std::string("\0\0\0", 3));
  for (std::size_t i = 0; i < count; ++i) put('d', fmt::format("{}:{}", token, i));
  put('c');
  complete(fmt::format("COPY {}", count));
}

PgMachine::Outcome PgMachine::run_utility(const std::vector<std::string>& word, const std::string& sql, Via via) {
  const std::string& verb = word[0];
  if (verb == "ECHO") {
    row(word.at(1));
    complete("SELECT 1");
  } else if (verb == "ROWS") {
    const std::size_t count = std::stoul(word.at(2));
    for (std::size_t i = 0; i < count; ++i) row(fmt::format("{}:{}:{}", word.at(1), i, std::string(std::stoul(word.at(3)), 'x')));
    complete(fmt::format("SELECT {}", count));
  } else if (verb == "SLEEP") {
    flush();
    state_ = State::Sleeping;
  } else if (verb == "DIE") {
    flush();
    state_ = State::Dead;
  } else if (verb == "NOTICE") {
    std::string bytes;
    protocol::append_notice(bytes, "NOTICE", "00000", "note " + word.at(1));
    put('N', bytes.substr(protocol::kHeaderSize));
    complete("DO");
  } else if (verb == "NOTIFY") {
    notifications_.push_back(word.at(1));
    complete("NOTIFY");
  } else if (verb == "COPYIN") {
    put('G', std::string("\0\0\0", 3));
    flush();
    copy_ = true;
  } else if (verb == "COPYOUT") {
    copy_out(word.at(1), std::stoul(word.at(2)));
  } else if (verb == "BEGIN" || ends_transaction(sql)) {
    return run_transaction(verb);
  } else if (verb == "SHOW") {
    const auto value = values_.find(canonical(word.at(1)));
    if (value == values_.end()) return Failure{"42704", "unrecognized configuration parameter"};
    row(value->second);
    complete("SHOW");
  } else if (verb == "SELECT" || verb == "SET") {
    const auto literal = tiny_sql::literals(sql);
    const bool plain = verb == "SET";
    const std::string name = plain ? tiny_sql::trim(sql.substr(4, sql.find('=') - 4)) : literal.at(0);
    const std::string& value = literal.at(plain ? 0 : 1);
    if (const Outcome outcome = set(name, value)) return outcome;
    if (!plain) row(value);
    complete(plain ? "SET" : "SELECT 1");
  } else if (verb == "RESET") {
    const std::string name = canonical(word.at(1));
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
  } else if (verb == "DEALLOCATE") {
    return forget(tiny_sql::unquoted(word.at(1)));
  } else if (verb == "EXECUTE") {
    const auto it = statements_.find(tiny_sql::unquoted(word.at(1)));
    if (it == statements_.end()) return Failure{"26000", "prepared statement does not exist"};
    return run(it->second, via);
  } else {
    return Failure{"42601", "syntax error"};
  }
  return std::nullopt;
}

PgMachine::Outcome PgMachine::forget(const std::string& name) {
  if (statements_.erase(name) == 0) return Failure{"26000", "prepared statement does not exist"};
  complete("DEALLOCATE");
  return std::nullopt;
}

void PgMachine::cancel() {
  state_ = State::Reading;
  fail_simple({"57014", "canceling statement due to user request"});
}

void PgMachine::wake(bool canceled) {
  state_ = State::Reading;
  const std::string delayed = delayed_;
  if (!delayed.empty() && !canceled) {
    const Outcome outcome = run(delayed, via_);
    delayed_.clear();
    if (outcome) return via_ == Via::Extended ? fail_pipeline(*outcome) : fail_simple(*outcome);
    if (via_ == Via::Simple) after_statement();
    return;
  }
  delayed_.clear();
  if (canceled) {
    const Failure failure{"57014", "canceling statement due to user request"};
    if (via_ == Via::Extended) return fail_pipeline(failure);
    return fail_simple(failure);
  }
  row(tiny_sql::words(running_).at(1));
  complete("SELECT 1");
  if (via_ == Via::Simple) after_statement();
}

// ---- COPY FROM STDIN ----

void PgMachine::take_in_copy(const Message& message) {
  static const Failure failed{"57014", "COPY from stdin failed"};
  switch (message.type) {
    case 'd':
    case 'H':
    case 'S':
      return;
    case 'c':
      return end_copy(nullptr);
    case 'f':
      return end_copy(&failed);
    default:
      broken_ = true;
      state_ = State::Ended;
  }
}

void PgMachine::end_copy(const Failure* failure) {
  copy_ = false;
  if (failure != nullptr) {
    if (via_ == Via::Extended) return fail_pipeline(*failure);
    return fail_simple(*failure);
  }
  complete("COPY 1");
  if (via_ == Via::Simple) after_statement();
}

// ---- extended query ----

void PgMachine::take_extended(const Message& message) {
  begin_implicit();
  switch (message.type) {
    case 'P':
      return parse(message);
    case 'B':
      return bind(message);
    case 'D':
      return describe_target(message);
    case 'C':
      return close(message);
    case 'E':
      return execute(message);
    default:
      broken_ = true;
      state_ = State::Ended;
  }
}

void PgMachine::parse(const Message& message) {
  const auto view = protocol::parse_parse(message.body);
  if (!view) {
    broken_ = true;
    state_ = State::Ended;
    return;
  }
  const std::string name(view->statement), sql(view->query);
  if (name.empty()) statements_.erase("");
  if (sql.substr(0, 6) == "SYNTAX") return fail_pipeline({"42601", "syntax error"});
  if (status_ == 'E' && !ends_transaction(sql)) return fail_pipeline({"25P02", "current transaction is aborted"});
  if (statements_.contains(name)) return fail_pipeline({"42P05", "prepared statement already exists"});
  statements_[name] = sql;
  put('1');
}

void PgMachine::bind(const Message& message) {
  const auto view = protocol::parse_bind(message.body);
  if (!view) {
    broken_ = true;
    state_ = State::Ended;
    return;
  }
  const auto it = statements_.find(std::string(view->statement));
  if (it == statements_.end()) return fail_pipeline({"26000", "prepared statement does not exist"});
  if (status_ == 'E' && !ends_transaction(it->second)) return fail_pipeline({"25P02", "current transaction is aborted"});
  const std::string portal(view->portal);
  if (!portal.empty() && portals_.contains(portal)) return fail_pipeline({"42P03", "cursor already exists"});
  portals_[portal] = tiny_sql::with_parameter(it->second, message.body.substr(view->rest_offset));
  put('2');
}

void PgMachine::describe_target(const Message& message) {
  const auto view = protocol::parse_target(message.body);
  if (!view) return fail_pipeline({"08P01", "broken Describe"});
  const bool statement = view->kind == 'S';
  const auto& map = statement ? statements_ : portals_;
  const auto it = map.find(std::string(view->name));
  if (it == map.end()) return fail_pipeline({statement ? "26000" : "34000", "does not exist"});
  if (status_ == 'E' && returns_rows(it->second)) return fail_pipeline({"25P02", "current transaction is aborted"});
  if (statement) put('t', std::string("\0\0", 2));
  if (!returns_rows(it->second)) return put('n');
  std::string bytes;
  const protocol::Column column{.name = "value"};
  protocol::append_row_description(bytes, {&column, 1});
  put('T', bytes.substr(protocol::kHeaderSize));
}

void PgMachine::close(const Message& message) {
  const auto view = protocol::parse_target(message.body);
  if (!view) return fail_pipeline({"08P01", "broken Close"});
  (view->kind == 'S' ? statements_ : portals_).erase(std::string(view->name));
  put('3');
}

void PgMachine::execute(const Message& message) {
  const auto view = protocol::parse_execute(message.body);
  if (!view) return fail_pipeline({"08P01", "broken Execute"});
  const auto it = portals_.find(std::string(view->portal));
  if (it == portals_.end()) return fail_pipeline({"34000", "portal does not exist"});
  if (tiny_sql::words(it->second).empty()) return put('I');
  const std::string sql = it->second;
  if (const Outcome outcome = run(sql, Via::Extended)) fail_pipeline(*outcome);
}

}  // namespace pgweir::sim
