// Implements ident_map.hpp.
#include "proxy/core/ident_map.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/core/config_values.hpp"

namespace pgweir::core {
namespace {

constexpr std::string_view kGroup = "\\1";

using Reason = std::optional<std::string>;

Reason compile(const std::string& text, std::optional<NamePattern>& out) {
  if (!text.starts_with('/')) return std::nullopt;
  auto pattern = NamePattern::compile(std::string_view(text).substr(1));
  if (pattern.has_error()) return pattern.error();
  out = std::move(*pattern);
  return std::nullopt;
}

// Fills `mapping` or says what is wrong with the line.
Reason read_mapping(const AuthLine& line, IdentMapping& mapping) {
  constexpr const char* kColumns = "expected map-name system-user database-user";
  if (line.fields.size() != 3) return kColumns;
  for (const auto& field : line.fields) {
    if (field.size() != 1) return fmt::format("{}, got a list", kColumns);
    if (field.front().text.empty()) return fmt::format("{}, got an empty name", kColumns);
  }
  mapping.map = line.fields[0].front().text;
  mapping.system_user = line.fields[1].front().text;
  const auto& database_user = line.fields[2].front();
  mapping.database_user = database_user.text;
  mapping.all_database_users = !database_user.quoted && database_user.text == "all";
  if (!database_user.quoted && database_user.text.starts_with('+')) {
    return membership_unsupported(quoted(database_user.text));
  }
  if (auto reason = compile(mapping.system_user, mapping.system_pattern)) return reason;
  if (auto reason = compile(mapping.database_user, mapping.database_pattern)) return reason;
  const bool wants_group =
      mapping.system_pattern && !mapping.database_pattern && mapping.database_user.find(kGroup) != std::string::npos;
  if (wants_group && mapping.system_pattern->groups() == 0) {
    return fmt::format("expected parentheses in {} for the \\1 in {}", quoted(mapping.system_user),
                       quoted(mapping.database_user));
  }
  return std::nullopt;
}

bool allows(const IdentMapping& mapping, std::string_view system_user, std::string_view database_user) {
  std::string expected = mapping.database_user;
  bool substituted = false;
  if (mapping.system_pattern) {
    const auto found = mapping.system_pattern->find(system_user);
    if (!found) return false;
    const auto place = mapping.database_pattern ? std::string::npos : expected.find(kGroup);
    if (place != std::string::npos) {
      if (!found->group) return false;
      expected.replace(place, kGroup.size(), *found->group);
      substituted = true;
    }
  } else if (mapping.system_user != system_user) {
    return false;
  }
  // What the system user put in is a name, whatever it looks like.
  if (substituted) return expected == database_user;
  if (mapping.all_database_users) return true;
  if (mapping.database_pattern) return mapping.database_pattern->matches(database_user);
  return expected == database_user;
}

}  // namespace

IdentMaps parse_ident_maps(std::string_view text, const std::string& file, const AuthFiles& files) {
  auto read = read_auth_text(text, file, files);
  IdentMaps out;
  out.problems = std::move(read.problems);
  for (const auto& line : read.lines) {
    IdentMapping mapping;
    mapping.file = line.file;
    mapping.line = line.line;
    if (auto reason = read_mapping(line, mapping)) {
      out.problems.push_back({line.file, line.line, {}, std::move(*reason)});
    } else {
      out.mappings.push_back(std::move(mapping));
    }
  }
  sort_problems(out.problems);
  return out;
}

bool map_allows(const IdentMaps& maps, std::string_view map, std::string_view system_user,
                std::string_view database_user) {
  if (map.empty()) return system_user == database_user;
  return std::any_of(maps.mappings.begin(), maps.mappings.end(), [&](const IdentMapping& mapping) {
    return mapping.map == map && allows(mapping, system_user, database_user);
  });
}

}  // namespace pgweir::core
