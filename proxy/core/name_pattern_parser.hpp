// The grammar of name_pattern.hpp: pattern text to a tree of nodes. Used by NamePattern::compile() only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/core/name_pattern.hpp"

namespace pgweir::core {

struct PatternNode {
  enum class Kind : std::uint8_t { Character, Any, Set, Start, End, Sequence, Alternatives, Group, Repeat };
  Kind kind = Kind::Sequence;
  std::uint32_t value = 0;            ///< the character, or the index of the set
  std::vector<PatternNode> children;  ///< one for Group and Repeat
  int group = 0;                      ///< Group: its number from 1, 0 if it does not capture
  int min = 0;                        ///< Repeat
  std::optional<int> max;             ///< Repeat: empty for no limit
  bool greedy = true;
};

struct ParsedPattern {
  PatternNode root;
  std::vector<NamePattern::CharacterSet> sets;
  int groups = 0;
  std::string error;  ///< empty: the pattern is good
};

[[nodiscard]] ParsedPattern parse_pattern(std::string_view pattern);

/// UTF-8 to code points. A byte that is not part of a valid sequence becomes a value beyond Unicode, unlike any other.
[[nodiscard]] std::vector<std::uint32_t> decode_utf8(std::string_view text);

}  // namespace pgweir::core
