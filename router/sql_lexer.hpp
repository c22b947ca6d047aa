// The little of SQL's surface that decides where a word stands: white space, comments, identifiers, literals. Finds the
// name in EXECUTE and DEALLOCATE, which a pooler has to know because it renames prepared statements, and what RESET and
// SET do to which parameter. Follows "Lexical Structure" of the PostgreSQL manual; it does not parse statements.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgweir::router {

/// `EXECUTE name…` or `DEALLOCATE [PREPARE] name` at the start of a text, or behind `BEGIN;` and `SAVEPOINT name;` as
/// drivers write that undo single statements.
struct StatementNameUse {
  enum class Kind { Execute, Deallocate };
  Kind kind = Kind::Execute;
  std::string name;        ///< as PostgreSQL understands it: lower case unless it was quoted
  std::size_t offset = 0;  ///< where the name stands in the text, quotes included
  std::size_t length = 0;
  bool alone = true;  ///< false: other statements come before a name, or behind that of a DEALLOCATE
};

/// A look at the first letters, for nearly all texts enough: false only if none of the functions below finds anything
/// in a text that begins so.
[[nodiscard]] inline bool may_concern_session(std::string_view sql) {
  std::size_t pos = 0;
  while (pos < sql.size() && (sql[pos] == ' ' || (sql[pos] >= '\t' && sql[pos] <= '\r'))) ++pos;
  if (pos == sql.size()) return false;
  const auto lower = [&](std::size_t at) { return at < sql.size() ? static_cast<char>(sql[at] | 0x20) : '\0'; };
  switch (lower(pos)) {
    case 's':  // SAVEPOINT name; EXECUTE ..., but not SELECT
      return lower(pos + 1) == 'a';
    case 'a':  // ALTER
      return lower(pos + 1) == 'l';
    case 'c':  // CREATE
      return lower(pos + 1) == 'r';
    case 'b':
    case 'd':
    case 'e':
    case 'r':
    case '-':
    case '/':
      return true;
    default:
      return false;
  }
}

/// True if a text may begin with a command that changes settings or takes such a change back, judged by a few bytes.
[[nodiscard]] inline bool may_change_settings(std::string_view sql) {
  std::size_t pos = 0;
  while (pos < sql.size() && (sql[pos] == ' ' || (sql[pos] >= '\t' && sql[pos] <= '\r'))) ++pos;
  const auto lower = [&](std::size_t at) { return at < sql.size() ? static_cast<char>(sql[at] | 0x20) : '\0'; };
  switch (lower(pos)) {
    case 's':  // SET, but not SELECT
      return lower(pos + 1) == 'e' && lower(pos + 2) == 't';
    case 'd':  // DISCARD, DO, but not DEALLOCATE
      return lower(pos + 1) != 'e';
    case 'a':  // ABORT
    case 'c':  // COMMIT, CALL
    case 'e':  // END, EXECUTE
    case 'r':  // RESET, ROLLBACK
    case '-':
    case '/':
      return true;
    default:
      return false;
  }
}

/// True if a text begins with ALTER, CREATE or DROP: the schema may change soon.
[[nodiscard]] bool changes_schema(std::string_view sql);
/// The same; the first letter is enough for nearly all texts.
[[nodiscard]] inline bool may_change_schema(std::string_view sql) {
  std::size_t pos = 0;
  while (pos < sql.size() && (sql[pos] == ' ' || (sql[pos] >= '\t' && sql[pos] <= '\r'))) ++pos;
  if (pos == sql.size()) return false;
  const char first = static_cast<char>(sql[pos] | 0x20);
  return (first == 'a' || first == 'c' || first == 'd' || first == '/' || first == '-') && changes_schema(sql);
}

/// nullopt for every other text and for `DEALLOCATE ALL`. Linear in the length of what comes before the name; looks
/// hardly further.
[[nodiscard]] std::optional<StatementNameUse> find_statement_name(std::string_view sql);

/// True if a text may begin with EXECUTE or DEALLOCATE, judged by a few bytes: what saves the common case the look.
[[nodiscard]] bool may_name_statement(std::string_view sql);

/// True if a text begins with DISCARD or DEALLOCATE, after which a server may have no prepared statements any more.
[[nodiscard]] bool may_clear_statements(std::string_view sql);

/// What one statement does to a parameter for longer than a transaction.
struct ParameterChange {
  enum class Kind { Reset /* SET … TO DEFAULT as well */, Set };
  Kind kind = Kind::Reset;
  std::string name;  ///< in lower case unless it was quoted; "timezone" for TIME ZONE, "all" for RESET ALL
  friend bool operator==(const ParameterChange&, const ParameterChange&) = default;
};

/// Those of all statements of a text, in their order. Linear in the text. What functions do is not seen, and where a
/// backslash means something else than the manual's default says, a statement may be overlooked.
[[nodiscard]] std::vector<ParameterChange> find_parameter_changes(std::string_view sql);

/// False only if find_parameter_changes() finds nothing: looks at the first letters and for a semicolon within.
[[nodiscard]] bool may_change_parameters(std::string_view sql);

/// Offset of the first byte at or after `from` that is neither white space nor in a comment.
[[nodiscard]] std::size_t skip_blank(std::string_view sql, std::size_t from);

}  // namespace pgweir::router
