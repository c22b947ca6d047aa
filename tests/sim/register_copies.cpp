// What a client of a cluster asks for beside single statements: COPY both ways, cursors, and changes of the catalogue.
#include <fmt/format.h>

#include <algorithm>

#include "protocol/message_builder.hpp"
#include "tests/sim/register_client.hpp"

namespace pgweir::sim {

// Some are bigger than what fits into a connection, or what the proxy holds back.
std::string RegisterClient::copy_out_sql() {
  Rng& rng = world_.rng();
  const auto rows = rng.between(1, 12);
  const auto padding = rng.chance(20) ? rng.between(1, 20'000) : rng.between(1, 300);
  return fmt::format(
      "COPY (SELECT v, '{}', repeat('x', {}) FROM registers, generate_series(1, {}) WHERE k = {}) TO STDOUT", mark('c'),
      padding, rows, rng.between(1, plan_.keys));
}

void RegisterClient::request_copy_out() {
  const std::string sql = copy_out_sql();
  lone_read_ = asked_in_ == 'I' && cluster_.history().catalog_known();
  if (world_.rng().chance(50)) return send_simple(sql);
  std::string bytes;
  note(sql);
  request_ = "pipeline:";
  add_parameterless(bytes, sql);
  request_ += " S";
  protocol::append_sync(bytes);
  expect(bytes);
  send(std::move(bytes));
}

// The lines follow at once, whatever comes of the statement, as of a client that does not wait.
void RegisterClient::request_copy_in() {
  Rng& rng = world_.rng();
  const bool extended = rng.chance(50);
  const std::string sql = fmt::format("COPY registers FROM STDIN /* {} */", mark('c'));
  std::string bytes;
  request_ = "copy: ";
  copied_in_ = true;
  if (extended) {
    add_parameterless(bytes, sql);
    if (rng.chance(30)) protocol::append_sync(bytes);  // passed over by the server while it copies
  } else {
    request_ += sql;
    protocol::append_query(bytes, sql);
  }
  const std::int64_t lines = rng.between(0, 6);
  const std::int64_t bad = rng.chance(15) ? rng.between(0, lines) : -1;
  for (std::int64_t i = 0; i < lines; ++i) {
    if (i == bad) {
      request_ += " bad";
      protocol::append_copy_data(bytes, "bad\n");
      continue;
    }
    const auto key = rng.between(1, plan_.keys);
    const std::string value = mark('w');
    note_write(value);
    request_ += fmt::format(" {}={}", key, value);
    const auto padding = static_cast<std::size_t>(rng.chance(10) ? rng.between(1, 30'000) : rng.between(1, 300));
    protocol::append_copy_data(bytes, fmt::format("{}\t{}\t{}\n", key, value, std::string(padding, 'x')));
  }
  if (rng.chance(85)) {
    protocol::append_copy_done(bytes);
  } else {
    request_ += " fails";
    protocol::append_copy_fail(bytes, "no more");
  }
  if (extended) protocol::append_sync(bytes);
  expect(bytes);
  send(std::move(bytes));
}

// In a block. What a cursor shows is of the time when it was declared.
void RegisterClient::request_cursor() {
  Rng& rng = world_.rng();
  if (!cursors_.empty() && rng.chance(60)) {
    const Read& cursor = cursors_[rng.below(cursors_.size())];
    reads_.push_back(cursor);
    return send_simple(
        fmt::format("FETCH 1 FROM {} /* {} */", "cursor_" + cursor.mark.substr(cursor.mark.find('.') + 1), mark('c')));
  }
  const auto key = rng.between(1, plan_.keys);
  const std::string own = mark('c');
  const std::string sql = fmt::format("DECLARE cursor_{} CURSOR FOR SELECT v, '{}' FROM registers WHERE k = {}",
                                      own.substr(own.find('.') + 1), own, key);
  note(sql);
  cursors_.push_back(reads_.back());
  cursors_.back().own = 0;
  request_ = sql;
  std::string bytes;
  protocol::append_query(bytes, sql);
  expect(bytes);
  send(std::move(bytes));
}

// The proxy reads the catalogue again after those that it knows by their tags.
void RegisterClient::request_definition() {
  Rng& rng = world_.rng();
  const std::string value = mark('w');
  const std::string name = fmt::format("t_{}_{}", number_, tokens_);
  defines_ = plan_.split || plan_.pinned;  // the proxy reads the catalogue of these
  switch (rng.below(4)) {
    case 0:
      return send_simple(fmt::format("ALTER TABLE registers ADD COLUMN {} int /* {} */", name, value));
    case 1:
      return send_simple(fmt::format("DROP TABLE IF EXISTS {} /* {} */", name, value));
    case 2:
      return send_simple(fmt::format("CREATE INDEX {} ON registers (k) /* {} */", name, value));
    default:
      return send_simple(fmt::format("CREATE TABLE {} (k int) /* {} */", name, value));
  }
}

}  // namespace pgweir::sim
