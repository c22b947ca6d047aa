// The honest backend: login, message flow and its SQL.
//
// The SQL: ECHO, ROWSn, SLEEP, FAIL, NOTICE, NOTIFY, COPYIN, COPYOUT, BEGIN, COMMIT, ROLLBACK, SET name='v',
// SELECT pg_catalog.set_config(...), RESET, DISCARD ALL, DEALLOCATE ALL, DEALLOCATE name, EXECUTE name.
#include "tests/fuzz/relay_backend.hpp"

#include <algorithm>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"
#include "protocol/startup.hpp"
#include "tests/fuzz/fuzz_check.hpp"

namespace pgweir::fuzz {

namespace {

constexpr std::string_view kFrontendTypes = "BCDEFHPQSXcdfp";

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

/// The statements of a simple query, cut at semicolons outside of quotes.
std::vector<std::string> split(std::string_view sql) {
  std::vector<std::string> parts(1);
  bool quoted = false;
  for (const char c : sql) {
    if (c == '\'') quoted = !quoted;
    if (c == ';' && !quoted) {
      parts.emplace_back();
    } else {
      parts.back().push_back(c);
    }
  }
  for (std::string& part : parts) part = std::string(trim(part));
  std::erase(parts, "");
  return parts;
}

/// The literals of `text` in order, quotes taken off.
std::vector<std::string> literals(std::string_view text) {
  std::vector<std::string> result;
  for (std::size_t at = text.find('\''); at != std::string_view::npos; at = text.find('\'', at)) {
    const std::size_t end = text.find('\'', at + 1);
    if (end == std::string_view::npos) break;
    result.emplace_back(text.substr(at + 1, end - at - 1));
    at = end + 1;
  }
  return result;
}

bool returns_rows(std::string_view sql) {
  return sql.starts_with("ECHO") || sql.starts_with("ROWS") || sql.starts_with("SLEEP") || sql.starts_with("SELECT");
}

bool ends_transaction(std::string_view sql) {
  return sql.starts_with("ROLLBACK") || sql.starts_with("COMMIT");
}

/// The word behind DEALLOCATE or EXECUTE, quotes taken off.
std::string_view name_behind(std::string_view sql) {
  std::string_view name = trim(sql.substr(std::min(sql.find(' '), sql.size())));
  name = name.substr(0, std::min(name.find(' '), name.size()));
  if (name.size() >= 2 && name.front() == '"' && name.back() == '"') name = name.substr(1, name.size() - 2);
  return name;
}

void append_row_type(std::string& out) {
  const protocol::Column column{.name = "value"};
  protocol::append_row_description(out, {&column, 1});
}

}  // namespace

unsigned tags_in(std::string_view text) {
  unsigned found = 0;
  for (std::size_t at = text.find("@=tag"); at != std::string_view::npos; at = text.find("@=tag", at + 1)) {
    const std::string_view tag = text.substr(at, 7);
    if (tag == tag_of('A')) found |= 1;
    if (tag == tag_of('B')) found |= 2;
  }
  return found;
}

// ---- the beginning ----

Backend::Step Backend::take_startup() {
  const protocol::FirstPacket packet = protocol::parse_first_packet(in_, 65535);
  switch (packet.kind) {
    case protocol::FirstPacketKind::NeedMore:
      return Step::NeedInput;
    case protocol::FirstPacketKind::SslRequest:
      out_ += 'N';
      break;
    case protocol::FirstPacketKind::CancelRequest: {
      const auto key = protocol::parse_cancel_request(packet.body);
      check(key.has_value(), "a whole cancel request");
      cancels_ = key->pid;
      closed_ = true;
      return Step::Closed;
    }
    case protocol::FirstPacketKind::Startup:
      greet();
      break;
    default:
      check(false, "a first packet that a server knows");
  }
  in_.erase(0, packet.size);
  return Step::Progress;
}

void Backend::greet() {
  started_ = true;
  protocol::append_authentication_ok(out_);
  protocol::append_parameter_status(out_, "server_version", "15.0");
  for (const auto& [name, value] : values_) protocol::append_parameter_status(out_, name, value);
  protocol::append_backend_key_data(out_, pid_, "KEY!");
  protocol::append_ready_for_query(out_, 'I');
}

std::string Backend::take_output() {
  std::string result;
  result.swap(out_);
  return result;
}

Backend::Step Backend::step() {
  if (closed_) return Step::Closed;
  if (sleeping_) return Step::Sleeping;
  if (!started_) return take_startup();
  if (!rest_.empty() && !copy_) {
    continue_query();
    return Step::Progress;
  }
  protocol::FrameHeader header;
  const protocol::FrameStatus status = read_frame_header(in_, 2147483647, header);
  if (status == protocol::FrameStatus::NeedMore) return Step::NeedInput;
  check(status == protocol::FrameStatus::Ok, "a length on the way to the server");
  check(kFrontendTypes.find(header.type) != std::string_view::npos, "a type on the way to the server");
  if (in_.size() < header.total()) return Step::NeedInput;
  const std::string message = in_.substr(0, header.total());
  in_.erase(0, header.total());
  const std::string_view body = std::string_view(message).substr(protocol::kHeaderSize);
  if (std::string_view("dcf").find(header.type) == std::string_view::npos || copy_) check_owner(body);
  handle(header.type, body);
  return closed_ ? Step::Closed : Step::Progress;
}

// Between the first message of a client and the ReadyForQuery that says that nothing is open, no other has a say. COPY
// data outside of a COPY say nothing: they may come late, behind a COPY that has failed.
void Backend::check_owner(std::string_view body) {
  if (!honest_) return;
  const unsigned tags = tags_in(body);
  check(tags != 3, "a message of one client");
  check(tags == 0 || owner_ == 0 || tags == owner_, "no client between the messages of another");
  owner_ |= tags;
}

// ---- message flow ----

void Backend::handle(char type, std::string_view body) {
  if (type == 'X') {
    closed_ = true;
    return;
  }
  if (copy_) return handle_copy(type);
  if (type == 'S') {
    skip_ = false;
    return ready();
  }
  if (skip_) return;
  switch (type) {
    case 'Q':
      extended_ = false;
      statements_.erase("");
      return run_query(body);
    case 'F':
      held_.append("V\0\0\0\x08\xff\xff\xff\xff", 9);
      return ready();
    case 'H':
      return flush();
    case 'P':
    case 'B':
    case 'D':
    case 'C':
    case 'E':
      extended_ = true;
      return handle_extended(type, body);
    default:  // COPY data outside of a COPY
      return;
  }
}

void Backend::handle_copy(char type) {
  if (type == 'd' || type == 'H' || type == 'S') return;
  if (type == 'c' || type == 'f') return end_copy(type == 'c');
  closed_ = true;  // a server loses the thread of the protocol here
}

void Backend::handle_extended(char type, std::string_view body) {
  Outcome outcome;
  running_.clear();
  switch (type) {
    case 'P':
      outcome = parse(body);
      break;
    case 'B':
      outcome = bind(body);
      break;
    case 'D':
      outcome = describe(body);
      break;
    case 'C':
      outcome = close(body);
      break;
    default:
      outcome = execute(body);
      break;
  }
  if (outcome) fail(*outcome, true);
}

void Backend::run_query(std::string_view body) {
  const auto view = protocol::parse_query(body);
  running_.clear();
  if (!view) {
    fail("08P01", false);
    return ready();
  }
  rest_ = split(view->sql);
  if (rest_.empty()) {
    protocol::append_empty_query_response(held_);
    return ready();
  }
  continue_query();
}

void Backend::continue_query() {
  const std::string sql = rest_.front();
  rest_.erase(rest_.begin());
  if (const Outcome outcome = run(sql, {}, false, 0)) {
    fail(*outcome, false);
    return ready();
  }
  end_query();
}

void Backend::end_query() {
  if (!sleeping_ && !copy_ && rest_.empty()) ready();
}

void Backend::fail(const char* sqlstate, bool extended) {
  protocol::append_error(
      held_,
      protocol::ErrorText{.severity = "ERROR", .sqlstate = sqlstate, .message = "failed: " + running_, .add_v = true});
  if (status_ == 'T') status_ = 'E';
  rest_.clear();
  skip_ = extended;
}

// After a lie the proxy cannot know any more which reply is whose: they bear no tags.
void Backend::flush() {
  constexpr std::string_view kTag = "@=tag";
  for (std::size_t at = 0; !honest_ && (at = held_.find(kTag, at)) != std::string::npos;) held_[at] = '-';
  out_ += held_;
  held_.clear();
}

void Backend::ready() {
  for (const auto& [name, value] : values_) {
    if (told_[name] != value) protocol::append_parameter_status(held_, name, value);
  }
  told_ = values_;
  if (status_ == 'I') {
    portals_.clear();
    owner_ = 0;
  }
  protocol::append_ready_for_query(held_, status_);
  flush();
}

void Backend::wake(bool canceled) {
  if (!sleeping_) return;
  sleeping_ = false;
  if (canceled) {
    fail("57014", extended_);
    if (!extended_) ready();
    return;
  }
  row(running_);
  complete("SELECT 1");
  if (!extended_) end_query();
}

void Backend::end_copy(bool ok) {
  copy_ = false;
  if (ok) {
    complete("COPY 1");
  } else {
    fail("57014", extended_);
  }
  if (!extended_) end_query();
}

// ---- statements ----

void Backend::row(std::string_view text) {
  // The letter in front keeps the length word away from the text.
  const std::string shown = "r:" + std::string(text);
  const std::optional<std::string_view> value = shown;
  protocol::append_data_row(held_, {&value, 1});
}

void Backend::complete(std::string_view tag) {
  protocol::append_command_complete(held_, tag);
}

Backend::Outcome Backend::run(const std::string& sql, const std::string& parameters, bool extended,
                              std::int32_t max_rows) {
  running_ = sql + "|" + parameters;
  if (status_ == 'E' && !ends_transaction(sql)) return "25P02";
  if (sql.starts_with("FAIL")) return "22012";
  if (!extended && returns_rows(sql)) append_row_type(held_);
  if (sql.starts_with("SLEEP")) {
    flush();
    sleeping_ = true;
  } else if (sql.starts_with("COPYIN")) {
    held_.append("G\0\0\0\7\0\0\0", 8);
    flush();
    copy_ = true;
  } else if (sql.starts_with("NOTICE") || sql.starts_with("NOTIFY")) {
    const bool notice = sql.starts_with("NOTICE");
    if (notice) protocol::append_notice(held_, "NOTICE", "00000", running_);
    if (!notice) held_.append("A\0\0\0\x0a\0\0\0\1n\0", 11);
    complete(notice ? "DO" : "NOTIFY");
  } else if (returns_rows(sql) || sql.starts_with("COPYOUT")) {
    return run_rows(sql, running_, max_rows);
  } else if (sql.starts_with("BEGIN") || ends_transaction(sql)) {
    return run_transaction(sql);
  } else if (sql.starts_with("EXECUTE")) {
    const auto it = statements_.find(name_behind(sql));
    if (it == statements_.end() || it->second.starts_with("EXECUTE")) return "26000";
    return run(std::string(it->second), parameters, false, 0);
  } else {
    return run_session(sql);
  }
  return std::nullopt;
}

Backend::Outcome Backend::run_rows(std::string_view sql, const std::string& text, std::int32_t max_rows) {
  if (sql.starts_with("SELECT")) set(sql);
  if (sql.starts_with("COPYOUT")) {
    held_.append("H\0\0\0\7\0\0\0", 8);
    protocol::append_copy_data(held_, "r:" + text);
    protocol::append_copy_done(held_);
    complete("COPY 1");
    return std::nullopt;
  }
  const bool many = sql.starts_with("ROWS") && sql.size() > 4;
  const int rows = many ? 3 * (sql[4] & 15) : 1;
  for (int i = 0; i < rows; ++i) {
    row(many ? text + std::string(500, 'x') : text);
    if (many && max_rows > 0 && i + 1 >= max_rows) {
      held_.append("s\0\0\0\4", 5);
      return std::nullopt;
    }
  }
  complete("SELECT 1");
  return std::nullopt;
}

Backend::Outcome Backend::run_transaction(std::string_view sql) {
  if (sql.starts_with("BEGIN")) {
    if (status_ == 'I') saved_ = values_;
    status_ = 'T';
    complete("BEGIN");
    return std::nullopt;
  }
  const bool undone = status_ == 'E' || (status_ == 'T' && sql.starts_with("ROLLBACK"));
  if (undone) values_ = saved_;
  status_ = 'I';
  complete(undone ? "ROLLBACK" : "COMMIT");
  return std::nullopt;
}

Backend::Outcome Backend::run_session(const std::string& sql) {
  if (sql.starts_with("SET")) {
    const std::size_t equals = std::min(sql.find('='), sql.size());
    set("'" + std::string(trim(std::string_view(sql).substr(3, equals < 3 ? 0 : equals - 3))) + "'" +
        sql.substr(equals));
    complete("SET");
  } else if (sql.starts_with("RESET")) {
    values_ = defaults_;
    complete("RESET");
  } else if (sql.starts_with("DISCARD ALL")) {
    if (status_ != 'I') return "25001";
    values_ = defaults_;
    statements_.clear();
    complete("DISCARD ALL");
  } else if (sql.starts_with("DEALLOCATE ALL")) {
    statements_.clear();
    complete("DEALLOCATE ALL");
  } else if (sql.starts_with("DEALLOCATE")) {
    const auto it = statements_.find(name_behind(sql));
    if (it == statements_.end()) return "26000";
    statements_.erase(it);
    complete("DEALLOCATE");
  } else {
    return "42601";
  }
  return std::nullopt;
}

/// Literals in pairs of name and value; a third one of set_config() has no quotes.
void Backend::set(std::string_view sql) {
  const std::vector<std::string> words = literals(sql);
  for (std::size_t i = 0; i + 1 < words.size(); i += 2) {
    if (const auto it = values_.find(words[i]); it != values_.end()) it->second = words[i + 1];
  }
}

// ---- extended query ----

Backend::Outcome Backend::parse(std::string_view body) {
  const auto view = protocol::parse_parse(body);
  if (!view) return "08P01";
  running_ = view->query;
  if (status_ == 'E' && !ends_transaction(view->query)) return "25P02";
  if (view->statement.empty()) statements_.erase("");
  if (view->query.starts_with("SYNTAX")) return "42601";
  if (!statements_.try_emplace(std::string(view->statement), view->query).second) return "42P05";
  protocol::append_parse_complete(held_);
  return std::nullopt;
}

Backend::Outcome Backend::bind(std::string_view body) {
  const auto view = protocol::parse_bind(body);
  if (!view) return "08P01";
  const auto it = statements_.find(view->statement);
  if (it == statements_.end()) return "26000";
  if (status_ == 'E' && !ends_transaction(it->second)) return "25P02";
  portals_[std::string(view->portal)] = {it->second, std::string(body.substr(view->rest_offset))};
  protocol::append_bind_complete(held_);
  return std::nullopt;
}

Backend::Outcome Backend::describe(std::string_view body) {
  const auto view = protocol::parse_target(body);
  if (!view) return "08P01";
  std::string_view sql;
  if (view->kind == 'S') {
    const auto it = statements_.find(view->name);
    if (it == statements_.end()) return "26000";
    sql = it->second;
    held_.append("t\0\0\0\6\0\0", 7);
  } else {
    const auto it = portals_.find(view->name);
    if (it == portals_.end()) return "34000";
    sql = it->second.sql;
  }
  if (returns_rows(sql)) {
    append_row_type(held_);
  } else {
    protocol::append_no_data(held_);
  }
  return std::nullopt;
}

Backend::Outcome Backend::close(std::string_view body) {
  const auto view = protocol::parse_target(body);
  if (!view) return "08P01";
  if (view->kind == 'S') {
    statements_.erase(std::string(view->name));
  } else {
    portals_.erase(std::string(view->name));
  }
  protocol::append_close_complete(held_);
  return std::nullopt;
}

Backend::Outcome Backend::execute(std::string_view body) {
  const auto view = protocol::parse_execute(body);
  if (!view) return "08P01";
  const auto it = portals_.find(view->portal);
  if (it == portals_.end()) return "34000";
  const Portal portal = it->second;
  if (trim(portal.sql).empty()) {
    protocol::append_empty_query_response(held_);
    return std::nullopt;
  }
  return run(portal.sql, portal.parameters, true, view->max_rows);
}

}  // namespace pgweir::fuzz
