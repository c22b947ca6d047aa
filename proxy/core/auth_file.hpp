// The common grammar of pg_hba.conf and pg_ident.conf (PostgreSQL manual, "The pg_hba.conf File"): lines of fields,
// fields of comma-separated tokens, quotes, comments, continuation, @file and the include directives. It knows no
// keyword of either file. Mistakes are collected; a line with one is left out and the rest is read on.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/core/config.hpp"

namespace pgweir::core {

/// What the grammar asks of the file system. A function that is not set makes its directive a mistake.
struct AuthFiles {
  ReadFile read;
  /// Whether the file is there, for include_if_exists.
  std::function<bool(const std::string& path)> exists;
  /// The names (not paths) of the files in a directory, in any order, or the reason why it cannot be read.
  std::function<boost::system::result<std::vector<std::string>, std::string>(const std::string& path)> list;
};

struct AuthToken {
  std::string text;
  bool quoted = false;  ///< starts with a quote, which takes away the meaning of keywords, @ and +
};

using AuthField = std::vector<AuthToken>;  ///< empty only if it was an @file without a name in it

struct AuthLine {
  std::string file;
  int line = 0;                   ///< the first, if it is continued
  std::vector<AuthField> fields;  ///< at least one
};

struct AuthText {
  std::vector<AuthLine> lines;
  std::vector<Problem> problems;
};

inline constexpr std::size_t kMaxAuthToken = 4096;
inline constexpr std::size_t kMaxAuthLine = 65536;  ///< after continuation
/// All lines read, an included file's once per inclusion: bounds the work of files that include others many times.
inline constexpr int kMaxAuthLines = 300'000;
/// What is found wrong beyond these is not reported one by one.
inline constexpr std::size_t kMaxAuthProblems = 1000;

/// `file` names the text in problems, and relative names are looked for beside it.
[[nodiscard]] AuthText read_auth_text(std::string_view text, const std::string& file, const AuthFiles& files);

/// Why `what` cannot be used: it asks who is a member of a role.
[[nodiscard]] std::string membership_unsupported(std::string_view what);

/// By file and line, for problems that were found in several passes.
void sort_problems(std::vector<Problem>& problems);

}  // namespace pgweir::core
