#include "protocol/session_parameters.hpp"

#include <algorithm>

namespace pgweir::protocol {

namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Appends `value` as an SQL string literal that means the same under either setting of standard_conforming_strings.
bool append_literal(std::string& sql, std::string_view value) {
  bool backslash = false;
  bool high = false;
  for (const char c : value) {
    if (c == '\\') backslash = true;
    if (static_cast<unsigned char>(c) >= 0x80) high = true;
    if (c == '\0') return false;
  }
  // In encodings like GBK the second byte of a character may be a backslash, so doubling it could end the literal.
  if (backslash && high) return false;
  if (backslash) sql.push_back('E');
  sql.push_back('\'');
  for (const char c : value) {
    if (c == '\'' || (backslash && c == '\\')) sql.push_back(c);
    sql.push_back(c);
  }
  sql.push_back('\'');
  return true;
}

bool append_plain_set(std::string& sql, std::string_view name, std::string_view value) {
  sql += "SET ";
  sql += name;
  sql += '=';
  if (!append_literal(sql, value)) return false;
  sql += ';';
  return true;
}

// As bytes in an encoding of their own: by what encoding the server reads a query of ours is up to the client before,
// whose client_encoding it may still have. `encoding` is an SQL expression.
void append_bytes(std::string& sql, std::string_view value, std::string_view encoding) {
  static constexpr char digits[] = "0123456789abcdef";
  sql += "pg_catalog.convert_from(pg_catalog.decode('";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    sql.push_back(digits[byte >> 4]);
    sql.push_back(digits[byte & 15]);
  }
  sql += "','hex'),";
  sql += encoding;
  sql += ')';
}

// Lists such as search_path must not be given as one literal to SET, which would make it one identifier; set_config
// takes the text as the start-up packet does.
bool append_set(std::string& sql, std::string_view name, std::string_view value, std::string_view encoding) {
  const auto high = [](char c) { return static_cast<unsigned char>(c) >= 0x80; };
  sql += "SELECT pg_catalog.set_config(";
  if (!append_literal(sql, name)) return false;
  sql += ',';
  if (std::any_of(value.begin(), value.end(), high)) {
    append_bytes(sql, value, encoding);
  } else if (!append_literal(sql, value)) {
    return false;
  }
  sql += ",false);";
  return true;
}

/// Of a start-up packet, which is not converted.
constexpr std::string_view kDatabaseEncoding = "pg_catalog.getdatabaseencoding()";

bool append_extras(std::string& sql, const ExtraParameters& client, const ExtraParameters& server, bool unknown) {
  auto c = client.begin();
  auto s = server.begin();
  while (c != client.end() || s != server.end()) {
    if (s != server.end() && (c == client.end() || s->first < c->first)) {
      sql += "RESET ";
      sql += s->first;
      sql += ';';
      ++s;
      continue;
    }
    const bool both = s != server.end() && s->first == c->first;
    if (!both || unknown || s->second != c->second) {
      if (!append_set(sql, c->first, c->second, kDatabaseEncoding)) return false;
    }
    if (both) ++s;
    ++c;
  }
  return true;
}

const ExtraParameters kNoExtras;

/// An SQL expression for the encoding in which a server has told a client these values.
std::string reported_in(const std::vector<std::optional<std::string>>& values) {
  const auto& encoding = values[TrackedNames::kClientEncoding];
  std::string literal;
  return encoding && append_literal(literal, *encoding) ? literal : std::string(kDatabaseEncoding);
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower(x) == lower(y); });
}

std::string to_lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), lower);
  return result;
}

TrackedNames::TrackedNames(const std::vector<std::string>& extra)
    : names_{"DateStyle", "client_encoding", "TimeZone", "standard_conforming_strings", "application_name"} {
  for (const std::string& name : extra) {
    if (names_.size() < 32 && !name.empty() && valid_parameter_name(name) && !find(name)) names_.push_back(name);
  }
}

std::optional<std::size_t> TrackedNames::find(std::string_view name) const {
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (equal_ignoring_case(names_[i], name)) return i;
  }
  return std::nullopt;
}

ParameterSetPtr with_value(const ParameterSetPtr& set, std::size_t index, std::string_view value) {
  if (set && set->values[index] == value) return set;
  auto copy = std::make_shared<ParameterSet>(*set);
  copy->values[index] = std::string(value);
  return copy;
}

