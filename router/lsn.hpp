// A position in PostgreSQL's write-ahead log, written as two hexadecimal numbers: 16/B374D848. Positions are comparable
// only on one timeline.
#pragma once

#include <charconv>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pgweir::router {

struct Lsn {
  std::uint64_t value = 0;  ///< 0 is no position

  friend auto operator<=>(const Lsn&, const Lsn&) = default;
};

namespace detail {
inline std::optional<std::uint64_t> parse_hex32(std::string_view text) {
  std::uint32_t value = 0;
  if (text.empty() || text.size() > 8) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}
}  // namespace detail

/// nullopt for everything but `X/X`, one to eight hexadecimal digits each.
[[nodiscard]] inline std::optional<Lsn> parse_lsn(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto high = detail::parse_hex32(text.substr(0, slash));
  const auto low = detail::parse_hex32(text.substr(slash + 1));
  if (!high || !low) return std::nullopt;
  return Lsn{*high << 32U | *low};
}

[[nodiscard]] inline std::string to_string(Lsn lsn) {
  char digits[20];
  char* end = std::to_chars(digits, digits + 8, lsn.value >> 32U, 16).ptr;
  *end++ = '/';
  end = std::to_chars(end, end + 8, lsn.value & 0xFFFFFFFFU, 16).ptr;
  for (char* c = digits; c != end; ++c) {
    if (*c >= 'a' && *c <= 'f') *c = static_cast<char>(*c - 'a' + 'A');
  }
  return {digits, end};
}

/// Where the last record before an insert position ends. At the start of a page that position lies behind the page's
/// header (24 bytes, 40 at the start of a segment), which no replay position reaches before the next record comes.
[[nodiscard]] inline Lsn end_of_record(Lsn insert, std::uint64_t page_size, std::uint64_t segment_size) {
  constexpr std::uint64_t kHeader = 24, kLongHeader = 40;
  if (segment_size > 0 && insert.value % segment_size == kLongHeader) return {insert.value - kLongHeader};
  if (page_size > 0 && insert.value % page_size == kHeader) return {insert.value - kHeader};
  return insert;
}

/// How far `behind` is behind `ahead`, in bytes; 0 if it is not.
[[nodiscard]] inline std::uint64_t bytes_behind(Lsn behind, Lsn ahead) {
  return ahead > behind ? ahead.value - behind.value : 0;
}

}  // namespace pgweir::router
