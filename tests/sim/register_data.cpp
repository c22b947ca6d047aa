#include "tests/sim/register_data.hpp"

#include <fmt/format.h>

namespace pgweir::sim {

namespace {

using Kind = RegisterStatement::Kind;

std::string tag_of(const RegisterStatement& statement, const std::string& sql) {
  switch (statement.kind) {
    case Kind::Declare:
      return "DECLARE CURSOR";
    case Kind::CopyOut:
      return fmt::format("COPY {}", statement.rows);
    case Kind::Definition:
      return sql.substr(0, sql.find(' ', sql.find(' ') + 1));  // CREATE TABLE, DROP INDEX, …
    default:
      break;
  }
  if (!statement.mark.empty()) return "SELECT 1";
  return sql.find("INSERT") != std::string::npos ? "INSERT 0 1" : "UPDATE 1";
}

}  // namespace

// ---- RegisterData ----

std::optional<std::size_t> RegisterData::columns(const std::string& sql) const {
  const auto statement = parse_register_statement(sql);
  if (!statement) return std::nullopt;
  // Without its values a prepared one has the columns that it will have with them.
  if (sql.find('$') != std::string::npos) return sql.starts_with("SELECT ") ? 2 : 0;
  return statement->returns_rows() ? 2 : 0;
}

bool RegisterData::begin() {
  pending_.clear();
  cursors_.clear();
  return recovers();
}

bool RegisterData::end(bool commits) {
  Changes changes = std::exchange(pending_, {});
  cursors_.clear();
  return commits && !changes.empty() && commit(std::move(changes));
}

std::string RegisterData::value_of(int key) {
  std::string value = read(key);
  for (const auto& [written_key, own] : pending_) {
    if (written_key == key) value = own;
  }
  return value;
}

void RegisterData::write(int key, const std::string& value) {
  written(value);
  pending_.emplace_back(key, value);
}

// Of a COPY that fails when it runs, one half has been sent.
Data::Result RegisterData::failed(Failure failure, const RegisterStatement& statement) {
  Result result{std::move(failure), {}, {}};
  if (statement.kind != Kind::CopyOut || !result.failure->late) return result;
  result.copies = true;
  const std::vector<std::string> row{value_of(statement.key), statement.mark, std::string(statement.padding, 'x')};
  result.rows.assign(statement.rows / 2, row);
  return result;
}

Data::Result RegisterData::run(const std::string& sql, bool read_only) {
  const RegisterStatement statement = *parse_register_statement(sql);
  const bool writes = !statement.value.empty();
  if (read_only && (writes || statement.locks)) {
    refused();
    return {read_only_failure(statement), {}, {}};
  }
  if (auto failure = interference()) return failed(std::move(*failure), statement);
  Result result;
  result.tag = tag_of(statement, sql);
  if (statement.kind == Kind::Fetch) {
    const auto cursor = cursors_.find(statement.cursor);
    if (cursor == cursors_.end()) return {Failure{"34000", "cursor does not exist"}, {}, {}};
    result.tag = cursor->second.empty() ? "FETCH 0" : "FETCH 1";
    if (!cursor->second.empty()) result.rows.push_back(std::exchange(cursor->second, {}));
    return result;
  }
  if (writes) write(statement.key, statement.value);
  if (statement.mark.empty()) return result;
  std::vector<std::string> row{writes ? statement.value : value_of(statement.key), statement.mark};
  if (statement.kind == Kind::Declare) {
    cursors_[statement.cursor] = std::move(row);
  } else if (statement.kind == Kind::CopyOut) {
    row.emplace_back(statement.padding, 'x');
    result.copies = true;
    result.rows.assign(statement.rows, row);
  } else {
    result.rows.push_back(std::move(row));
  }
  return result;
}

bool RegisterData::copies_in(const std::string& sql) const {
  const auto statement = parse_register_statement(sql);
  return statement && statement->kind == Kind::CopyIn;
}

std::optional<Failure> RegisterData::begin_copy(bool read_only) {
  copied_ = 0;
  if (!read_only) return interference();
  refused();
  return Failure{"25006", "cannot execute COPY FROM in a read-only transaction"};
}

std::optional<Failure> RegisterData::copy_line(std::string_view text) {
  const auto line = parse_register_line(text);
  if (!line) return Failure{"22P04", "missing data for column"};
  write(line->key, line->value);
  ++copied_;
  return std::nullopt;
}

std::string RegisterData::end_copy() {
  return fmt::format("COPY {}", copied_);
}

// ---- ReferenceData ----

std::optional<Failure> ReferenceData::interference() {
  const auto fails = course_.fails.find(statements_++);
  return fails == course_.fails.end() ? std::nullopt : std::optional(fails->second);
}

bool ReferenceData::commit(Changes changes) {
  committed_.insert(committed_.end(), changes.begin(), changes.end());
  return false;
}

}  // namespace pgweir::sim
