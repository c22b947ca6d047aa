// Which database users a system user may log in as, as `auth_ident_file` says (PostgreSQL manual, "User Name Maps").
// The system user is the owner of the process behind a Unix socket (peer) or the name in a TLS certificate (cert).
// Threads: the maps are never changed once they are built, so any number of threads may ask.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/core/auth_file.hpp"
#include "proxy/core/name_pattern.hpp"

namespace pgweir::core {

/// One line. Of a name and its pattern, the pattern counts if there is one.
struct IdentMapping {
  std::string file;
  int line = 0;
  std::string map;
  std::string system_user;
  std::optional<NamePattern> system_pattern;
  std::string database_user;  ///< with a system pattern, the first \1 stands for what its first group matched
  std::optional<NamePattern> database_pattern;
  bool all_database_users = false;
};

struct IdentMaps {
  std::vector<IdentMapping> mappings;
  std::vector<Problem> problems;  ///< lines that are not among the mappings, and why
};

/// `file` is used in problems, and as the place beside which relative names are looked for.
[[nodiscard]] IdentMaps parse_ident_maps(std::string_view text, const std::string& file, const AuthFiles& files);

/// Whether a line of the map `map` allows it. Without a map (an empty name) the two names must be equal; a map without
/// lines allows nothing.
[[nodiscard]] bool map_allows(const IdentMaps& maps, std::string_view map, std::string_view system_user,
                              std::string_view database_user);

}  // namespace pgweir::core
