// Strict base64 in both directions.
#include "protocol/base64.hpp"

#include <array>
#include <cstdint>

namespace pgweir::protocol {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::uint8_t kInvalid = 0xFF;

constexpr auto kValues = [] {
  std::array<std::uint8_t, 256> values{};
  values.fill(kInvalid);
  for (std::size_t i = 0; i < kAlphabet.size(); ++i) {
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::uint8_t>(i);
  }
  return values;
}();

std::size_t count_padding(std::string_view text) {
  if (text.ends_with("==")) return 2;
  return text.ends_with('=') ? 1 : 0;
}

}  // namespace

std::string base64_encode(std::string_view raw) {
  std::string out((raw.size() + 2) / 3 * 4, '=');
  char* to = out.data();
  const auto put = [&to](std::uint32_t bits, std::size_t digits) {
    for (std::size_t k = 0; k < digits; ++k) to[k] = kAlphabet[(bits >> (18 - 6 * k)) & 0x3F];
    to += 4;
  };
  const auto byte = [&raw](std::size_t i) -> std::uint32_t { return static_cast<unsigned char>(raw[i]); };
  std::size_t i = 0;
  for (; i + 3 <= raw.size(); i += 3) put(byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2), 4);
  if (raw.size() - i == 2) put(byte(i) << 16 | byte(i + 1) << 8, 3);
  if (raw.size() - i == 1) put(byte(i) << 16, 2);
  return out;
}

std::optional<std::string> base64_decode(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  const std::size_t padding = count_padding(text);
  text.remove_suffix(padding);
  std::string out(text.size() * 3 / 4, '\0');
  char* to = out.data();
  std::uint32_t bits = 0;
  unsigned bit_count = 0;
  for (const char c : text) {
    const std::uint8_t value = kValues[static_cast<unsigned char>(c)];
    if (value == kInvalid) return std::nullopt;
    bits = ((bits << 6) | value) & 0xFFFF;  // at most 5 + 6 bits are pending
    bit_count += 6;
    if (bit_count < 8) continue;
    bit_count -= 8;
    *to++ = static_cast<char>(bits >> bit_count);
  }
  const bool unused_bits_set = (bits & ((1u << bit_count) - 1)) != 0;
  if (unused_bits_set) return std::nullopt;
  return out;
}

}  // namespace pgweir::protocol
