#include "tests/sim/tiny_sql.hpp"

#include "protocol/body_reader.hpp"

namespace pgweir::sim::tiny_sql {

std::string trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\n") - first + 1));
}

std::vector<std::string> split(std::string_view sql) {
  std::vector<std::string> parts;
  std::string part;
  bool quoted = false;
  const auto end = [&] {
    if (std::string done = trim(part); !done.empty()) parts.push_back(std::move(done));
    part.clear();
  };
  for (const char c : sql) {
    if (c == '\'') quoted = !quoted;
    if (c == ';' && !quoted) {
      end();
    } else {
      part.push_back(c);
    }
  }
  end();
  return parts;
}

std::vector<std::string> words(std::string_view sql) {
  std::vector<std::string> result;
  std::size_t pos = 0;
  while ((pos = sql.find_first_not_of(' ', pos)) != std::string_view::npos) {
    const std::size_t end = std::min(sql.find(' ', pos), sql.size());
    result.emplace_back(sql.substr(pos, end - pos));
    pos = end;
  }
  return result;
}

std::vector<std::string> literals(std::string_view sql) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < sql.size(); ++i) {
    if (sql[i] != '\'') continue;
    std::string value;
    for (++i; i < sql.size(); ++i) {
      if (sql[i] != '\'') {
        value.push_back(sql[i]);
      } else if (i + 1 < sql.size() && sql[i + 1] == '\'') {
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

std::string unquoted(const std::string& name) {
  if (name.size() >= 2 && name.front() == '"' && name.back() == '"') return name.substr(1, name.size() - 2);
  return name;
}

std::string with_parameter(const std::string& sql, std::string_view bind_rest) {
  const std::size_t place = sql.find("$1");
  if (place == std::string::npos) return sql;
  protocol::BodyReader reader(bind_rest);
  for (std::uint16_t formats = reader.u16(); formats > 0; --formats) (void)reader.u16();
  if (reader.u16() == 0) return sql;
  const std::int32_t length = reader.i32();
  const auto value = length < 0 ? std::string_view() : reader.bytes(static_cast<std::size_t>(length));
  return sql.substr(0, place) + std::string(value) + sql.substr(place + 2);
}

}  // namespace pgweir::sim::tiny_sql
