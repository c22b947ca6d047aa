// Regular expressions in pg_hba.conf and pg_ident.conf: the commonly used part of PostgreSQL's advanced regular
// expressions (manual, "POSIX Regular Expressions"). Names come from clients that have not logged in yet, so a match
// takes time proportional to the name's length, whatever the pattern; std::regex can take exponential time and stack.
// What is not supported (back references, lookaround, word constraints, embedded options) is refused, never ignored.
#pragma once

#include <bitset>
#include <boost/system/result.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgweir::core {

/// A compiled pattern. Immutable, so any number of threads may match with it.
class NamePattern {
 public:
  static constexpr std::size_t kMaxLength = 1024;        ///< bytes of a pattern
  static constexpr std::size_t kMaxInstructions = 4000;  ///< after counted repetitions are written out

  /// `pattern` without the leading slash. The error says what would be right.
  [[nodiscard]] static boost::system::result<NamePattern, std::string> compile(std::string_view pattern);

  /// Whether the pattern occurs anywhere in `name`; anchors are the pattern's business. `name` is taken as UTF-8, an
  /// invalid byte counts as a character of its own.
  [[nodiscard]] bool matches(std::string_view name) const;

  struct Match {
    std::optional<std::string> group;  ///< what the first parentheses matched; empty if they took no part
  };
  /// The leftmost match; among several there, the one that the order of alternatives and greediness prefers.
  [[nodiscard]] std::optional<Match> find(std::string_view name) const;

  /// How many capturing parentheses there are.
  [[nodiscard]] int groups() const { return groups_; }

  struct CharacterSet {
    bool negated = false;
    std::bitset<128> ascii;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges;  ///< inclusive, for what lies beyond ASCII

    [[nodiscard]] bool contains(std::uint32_t c) const;
  };
  struct Instruction {
    enum class Kind : std::uint8_t { Character, Any, Set, Start, End, Split, Jump, OpenGroup, CloseGroup, Match };
    Kind kind = Kind::Match;
    std::uint32_t value = 0;   ///< the character, the index of the set, or where to go first
    std::uint32_t second = 0;  ///< Split: where to go otherwise
  };

 private:
  NamePattern() = default;

  std::vector<Instruction> program_;
  std::vector<CharacterSet> sets_;
  int groups_ = 0;
};

}  // namespace pgweir::core
