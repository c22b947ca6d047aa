// Implements ip_address.hpp. The text forms are those of RFC 4291, section 2.2, and of inet_pton() for IPv4: four
// decimal numbers without leading zeros, since some systems take those for octal.
#include "proxy/core/ip_address.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

namespace pgweir::core {
namespace {

constexpr std::size_t kV4Bytes = 4;
constexpr std::size_t kV6Bytes = 16;
constexpr std::size_t kMappedBytes = 12;  // 10 zero bytes and ff ff before the IPv4 address

std::optional<unsigned> number(std::string_view text, int base, std::size_t max_digits) {
  unsigned value = 0;
  if (text.empty() || text.size() > max_digits) return std::nullopt;
  const auto* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value, base);
  if (result.ec != std::errc{} || result.ptr != end) return std::nullopt;
  return value;
}

bool parse_v4(std::string_view text, std::uint8_t* out) {
  for (std::size_t i = 0; i < kV4Bytes; ++i) {
    const auto dot = text.find('.');
    if ((dot == std::string_view::npos) != (i == kV4Bytes - 1)) return false;
    const auto part = text.substr(0, dot);
    const auto value = number(part, 10, 3);
    if (!value || *value > 255 || (part.size() > 1 && part.front() == '0')) return false;
    out[i] = static_cast<std::uint8_t>(*value);
    text.remove_prefix(std::min(text.size(), part.size() + 1));
  }
  return true;
}

// The groups between colons on one side of "::", appended to `out`. Only the last may be an IPv4 address.
bool parse_groups(std::string_view text, bool is_last_side, std::vector<std::uint8_t>& out) {
  while (!text.empty()) {
    const auto colon = text.find(':');
    const auto part = text.substr(0, colon);
    if (colon == std::string_view::npos && is_last_side && part.find('.') != std::string_view::npos) {
      out.resize(out.size() + kV4Bytes);
      return parse_v4(part, out.data() + out.size() - kV4Bytes);
    }
    const auto value = number(part, 16, 4);
    if (!value || out.size() >= kV6Bytes) return false;
    out.push_back(static_cast<std::uint8_t>(*value >> 8));
    out.push_back(static_cast<std::uint8_t>(*value & 0xff));
    if (colon == std::string_view::npos) return true;
    text.remove_prefix(colon + 1);
    if (text.empty()) return false;  // ends in a single colon
  }
  return true;
}

bool parse_v6(std::string_view text, std::array<std::uint8_t, kV6Bytes>& out) {
  std::vector<std::uint8_t> head;
  std::vector<std::uint8_t> tail;
  const auto gap = text.find("::");
  const bool has_gap = gap != std::string_view::npos;
  if (!parse_groups(text.substr(0, gap), !has_gap, head)) return false;
  if (has_gap && !parse_groups(text.substr(gap + 2), true, tail)) return false;
  // A gap stands for at least one group.
  if (has_gap ? head.size() + tail.size() > kV6Bytes - 2 : head.size() != kV6Bytes) return false;
  out.fill(0);
  std::copy(head.begin(), head.end(), out.begin());
  std::copy(tail.begin(), tail.end(), out.end() - static_cast<std::ptrdiff_t>(tail.size()));
  return true;
}

bool is_mapped(const IpAddress& address) {
  const auto& b = address.bytes;
  return address.is_v6 && std::all_of(b.begin(), b.begin() + 10, [](auto byte) { return byte == 0; }) &&
         b[10] == 0xff && b[11] == 0xff;
}

IpAddress last_four(const IpAddress& address) {
  IpAddress out;
  std::copy(address.bytes.begin() + kMappedBytes, address.bytes.end(), out.bytes.begin());
  return out;
}

// As written: a mapped address stays what it is, since its mask counts 128 bits.
std::optional<IpAddress> parse_raw(std::string_view text) {
  IpAddress out;
  if (parse_v4(text, out.bytes.data())) return out;
  out = {};
  out.is_v6 = true;
  return parse_v6(text, out.bytes) ? std::optional(out) : std::nullopt;
}

IpAddress mask_of(unsigned bits, bool is_v6) {
  IpAddress mask;
  mask.is_v6 = is_v6;
  for (std::size_t i = 0; bits > 0; ++i) {
    const auto here = std::min(bits, 8U);
    mask.bytes[i] = static_cast<std::uint8_t>(0xff00U >> here);
    bits -= here;
  }
  return mask;
}

// A network of mapped addresses only is a network of IPv4.
IpNetwork canonical(const IpAddress& address, const IpAddress& mask) {
  const bool fixes_mapping =
      std::all_of(mask.bytes.begin(), mask.bytes.begin() + kMappedBytes, [](auto byte) { return byte == 0xff; });
  if (is_mapped(address) && fixes_mapping) return {last_four(address), last_four(mask)};
  return {address, mask};
}

}  // namespace

std::optional<IpAddress> IpAddress::from_bytes(std::span<const std::uint8_t> bytes) {
  if (bytes.size() != kV4Bytes && bytes.size() != kV6Bytes) return std::nullopt;
  IpAddress out;
  out.is_v6 = bytes.size() == kV6Bytes;
  std::copy(bytes.begin(), bytes.end(), out.bytes.begin());
  return is_mapped(out) ? last_four(out) : out;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  const auto raw = parse_raw(text);
  return raw && is_mapped(*raw) ? last_four(*raw) : raw;
}

bool IpNetwork::contains(const IpAddress& other) const {
  if (address.is_v6 != other.is_v6) return false;
  for (std::size_t i = 0; i < kV6Bytes; ++i) {
    if (((address.bytes[i] ^ other.bytes[i]) & mask.bytes[i]) != 0) return false;
  }
  return true;
}

bool IpNetwork::has_host_bits() const {
  for (std::size_t i = 0; i < kV6Bytes; ++i) {
    if ((address.bytes[i] & ~mask.bytes[i]) != 0) return true;
  }
  return false;
}

Parsed<IpNetwork> parse_cidr(std::string_view text) {
  const auto slash = text.find('/');
  const auto address = parse_raw(text.substr(0, slash));
  if (!address || slash == std::string_view::npos) {
    return fmt::format("expected an address such as 10.0.0.0/8 or fe80::/10, got {}", quoted(text));
  }
  const auto bits = number(text.substr(slash + 1), 10, 3);
  const unsigned max = address->is_v6 ? 128 : 32;
  if (!bits || *bits > max) return fmt::format("expected 0 to {} bits after the slash, got {}", max, quoted(text));
  return canonical(*address, mask_of(*bits, address->is_v6));
}

Parsed<IpNetwork> parse_address_and_mask(std::string_view address, std::string_view mask) {
  const auto base = parse_raw(address);
  if (!base) return fmt::format("expected an IP address, got {}", quoted(address));
  const auto bits = parse_raw(mask);
  if (!bits) {
    return fmt::format("expected a mask after the address, as in {}/{} or a column of its own, got {}", address,
                       base->is_v6 ? 128 : 32, quoted(mask));
  }
  if (base->is_v6 != bits->is_v6) {
    return fmt::format("expected an address and a mask of the same kind, got {} and {}", quoted(address), quoted(mask));
  }
  return canonical(*base, *bits);
}

}  // namespace pgweir::core
