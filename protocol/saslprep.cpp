// Map, normalise, prohibit, check directions: the steps of RFC 3454 section 2 with the tables RFC 4013 names.
#include "protocol/saslprep.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "protocol/nfkc.hpp"

namespace pgweir::protocol {
namespace {

struct CodeRange {
  char32_t first;
  char32_t last;
};

#include "protocol/saslprep_tables.inc"

template <std::size_t size>
bool contains(const CodeRange (&ranges)[size], char32_t code) {
  const auto* found = std::upper_bound(std::begin(ranges), std::end(ranges), code,
                                       [](char32_t value, const CodeRange& range) { return value < range.first; });
  return found != std::begin(ranges) && code <= std::prev(found)->last;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Length of the sequence that `lead` opens and the smallest code point that may be spelled that long; 0 if none.
struct SequenceShape {
  std::size_t length;
  char32_t smallest;
};
SequenceShape sequence_shape(unsigned char lead) {
  if (lead < 0x80) return {1, 0};
  if (lead >= 0xC2 && lead <= 0xDF) return {2, 0x80};
  if (lead >= 0xE0 && lead <= 0xEF) return {3, 0x800};
  if (lead >= 0xF0 && lead <= 0xF4) return {4, 0x10000};
  return {0, 0};
}

std::optional<std::u32string> decode_utf8(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto lead = static_cast<unsigned char>(text.front());
    const auto [length, smallest] = sequence_shape(lead);
    if (length == 0 || text.size() < length) return std::nullopt;
    char32_t code = length == 1 ? lead : lead & (0x7Fu >> length);
    for (const char c : text.substr(1, length - 1)) {
      const auto byte = static_cast<unsigned char>(c);
      if ((byte & 0xC0) != 0x80) return std::nullopt;
      code = (code << 6) | (byte & 0x3Fu);
    }
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code < smallest || code > 0x10FFFF || surrogate) return std::nullopt;
    out += code;
    text.remove_prefix(length);
  }
  return out;
}

std::string encode_utf8(std::u32string_view text) {
  std::string out;
  const auto put = [&out](char32_t byte) { out += static_cast<char>(byte); };
  for (const char32_t code : text) {
    if (code < 0x80) {
      put(code);
      continue;
    }
    if (code < 0x800) {
      put(0xC0 | (code >> 6));
    } else if (code < 0x10000) {
      put(0xE0 | (code >> 12));
      put(0x80 | ((code >> 6) & 0x3F));
    } else {
      put(0xF0 | (code >> 18));
      put(0x80 | ((code >> 12) & 0x3F));
      put(0x80 | ((code >> 6) & 0x3F));
    }
    put(0x80 | (code & 0x3F));
  }
  return out;
}

// U+200B stands in both tables; like PostgreSQL we take it for a space.
std::u32string map_codes(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (const char32_t code : text) {
    if (contains(kNonAsciiSpaces, code)) {
      out += U' ';
    } else if (!contains(kMappedToNothing, code)) {
      out += code;
    }
  }
  return out;
}

// RFC 3454 section 6: right-to-left text stands alone, and both its ends are right-to-left.
bool directions_agree(std::u32string_view text) {
  const auto right_to_left = [](char32_t code) { return contains(kRightToLeft, code); };
  const auto left_to_right = [](char32_t code) { return contains(kLeftToRight, code); };
  if (std::none_of(text.begin(), text.end(), right_to_left)) return true;
  if (std::any_of(text.begin(), text.end(), left_to_right)) return false;
  return right_to_left(text.front()) && right_to_left(text.back());
}

}  // namespace

std::optional<std::string> saslprep(std::string_view password) {
  if (is_ascii(password)) return std::string(password);
  const auto decoded = decode_utf8(password);
  if (!decoded) return std::nullopt;
  const std::u32string mapped = map_codes(*decoded);
  if (mapped.empty()) return std::nullopt;
  const auto prohibited = [](char32_t code) { return contains(kProhibited, code); };
  if (std::any_of(mapped.begin(), mapped.end(), prohibited)) return std::nullopt;
  if (!directions_agree(mapped)) return std::nullopt;
  return encode_utf8(normalize_nfkc(mapped));
}

std::string prepare_password(std::string_view password) {
  auto prepared = saslprep(password);
  return prepared ? std::move(*prepared) : std::string(password);
}

}  // namespace pgweir::protocol
