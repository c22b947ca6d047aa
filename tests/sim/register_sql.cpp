#include "tests/sim/register_sql.hpp"

#include <cctype>
#include <cstdlib>

#include "tests/sim/sql_text.hpp"

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

std::size_t number_behind(const std::string& sql, std::string_view before) {
  const std::size_t at = sql.find(before);
  return at == std::string::npos ? 1 : std::strtoul(sql.c_str() + at + before.size(), nullptr, 10);
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
  using Kind = RegisterStatement::Kind;
  const std::vector<std::string> word = words(sql);
  const std::string first = word.empty() ? "" : word.front();
  RegisterStatement statement;
  if (first == "FETCH") {
    statement.kind = Kind::Fetch;
    statement.cursor = word.at(3);
    return statement;
  }
  if (first == "CREATE" || first == "ALTER" || first == "DROP") {
    statement.kind = Kind::Definition;
    statement.key = kCatalogKey;
    statement.value = find_marks(sql).at(0);
    return statement;
  }
  const bool is_function = sql.find("peek(") != std::string::npos || sql.find("bump(") != std::string::npos ||
                           sql.find("fresh(") != std::string::npos || sql.find("sneaky(") != std::string::npos;
  if (!is_function && sql.find("registers") == std::string::npos) return std::nullopt;
  statement.key = key_of(sql);
  if (first == "DECLARE") {
    statement.kind = Kind::Declare;
    statement.cursor = word.at(1);
  } else if (first == "COPY" && sql.find("FROM STDIN") != std::string::npos) {
    statement.kind = Kind::CopyIn;
    return statement;
  } else if (first == "COPY") {
    statement.kind = Kind::CopyOut;
    statement.rows = number_behind(sql, "generate_series(1, ");
    statement.padding = number_behind(sql, "repeat('x', ");
  }
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

std::optional<RegisterLine> parse_register_line(std::string_view line) {
  const std::vector<std::string> marks = find_marks(line);
  const std::size_t tab = line.find('\t');
  if (marks.size() != 1 || tab == std::string_view::npos) return std::nullopt;
  return RegisterLine{std::atoi(std::string(line.substr(0, tab)).c_str()), marks.front()};
}

std::vector<router::CatalogRow> register_catalog() {
  return {{"implicit", "", false, true, false, ""},      {"relation", "registers", false, true, false, ""},
          {"function", "peek", false, true, false, ""},  {"function", "bump", false, false, false, ""},
          {"operator", "=", true, true, false, ""},      {"function", "sneaky", false, true, false, ""},
          {"type", "int4", true, true, false, ""},       {"type", "text", true, true, false, ""},
          {"function", "repeat", true, true, false, ""}, {"function", "generate_series", true, true, false, ""}};
}

}  // namespace pgweir::sim
