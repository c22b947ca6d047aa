// Implements userlist.hpp: "name" "secret" with "" for a quote inside, `;` comments, and the lengths PgBouncer allows.
#include "proxy/core/userlist.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace pgweir::core {
namespace {

constexpr std::size_t kMaxName = 127;
constexpr std::size_t kMaxSecret = 65530;
constexpr std::string_view kBlanks = " \t\r\v\f";

void skip_blanks(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
}

// Takes a "quoted" field off the front of `line`; empty if there is none or its end is missing.
std::optional<std::string> take_field(std::string_view& line) {
  if (!line.starts_with('"')) return std::nullopt;
  std::string field;
  for (std::size_t i = 1; i < line.size(); ++i) {
    if (line[i] != '"') {
      field += line[i];
    } else if (i + 1 < line.size() && line[i + 1] == '"') {
      field += line[++i];
    } else {
      line.remove_prefix(i + 1);
      return field;
    }
  }
  return std::nullopt;
}

// One line that is neither empty nor a comment; answers with what is wrong with it.
std::optional<std::string> read_user(std::string_view line, UserList& list) {
  if (line.front() == '#') return R"(expected "name" "secret"; a comment starts with ;)";
  if (line.find('\0') != std::string_view::npos) return "contains a zero byte; expected text";
  auto name = take_field(line);
  if (!name) return R"(expected "name" "secret", both in double quotes)";
  if (name->size() > kMaxName) return fmt::format("expected a name of at most {} bytes", kMaxName);
  skip_blanks(line);
  auto secret = take_field(line);
  if (!secret) return R"(expected "secret" in double quotes after the name)";
  if (secret->size() > kMaxSecret) return fmt::format("expected a secret of at most {} bytes", kMaxSecret);
  list.users.insert_or_assign(std::move(*name), std::move(*secret));
  return std::nullopt;
}

}  // namespace

UserList parse_userlist(std::string_view text, const std::string& file_name) {
  UserList list;
  for (int number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    auto line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    skip_blanks(line);
    if (line.empty() || line.front() == ';') continue;
    if (auto problem = read_user(line, list)) {
      const auto* rest = text.empty() ? "" : "; the lines after it are not read";
      list.problems.push_back({file_name, number, {}, fmt::format("{}{}", *problem, rest)});
      break;
    }
  }
  return list;
}

}  // namespace pgweir::core
