// What the simulated SQL is cut into: statements, words, literals.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pgweir::sim {

[[nodiscard]] std::string trim(std::string_view text);
/// Splits at semicolons outside of quotes; what is empty is left out.
[[nodiscard]] std::vector<std::string> split_statements(std::string_view sql);
[[nodiscard]] std::vector<std::string> words(const std::string& sql);
/// The literals of `text` in order, quotes taken off.
[[nodiscard]] std::vector<std::string> literals(const std::string& text);
/// Without the double quotes around it, if there are any.
[[nodiscard]] std::string unquoted(std::string name);
/// `sql` with its $1, $2, … replaced by literals.
[[nodiscard]] std::string with_values(const std::string& sql, const std::vector<std::string>& values);

}  // namespace pgweir::sim
