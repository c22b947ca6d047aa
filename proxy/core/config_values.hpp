// Turns the text of one value into a typed value, and back. Every parser takes the whole text or refuses it with a
// reason that says what would have been right; nothing is guessed and nothing is silently 0, as it is with atoi().
#pragma once

#include <boost/system/result.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "proxy/core/config.hpp"

namespace pgweir::core {

/// A word of a file that stands for a value.
template <typename Value>
struct Word {
  std::string_view text;
  Value value;
};

/// The value, or what would be right ("expected ..., got ...").
template <typename T>
using Parsed = boost::system::result<T, std::string>;

/// The text in quotation marks, shortened and with control characters made visible, fit for a message.
[[nodiscard]] std::string quoted(std::string_view text);
/// Compares as PgBouncer does for words: letters without regard to case, ASCII only.
[[nodiscard]] bool equal_ignoring_case(std::string_view a, std::string_view b);
/// ` (did you mean "x"?)` with the nearest known name, or nothing if none is near.
[[nodiscard]] std::string did_you_mean(std::string_view name, std::span<const std::string_view> known);

/// As C's strtol() with base 0: decimal, 0x1f, 0777.
[[nodiscard]] Parsed<std::int64_t> parse_integer(std::string_view text, std::int64_t min, std::int64_t max);
/// Decimal only, as in connection strings.
[[nodiscard]] Parsed<int> parse_decimal(std::string_view text, int min, int max);
[[nodiscard]] Parsed<bool> parse_bool(std::string_view text);
/// A number of seconds with an optional fraction and without a unit.
[[nodiscard]] Parsed<Duration> parse_seconds(std::string_view text);
/// A number with one of PostgreSQL's units (us, ms, s, min, h, d); without a unit it counts `default_unit`s.
[[nodiscard]] Parsed<Duration> parse_duration(std::string_view text, std::string_view default_unit, Duration min,
                                              Duration max);
[[nodiscard]] Parsed<TlsProtocols> parse_tls_protocols(std::string_view text);

enum class ListForm {
  Words,   ///< separated by commas or blanks
  Commas,  ///< separated by commas, blanks around an item removed
};
[[nodiscard]] NameList parse_list(std::string_view text, ListForm form);

/// One of the words of the enumeration, in any case. Defined for the enumerations of config.hpp.
template <typename Enum>
[[nodiscard]] Parsed<Enum> parse_word(std::string_view text);

/// Seconds as C's %g prints them.
[[nodiscard]] std::string format_seconds(Duration value);
/// The number with the largest of PostgreSQL's units that keeps it whole: "500ms", "30s".
[[nodiscard]] std::string format_duration(Duration value);

}  // namespace pgweir::core
