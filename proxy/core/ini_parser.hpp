// The line grammar of pgbouncer.ini: sections, keys, values, comments and %include. It turns text into a flat list of
// items and knows no setting; a broken line becomes an item of its own, so that all mistakes are reported in order.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "proxy/core/config.hpp"

namespace pgweir::core {

struct IniItem {
  enum class Kind {
    Section,  ///< `key` is the name between the brackets
    Entry,    ///< `key` = `value`
    Broken,   ///< `value` says what would be right; `key` is set if it could be read
  };
  Kind kind = Kind::Broken;
  std::string file;
  int line = 0;
  std::string key;
  std::string value;
};

inline constexpr int kMaxIncludeDepth = 10;
/// Bounds the work of files that include each other; PgBouncer's limit on the depth alone would allow 2^10 files.
inline constexpr int kMaxFiles = 500;

/// Reads `path` and everything it includes. The section in force carries on into and out of an included file, which
/// the order of the items expresses.
[[nodiscard]] std::vector<IniItem> parse_ini(const std::string& path, const ReadFile& read_file);

}  // namespace pgweir::core
