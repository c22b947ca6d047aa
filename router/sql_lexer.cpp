#include "router/sql_lexer.hpp"

namespace pgweir::router {

namespace {

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool starts_identifier(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

bool continues_identifier(char c) {
  return starts_identifier(c) || (c >= '0' && c <= '9') || c == '$';
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// PostgreSQL's comments nest.
std::size_t skip_block_comment(std::string_view sql, std::size_t pos) {
  int depth = 0;
  while (pos + 1 < sql.size()) {
    if (sql[pos] == '/' && sql[pos + 1] == '*') {
      ++depth;
      pos += 2;
    } else if (sql[pos] == '*' && sql[pos + 1] == '/') {
      pos += 2;
      if (--depth == 0) return pos;
    } else {
      ++pos;
    }
  }
  return sql.size();
}

struct Identifier {
  std::string text;
  std::size_t end = 0;  ///< 0: there is none
  bool quoted = false;
};

Identifier read_identifier(std::string_view sql, std::size_t pos) {
  Identifier result;
  if (pos >= sql.size()) return result;
  if (sql[pos] == '"') {
    result.quoted = true;
    for (std::size_t i = pos + 1; i < sql.size(); ++i) {
      if (sql[i] != '"') {
        result.text.push_back(sql[i]);
      } else if (i + 1 < sql.size() && sql[i + 1] == '"') {
        result.text.push_back('"');
        ++i;
      } else {
        result.end = i + 1;
        return result;
      }
    }
    return {};
  }
  if (!starts_identifier(sql[pos])) return result;
  std::size_t end = pos;
  while (end < sql.size() && continues_identifier(sql[end])) result.text.push_back(lower(sql[end++]));
  result.end = end;
  return result;
}

// Where the first statement begins that does more than begin a transaction or set a savepoint.
std::size_t skip_beginnings(std::string_view sql) {
  std::size_t pos = skip_blank(sql, 0);
  for (;;) {
    const Identifier keyword = read_identifier(sql, pos);
    if (keyword.quoted || (keyword.text != "begin" && keyword.text != "savepoint")) return pos;
    const std::size_t end = sql.find_first_of(";'\"$/-", keyword.end);
    if (end == std::string_view::npos || sql[end] != ';') return pos;
    pos = skip_blank(sql, end + 1);
  }
}

bool only_end_follows(std::string_view sql, std::size_t pos) {
  pos = skip_blank(sql, pos);
  while (pos < sql.size() && sql[pos] == ';') pos = skip_blank(sql, pos + 1);
  return pos == sql.size();
}

std::size_t skip_spaces(std::string_view sql) {
  std::size_t pos = 0;
  while (pos < sql.size() && is_space(sql[pos])) ++pos;
  return pos;
}

/// A look at one byte, for nearly all texts enough: the first keyword may begin with this letter, or a comment is
/// before it.
bool may_begin_with(std::string_view sql, char letter) {
  const std::size_t pos = skip_spaces(sql);
  return pos < sql.size() && (lower(sql[pos]) == letter || sql[pos] == '/' || sql[pos] == '-');
}

}  // namespace

std::size_t skip_blank(std::string_view sql, std::size_t from) {
  std::size_t pos = from;
  while (pos < sql.size()) {
    if (is_space(sql[pos])) {
      ++pos;
    } else if (sql.substr(pos, 2) == "--") {
      const std::size_t end = sql.find_first_of("\r\n", pos);
      pos = end == std::string_view::npos ? sql.size() : end;
    } else if (sql.substr(pos, 2) == "/*") {
      pos = skip_block_comment(sql, pos);
    } else {
      break;
    }
  }
  return pos;
}

bool may_name_statement(std::string_view sql) {
  const std::size_t pos = skip_spaces(sql);
  if (pos == sql.size()) return false;
  const char first = lower(sql[pos]);
  if (first == '/' || first == '-') return true;
  const char second = pos + 1 < sql.size() ? lower(sql[pos + 1]) : '\0';
  return (first == 'e' && second == 'x') || (first == 'd' && second == 'e') || (first == 's' && second == 'a') ||
         (first == 'b' && second == 'e');
}

bool may_clear_statements(std::string_view sql) {
  if (!may_begin_with(sql, 'd')) return false;
  const Identifier keyword = read_identifier(sql, skip_blank(sql, 0));
  return !keyword.quoted && (keyword.text == "discard" || keyword.text == "deallocate");
}

std::optional<std::string> find_reset(std::string_view sql) {
  if (!may_begin_with(sql, 'r')) return std::nullopt;
  const Identifier keyword = read_identifier(sql, skip_blank(sql, 0));
  if (keyword.quoted || keyword.text != "reset") return std::nullopt;
  const Identifier name = read_identifier(sql, skip_blank(sql, keyword.end));
  if (name.end == 0) return std::nullopt;
  if (name.quoted || name.text != "time") return name.text;
  const Identifier second = read_identifier(sql, skip_blank(sql, name.end));
  return second.text == "zone" ? "timezone" : name.text;
}

std::optional<StatementNameUse> find_statement_name(std::string_view sql) {
  const std::size_t first = skip_beginnings(sql);
  const Identifier keyword = read_identifier(sql, first);
  if (keyword.end == 0 || keyword.quoted) return std::nullopt;
  StatementNameUse use;
  use.alone = first == skip_blank(sql, 0);
  if (keyword.text == "execute") {
    use.kind = StatementNameUse::Kind::Execute;
  } else if (keyword.text == "deallocate") {
    use.kind = StatementNameUse::Kind::Deallocate;
  } else {
    return std::nullopt;
  }
  std::size_t start = skip_blank(sql, keyword.end);
  Identifier name = read_identifier(sql, start);
  if (use.kind == StatementNameUse::Kind::Deallocate && !name.quoted && name.text == "prepare") {
    const std::size_t next = skip_blank(sql, name.end);
    const Identifier after = read_identifier(sql, next);
    if (after.end != 0) {
      name = after;
      start = next;
    }
  }
  if (name.end == 0) return std::nullopt;
  if (use.kind == StatementNameUse::Kind::Deallocate) {
    if (!name.quoted && name.text == "all") return std::nullopt;
    if (!only_end_follows(sql, name.end)) {
      const std::size_t next = skip_blank(sql, name.end);
      if (next == sql.size() || sql[next] != ';') return std::nullopt;
      use.alone = false;
    }
  }
  use.name = name.text;
  use.offset = start;
  use.length = name.end - start;
  return use;
}

}  // namespace pgweir::router