bool aligned(const SessionParameters& client, const ServerParameters& server) {
  if (client.extras != server.extras) {
    const ExtraParameters& c = client.extras ? *client.extras : kNoExtras;
    const ExtraParameters& s = server.extras ? *server.extras : kNoExtras;
    if (c != s) return false;
  }
  if (server.extras_unknown && (client.extras || server.extras)) return false;
  if (client.tracked == server.tracked || !client.tracked || !server.tracked) return true;
  const auto& c = client.tracked->values;
  const auto& s = server.tracked->values;
  for (std::size_t i = 0; i < c.size() && i < s.size(); ++i) {
    if (c[i] && s[i] && *c[i] != *s[i]) return false;
  }
  return true;
}

std::optional<std::string> alignment_sql(const TrackedNames& names, const SessionParameters& client,
                                         const ServerParameters& server) {
  std::string sql;
  if (client.tracked && server.tracked) {
    const auto& c = client.tracked->values;
    const auto& s = server.tracked->values;
    for (std::size_t i = 0; i < names.size() && i < c.size() && i < s.size(); ++i) {
      if (!c[i] || !s[i] || *c[i] == *s[i]) continue;
      const bool plain = i <= TrackedNames::kApplicationName;
      if (!(plain ? append_plain_set(sql, names.name(i), *c[i])
                  : append_set(sql, names.name(i), *c[i], reported_in(c))))
        return std::nullopt;
    }
  }
  const ExtraParameters& c = client.extras ? *client.extras : kNoExtras;
  const ExtraParameters& s = server.extras ? *server.extras : kNoExtras;
  if (!append_extras(sql, c, s, server.extras_unknown)) return std::nullopt;
  return sql;
}

std::uint64_t settings_hash(const HashKey& key, const TrackedNames& names, const SessionParameters& parameters) {
  SipHash128 hash(key);
  const auto add = [&](std::string_view name, std::string_view value) {
    hash.add_number(name.size());
    hash.add(name);
    hash.add_number(value.size());
    hash.add(value);
  };
  if (parameters.tracked) {
    const auto& values = parameters.tracked->values;
    for (std::size_t i = 0; i < names.size() && i < values.size(); ++i) {
      if (i != TrackedNames::kApplicationName && values[i]) add(names.name(i), *values[i]);
    }
  }
  if (parameters.extras) {
    for (const auto& [name, value] : *parameters.extras) add(name, value);
  }
  return hash.finish().low;
}

bool valid_parameter_name(std::string_view name) {
  if (name.empty() || name.size() > 128) return false;
  bool start = true;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    const bool digit = (c >= '0' && c <= '9') || c == '$';
    if (c == '.') {
      if (start) return false;
      start = true;
      continue;
    }
    if (!letter && (start || !digit)) return false;
    start = false;
  }
  return !start;
}

std::string clean_application_name(std::string_view value) {
  std::string result(value);
  for (char& c : result) {
    if (c < 32 || c > 126) c = '?';
  }
  return result;
}

// ---- for another process ----

void transfer(StateArchive& archive, ParameterSetPtr& set, const TrackedNames& names) {
  bool there = set != nullptr;
  archive(there);
  if (!there) return;
  const std::size_t size = archive.count(set == nullptr ? 0 : std::min(set->values.size(), names.size()));
  if (!archive.reading()) {
    for (std::size_t i = 0; i < size; ++i) {
      std::string name = names.name(i);
      std::optional<std::string> value = set->values[i];
      archive(name, value);
    }
    return;
  }
  auto made = std::make_shared<ParameterSet>();
  made->values.resize(names.size());
  for (std::size_t i = 0; i < size && !archive.failed(); ++i) {
    std::string name;
    std::optional<std::string> value;
    archive(name, value);
    if (const auto index = names.find(name)) made->values[*index] = std::move(value);
  }
  set = std::move(made);
}

void transfer(StateArchive& archive, ExtraParametersPtr& extras) {
  bool there = extras != nullptr;
  archive(there);
  if (!there) return;
  ExtraParameters all;
  if (extras != nullptr) all = *extras;
  const std::size_t size = archive.count(all.size());
  if (archive.reading()) all.resize(size);
  for (auto& [name, value] : all) archive(name, value);
  if (archive.reading()) extras = std::make_shared<const ExtraParameters>(std::move(all));
}

}  // namespace pgweir::protocol
