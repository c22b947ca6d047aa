// What the simulated server understands of SQL: statements, words, literals and one parameter.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pgweir::sim::tiny_sql {

[[nodiscard]] std::string trim(std::string_view text);
/// At semicolons outside of quotes; empty statements are left out.
[[nodiscard]] std::vector<std::string> split(std::string_view sql);
[[nodiscard]] std::vector<std::string> words(std::string_view sql);
/// The string literals in order, unquoted.
[[nodiscard]] std::vector<std::string> literals(std::string_view sql);
[[nodiscard]] std::string unquoted(const std::string& name);
/// `sql` with "$1" replaced by the first parameter of a Bind, whose part from the format codes on is `bind_rest`.
[[nodiscard]] std::string with_parameter(const std::string& sql, std::string_view bind_rest);

}  // namespace pgweir::sim::tiny_sql
