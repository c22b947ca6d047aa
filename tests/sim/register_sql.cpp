#include "tests/sim/register_sql.hpp"

#include <cctype>

namespace pgweir::sim {

namespace {

bool is_digit(char c) {
  return std::isdigit(static_cast<unsigned char>(c)) != 0;
}

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

// The number that follows the first of the words that the text has.
int key_of(const std::string& sql) {
  for (const std::string_view before : {"k = ", "(k, v) VALUES (", "VALUES (", "peek(", "bump(", "fresh(", "sneaky("}) {
    std::size_t at = sql.find(before);
    if (at == std::string::npos) continue;
    at += before.size();
    if (sql[at] == '\'') ++at;
    return std::atoi(sql.c_str() + at);
  }
  return -1;
}

}  // namespace

std::vector<std::string> find_marks(std::string_view text) {
  std::vector<std::string> marks;
  for (std::size_t i = 0; i + 3 < text.size(); ++i) {
    const bool begins = (text[i] == 'c' || text[i] == 'w' || text[i] == 'y') && is_digit(text[i + 1]) &&
                        (i == 0 || !is_word(text[i - 1]));
    if (!begins) continue;
    std::size_t end = i + 1;
    while (end < text.size() && is_digit(text[end])) ++end;
    if (end + 1 >= text.size() || text[end] != '.' || !is_digit(text[end + 1])) continue;
    ++end;
    while (end < text.size() && is_digit(text[end])) ++end;
    marks.emplace_back(text.substr(i, end - i));
    i = end - 1;
  }
  return marks;
}

std::optional<RegisterStatement> parse_register_statement(const std::string& sql) {
  const bool is_function = sql.find("peek(") != std::string::npos || sql.find("bump(") != std::string::npos ||
                           sql.find("fresh(") != std::string::npos || sql.find("sneaky(") != std::string::npos;
  if (!is_function && sql.find("registers") == std::string::npos) return std::nullopt;
  RegisterStatement statement;
  statement.key = key_of(sql);
  statement.locks = sql.find("FOR UPDATE") != std::string::npos;
  statement.runs_late = is_function;
  const bool returns = sql.find("SELECT") != std::string::npos;
  for (const std::string& mark : find_marks(sql)) {
    if (mark.front() != 'c') {
      statement.value = mark;
    } else if (returns) {
      statement.mark = mark;
    }
  }
  return statement;
}

std::vector<router::CatalogRow> register_catalog() {
  return {{"implicit", "", false, true, false, ""},     {"relation", "registers", false, true, false, ""},
          {"function", "peek", false, true, false, ""}, {"function", "bump", false, false, false, ""},
          {"operator", "=", true, true, false, ""},     {"function", "sneaky", false, true, false, ""},
          {"type", "int4", true, true, false, ""},      {"type", "text", true, true, false, ""}};
}

// ---- ReferenceData ----

std::optional<std::size_t> ReferenceData::columns(const std::string& sql) const {
  const auto statement = parse_register_statement(sql);
  if (!statement) return std::nullopt;
  return sql.find("SELECT") == std::string::npos ? 0 : 2;
}

Data::Result ReferenceData::run(const std::string& sql, bool read_only) {
  const RegisterStatement statement = *parse_register_statement(sql);
  const auto fails = course_.fails.find(statements_++);
  if (fails != course_.fails.end()) return {fails->second, {}, {}};
  const bool writes = !statement.value.empty();
  if (read_only && (writes || statement.locks)) return {read_only_failure(statement), {}, {}};
  std::string value = "?";
  for (const auto& [key, own] : pending_) {
    if (key == statement.key) value = own;
  }
  if (writes) {
    value = statement.value;
    pending_.emplace_back(statement.key, value);
  }
  Result result;
  if (statement.mark.empty()) {
    result.tag = sql.find("INSERT") != std::string::npos ? "INSERT 0 1" : "UPDATE 1";
  } else {
    result.rows = {{value, statement.mark}};
    result.tag = "SELECT 1";
  }
  return result;
}

bool ReferenceData::end(bool commit) {
  if (commit) committed_.insert(committed_.end(), pending_.begin(), pending_.end());
  pending_.clear();
  return false;
}

}  // namespace pgweir::sim
