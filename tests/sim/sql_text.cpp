#include "tests/sim/sql_text.hpp"

namespace pgweir::sim {

std::string trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\n") - first + 1));
}

std::vector<std::string> split_statements(std::string_view sql) {
  std::vector<std::string> parts;
  std::string part;
  bool quoted = false;
  for (const char c : sql) {
    if (c == '\'') quoted = !quoted;
    if (c == ';' && !quoted) {
      if (!trim(part).empty()) parts.push_back(trim(part));
      part.clear();
    } else {
      part.push_back(c);
    }
  }
  if (!trim(part).empty()) parts.push_back(trim(part));
  return parts;
}

std::vector<std::string> words(const std::string& sql) {
  std::vector<std::string> result;
  std::string word;
  for (const char c : sql + ' ') {
    if (c != ' ') {
      word.push_back(c);
    } else if (!word.empty()) {
      result.push_back(std::move(word));
      word.clear();
    }
  }
  return result;
}

std::vector<std::string> literals(const std::string& text) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\'') continue;
    std::string value;
    for (++i; i < text.size(); ++i) {
      if (text[i] != '\'') {
        value.push_back(text[i]);
      } else if (i + 1 < text.size() && text[i + 1] == '\'') {
        value.push_back('\'');
        ++i;
      } else {
        break;
      }
    }
    result.push_back(std::move(value));
  }
  return result;
}

std::string unquoted(std::string name) {
  if (name.size() >= 2 && name.front() == '"' && name.back() == '"') return name.substr(1, name.size() - 2);
  return name;
}

std::string with_values(const std::string& sql, const std::vector<std::string>& values) {
  std::string result;
  for (std::size_t i = 0; i < sql.size(); ++i) {
    const auto number = i + 1 < sql.size() && sql[i] == '$' ? static_cast<std::size_t>(sql[i + 1] - '0') : 0;
    if (number >= 1 && number <= values.size()) {
      result += "'" + values[number - 1] + "'";
      ++i;
    } else {
      result.push_back(sql[i]);
    }
  }
  return result;
}

}  // namespace pgweir::sim
