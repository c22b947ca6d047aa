// What a client of a cluster asks for.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "protocol/message_builder.hpp"
#include "tests/sim/register_client.hpp"

namespace pgweir::sim {

namespace {

constexpr int kSneakyKey = 100;

struct NamedStatement {
  const char* prefix;
  const char* sql;
};
constexpr std::array<NamedStatement, 3> kNamed{{{"pr", "SELECT v, $2 FROM registers WHERE k = $1"},
                                                {"pw", "UPDATE registers SET v = $2 WHERE k = $1"},
                                                {"pb", "SELECT bump($1, $2), $3"}}};

}  // namespace

void RegisterClient::choose_request() {
  const std::uint64_t other = world_.rng().below(40);
  if (other < 2) return request_copy_out();
  if (other < 4 && (writes() || other == 2)) return request_copy_in();
  if (other == 4 && writes()) return request_definition();
  switch (world_.rng().below(16)) {
    case 0:
    case 1:
    case 2:
      return request_begin();
    case 3:
    case 4:
    case 5:
    case 6:
      return request_pipeline();
    case 7:
      return request_parameter();
    case 8:
      return request_burst();
    case 9:
      return request_whole_block();
    case 10:
      return request_wish();
    default:
      return request_simple();
  }
}

std::string RegisterClient::read_sql() {
  Rng& rng = world_.rng();
  const auto key = rng.between(1, plan_.keys);
  if (rng.chance(20)) return fmt::format("SELECT peek({}), '{}'", key, mark('c'));
  return fmt::format("SELECT v, '{}' FROM registers WHERE k = {}", mark('c'), key);
}

std::string RegisterClient::write_sql() {
  Rng& rng = world_.rng();
  const auto key = rng.between(1, plan_.keys);
  const std::string value = mark('w');
  switch (rng.below(5)) {
    case 0:
      return fmt::format("INSERT INTO registers VALUES ({}, '{}')", key, value);
    case 1:
      return fmt::format("SELECT bump({}, '{}'), '{}'", key, value, mark('c'));
    case 2:
      return fmt::format("SELECT fresh({}, '{}'), '{}'", key, value, mark('c'));
    case 3:
      return fmt::format("WITH w AS (UPDATE registers SET v = '{}' WHERE k = {} RETURNING v) SELECT v, '{}' FROM w",
                         value, key, mark('c'));
    default:
      return fmt::format("UPDATE registers SET v = '{}' WHERE k = {}", value, key);
  }
}

std::string RegisterClient::special_sql() {
  Rng& rng = world_.rng();
  const auto key = rng.between(1, plan_.keys);
  switch (rng.below(4)) {
    case 0:
      return fmt::format("/* pgweir: standby */ SELECT v, '{}' FROM registers WHERE k = {}", mark('c'), key);
    case 1:
      return fmt::format("/* pgweir: primary */ SELECT v, '{}' FROM registers WHERE k = {}", mark('c'), key);
    case 2:
      if (writes()) return fmt::format("SELECT v, '{}' FROM registers WHERE k = {} FOR UPDATE", mark('c'), key);
      return read_sql();
    default:
      if (writes()) {
        return fmt::format("SELECT sneaky({}, '{}'), '{}'", kSneakyKey + key, mark('y'), mark('c'));
      }
      return read_sql();
  }
}

void RegisterClient::request_simple() {
  Rng& rng = world_.rng();
  const std::uint64_t what = rng.below(12);
  if (what < 5) {
    lone_read_ = cluster_.history().catalog_known();
    const std::string sql = read_sql();
    if (plan_.split && wish_ == Wish::Auto) cluster_.history().expect_proof(marks_.back());
    return send_simple(sql);
  }
  if (what < 8) return send_simple(writes() || rng.chance(20) ? write_sql() : read_sql());
  if (what < 10) return send_simple(special_sql());
  std::string sql;
  for (std::int64_t i = rng.between(2, 3); i > 0; --i) {
    if (!sql.empty()) sql += "; ";
    sql += writes() && rng.chance(20) ? write_sql() : read_sql();
  }
  send_simple(sql);
}

void RegisterClient::request_begin() {
  Rng& rng = world_.rng();
  const std::array<const char*, 3> ways{"BEGIN", "BEGIN READ ONLY", "START TRANSACTION READ ONLY"};
  const std::size_t way = rng.below(ways.size());
  read_only_ = way > 0;
  const std::string sql = fmt::format("{} /* {} */", ways[way], mark('c'));
  // With its first statement, or without.
  send_simple(rng.chance(20) ? sql + "; " + read_sql() : sql);
}

void RegisterClient::request_in_block() {
  Rng& rng = world_.rng();
  const bool failed = reference_.session.status() == 'E';
  if (failed || rng.chance(30)) {
    return send_simple(fmt::format("{} /* {} */", rng.chance(75) ? "COMMIT" : "ROLLBACK", mark('c')));
  }
  if (rng.chance(25)) return request_pipeline();
  if (rng.chance(25)) return request_cursor();
  if (rng.chance(5)) return request_copy_out();
  if (rng.chance(5) && (writes() || read_only_)) return request_copy_in();
  if (writes() && rng.chance(40)) return send_simple(write_sql());
  send_simple(read_sql());
}

void RegisterClient::request_parameter() {
  Rng& rng = world_.rng();
  if (rng.chance(40)) return send_simple(fmt::format("SET TimeZone='Zone{}' /* {} */", rng.below(5), mark('c')));
  send_simple(fmt::format("SHOW TimeZone /* {} */", mark('c')));
}

void RegisterClient::send_simple(const std::string& sql) {
  request_ = sql;
  std::string bytes;
  add_simple(bytes, sql);
  expect(bytes);
  send(std::move(bytes));
}

void RegisterClient::add_simple(std::string& bytes, const std::string& sql) {
  std::size_t from = 0;
  for (std::size_t to = 0; to != std::string::npos; from = to + 2) {
    to = sql.find("; ", from);
    note(sql.substr(from, to == std::string::npos ? to : to - from));
  }
  protocol::append_query(bytes, sql);
}

// Queries that do not wait for each other's replies.
void RegisterClient::request_burst() {
  Rng& rng = world_.rng();
  std::string bytes;
  for (std::int64_t i = rng.between(2, 4); i > 0; --i) {
    const std::string sql = writes() && rng.chance(40) ? write_sql() : read_sql();
    request_ += (request_.empty() ? "burst: " : " | ") + sql;
    add_simple(bytes, sql);
  }
  expect(bytes);
  send(std::move(bytes));
}

void RegisterClient::add_parameterless(std::string& bytes, const std::string& sql) {
  request_ += fmt::format(" P(,{}) BE()", sql);
  protocol::append_parse(bytes, "", sql, {});
  protocol::append_bind_text(bytes, "", "", {});
  protocol::append_execute(bytes, "", 0);
}

// A whole transaction block at once.
void RegisterClient::request_whole_block() {
  Rng& rng = world_.rng();
  std::string bytes;
  request_ = "pipeline:";
  read_only_ = rng.chance(50);
  const std::string mine = mark('c');
  add_parameterless(bytes, fmt::format("{} /* {} */", read_only_ ? "BEGIN READ ONLY" : "BEGIN", mine));
  for (std::int64_t i = rng.between(1, 2); i > 0; --i) add_unnamed(bytes);
  add_parameterless(bytes, "COMMIT");
  request_ += " S";
  protocol::append_sync(bytes);
  expect(bytes);
  send(std::move(bytes));
}

// Answered by the proxy itself.
void RegisterClient::request_wish() {
  Rng& rng = world_.rng();
  // Of a database that is not split, or is pooled by session, the wish does not count.
  if (plan_.pinned) return request_parameter();
  if (!plan_.split || rng.chance(40)) {
    wish_ = Wish::Auto;
    return send_simple("RESET pgweir.route");
  }
  wish_ = rng.chance(50) ? Wish::Primary : Wish::Standby;
  send_simple(fmt::format("SET pgweir.route = '{}'", wish_ == Wish::Primary ? "primary" : "standby"));
}

// What a statement of the request reads and writes.
void RegisterClient::note(const std::string& sql) {
  const auto statement = parse_register_statement(sql);
  if (!statement) return;
  if (!statement->value.empty()) {
    note_write(statement->value);
  } else {
    const bool any_age = wish_ == Wish::Standby || sql.find("pgweir: standby") != std::string::npos;
    reads_.push_back({statement->mark, statement->key, any_age, own_.size()});
  }
}

void RegisterClient::note_write(const std::string& value) {
  own_.push_back(value);
  if (plan_.pinned) cluster_.history().expect_pinned(value);
  if (!writes() || read_only_) cluster_.history().expect_refusal(value);
}

// Extended-query messages with one or more Syncs.
void RegisterClient::request_pipeline() {
  Rng& rng = world_.rng();
  std::string bytes;
  request_ = "pipeline:";
  const std::int64_t count = rng.chance(50) ? 1 : rng.between(2, 4);
  bool synced = false, flushed = false;
  for (std::int64_t i = 0; i < count; ++i) {
    if (plan_.prepared && rng.chance(50)) {
      add_prepared(bytes);
    } else {
      add_unnamed(bytes);
    }
    synced = asked_in_ == 'I' && rng.chance(40);
    if (rng.chance(10)) {
      protocol::append_flush(bytes);
      request_ += " H";
      flushed = true;
    }
    if (synced) {
      request_ += " S";
      protocol::append_sync(bytes);
    }
  }
  if (!synced) {
    request_ += " S";
    protocol::append_sync(bytes);
  }
  lone_read_ = count == 1 && !flushed && reads_.size() == 1 && own_.empty() && asked_in_ == 'I' &&
               cluster_.history().catalog_known();
  expect(bytes);
  send(std::move(bytes));
}

void RegisterClient::add_prepared(std::string& bytes) {
  Rng& rng = world_.rng();
  const std::size_t which = writes() ? rng.below(kNamed.size()) : 0;
  const NamedStatement& statement = kNamed[which];
  // Several names for each, so that new ones come again and again.
  const std::string name = fmt::format("{}{}", statement.prefix, rng.below(4));
  if (!reference_.session.has_statement(name) && request_.find(name) == std::string::npos) {
    request_ += fmt::format(" P({},{})", name, statement.sql);
    protocol::append_parse(bytes, name, statement.sql, {});
    if (rng.chance(30)) protocol::append_describe(bytes, 'S', name);
  }
  const std::string key = fmt::format("{}", rng.between(1, plan_.keys));
  std::vector<std::string> values{key};
  if (which > 0) values.push_back(mark('w'));
  if (which != 1) values.push_back(mark('c'));
  if (which > 0) {
    note_write(values[1]);
  } else {
    reads_.push_back({values[1], std::stoi(key), wish_ == Wish::Standby, own_.size()});
  }
  request_ += fmt::format(" BE({};{};{})", name, key, fmt::join(values.begin() + 1, values.end(), ","));
  const std::vector<std::optional<std::string_view>> bound(values.begin(), values.end());
  protocol::append_bind_text(bytes, "", name, bound);
  if (rng.chance(50)) protocol::append_describe(bytes, 'P', "");
  protocol::append_execute(bytes, "", 0);
}

void RegisterClient::add_unnamed(std::string& bytes) {
  Rng& rng = world_.rng();
  const auto key = rng.between(1, plan_.keys);
  const bool changes = writes() && rng.chance(40);
  const std::string value = mark(changes ? 'w' : 'c');
  const std::string sql = changes ? fmt::format("UPDATE registers SET v = $1 WHERE k = {}", key)
                                  : fmt::format("SELECT v, $1 FROM registers WHERE k = {}", key);
  if (changes) {
    note_write(value);
  } else {
    reads_.push_back({value, static_cast<int>(key), wish_ == Wish::Standby, own_.size()});
  }
  request_ += fmt::format(" P(,{}) BE({})", sql, value);
  protocol::append_parse(bytes, "", sql, {});
  const std::optional<std::string_view> bound = value;
  protocol::append_bind_text(bytes, "", "", {&bound, 1});
  if (rng.chance(50)) protocol::append_describe(bytes, 'P', "");
  protocol::append_execute(bytes, "", 0);
}

}  // namespace pgweir::sim
