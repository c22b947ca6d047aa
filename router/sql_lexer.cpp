#include "router/sql_lexer.hpp"

#include <utility>

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

// From a quote to behind the one that ends it. Doubled ones are two that follow each other.
std::size_t skip_quoted(std::string_view sql, std::size_t pos, bool escapes) {
  const char quote = sql[pos++];
  while (pos < sql.size()) {
    if (escapes && sql[pos] == '\\') {
      pos += 2;
    } else if (sql[pos++] == quote) {
      return pos;
    }
  }
  return sql.size();
}

// From a dollar sign to behind $tag$…$tag$; behind the sign itself if it begins none.
std::size_t skip_dollar_quoted(std::string_view sql, std::size_t pos) {
  std::size_t end = pos + 1;
  if (end < sql.size() && starts_identifier(sql[end])) {
    while (end < sql.size() && continues_identifier(sql[end]) && sql[end] != '$') ++end;
  }
  if (end >= sql.size() || sql[end] != '$') return pos + 1;
  const std::string_view tag = sql.substr(pos, end + 1 - pos);
  const std::size_t close = sql.find(tag, end + 1);
  return close == std::string_view::npos ? sql.size() : close + tag.size();
}

// Behind the semicolon that ends the statement at `pos`.
std::size_t skip_statement(std::string_view sql, std::size_t pos) {
  while (pos < sql.size()) {
    const char c = sql[pos];
    if (c == ';') return pos + 1;
    if (c == '\'' || c == '"') {
      pos = skip_quoted(sql, pos, false);
    } else if (c == '$') {
      pos = skip_dollar_quoted(sql, pos);
    } else if (starts_identifier(c)) {
      const std::size_t start = pos;
      while (pos < sql.size() && continues_identifier(sql[pos])) ++pos;
      const bool escapes = pos - start == 1 && lower(c) == 'e' && pos < sql.size() && sql[pos] == '\'';
      if (escapes) pos = skip_quoted(sql, pos, true);
    } else {
      const std::size_t next = skip_blank(sql, pos);
      pos = next == pos ? pos + 1 : next;
    }
  }
  return pos;
}

/// A word that is none in quotes; empty if there is none at `pos`, which it moves behind it and what is blank there.
std::string take_word(std::string_view sql, std::size_t& pos) {
  Identifier word = read_identifier(sql, pos);
  if (word.end == 0 || word.quoted) return {};
  pos = skip_blank(sql, word.end);
  return std::move(word.text);
}

struct ParameterName {
  std::string text;
  bool plain = true;  ///< false: TIME ZONE and NAMES, which need neither TO nor an equals sign
};

std::optional<ParameterName> take_parameter_name(std::string_view sql, std::size_t& pos) {
  Identifier name = read_identifier(sql, pos);
  if (name.end == 0) return std::nullopt;
  pos = skip_blank(sql, name.end);
  if (name.quoted || name.text != "time") return ParameterName{std::move(name.text)};
  std::size_t next = pos;
  if (take_word(sql, next) != "zone") return ParameterName{std::move(name.text)};
  pos = next;
  return ParameterName{"timezone", false};
}

/// Of a SET, from behind its keyword.
std::optional<ParameterChange> parameter_set(std::string_view sql, std::size_t pos) {
  std::size_t next = pos;
  const std::string scope = take_word(sql, next);
  if (scope == "local") return std::nullopt;  // the end of the transaction takes it back, and the server tells
  if (scope == "session") pos = next;
  std::optional<ParameterName> name = take_parameter_name(sql, pos);
  if (!name) return std::nullopt;
  next = pos;
  if (pos < sql.size() && sql[pos] == '=') {
    pos = skip_blank(sql, pos + 1);
  } else if (take_word(sql, next) == "to") {
    pos = next;
  } else if (name->text == "names") {
    name = ParameterName{"client_encoding", false};
  } else if (name->plain) {
    return std::nullopt;
  }
  const bool nothing = pos == sql.size() || sql[pos] == ';';
  const std::string value = take_word(sql, pos);
  const bool reset = value == "default" || (!name->plain && (value == "local" || nothing));
  return ParameterChange{reset ? ParameterChange::Kind::Reset : ParameterChange::Kind::Set, std::move(name->text)};
}

std::optional<ParameterChange> parameter_change(std::string_view sql, std::size_t pos) {
  const std::string keyword = take_word(sql, pos);
  if (keyword == "set") return parameter_set(sql, pos);
  if (keyword != "reset") return std::nullopt;
  std::optional<ParameterName> name = take_parameter_name(sql, pos);
  if (!name) return std::nullopt;
  return ParameterChange{ParameterChange::Kind::Reset, std::move(name->text)};
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

bool changes_schema(std::string_view sql) {
  const Identifier keyword = read_identifier(sql, skip_blank(sql, 0));
  return !keyword.quoted && (keyword.text == "alter" || keyword.text == "create" || keyword.text == "drop");
}

bool may_clear_statements(std::string_view sql) {
  if (!may_begin_with(sql, 'd')) return false;
  const Identifier keyword = read_identifier(sql, skip_blank(sql, 0));
  return !keyword.quoted && (keyword.text == "discard" || keyword.text == "deallocate");
}

bool may_change_parameters(std::string_view sql) {
  const std::size_t pos = skip_spaces(sql);
  if (pos == sql.size()) return false;
  const char first = lower(sql[pos]);
  if (first == 'r' || first == '/' || first == '-') return true;
  if (first == 's' && pos + 2 < sql.size() && lower(sql[pos + 1]) == 'e' && lower(sql[pos + 2]) == 't') return true;
  std::size_t end = sql.size();
  while (is_space(sql[end - 1]) || sql[end - 1] == ';') {
    if (--end == pos) return false;
  }
  return sql.substr(pos, end - pos).find(';') != std::string_view::npos;
}

std::vector<ParameterChange> find_parameter_changes(std::string_view sql) {
  std::vector<ParameterChange> found;
  std::size_t pos = 0;
  while (pos < sql.size()) {
    if (auto change = parameter_change(sql, skip_blank(sql, pos))) found.push_back(std::move(*change));
    pos = skip_statement(sql, pos);
  }
  return found;
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
