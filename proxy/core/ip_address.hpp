// IP addresses and networks as values, read from text without the system's resolver. An IPv4 address that came in
// through an IPv6 socket (::ffff:a.b.c.d) is the IPv4 address: rules for IPv4 must see it, rules for IPv6 must not.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "proxy/core/config_values.hpp"

namespace pgweir::core {

struct IpAddress {
  bool is_v6 = false;
  std::array<std::uint8_t, 16> bytes{};  ///< network order; IPv4 uses the first four, the rest is zero

  /// Four or sixteen bytes in network order, as in a socket address; nothing for any other number.
  [[nodiscard]] static std::optional<IpAddress> from_bytes(std::span<const std::uint8_t> bytes);
  /// "10.1.2.3" or "fe80::1", without brackets, port or zone.
  [[nodiscard]] static std::optional<IpAddress> parse(std::string_view text);

  friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

/// An address and the bits of it that count. The other bits of `address` are kept as written and do not matter.
struct IpNetwork {
  IpAddress address;
  IpAddress mask;  ///< of the same kind; need not be a prefix

  [[nodiscard]] bool contains(const IpAddress& other) const;
  /// Whether bits of the address are set that do not count, which is usually a slip of the pen.
  [[nodiscard]] bool has_host_bits() const;
  friend bool operator==(const IpNetwork&, const IpNetwork&) = default;
};

/// `text` is "address/bits".
[[nodiscard]] Parsed<IpNetwork> parse_cidr(std::string_view text);
/// The two columns of the older form.
[[nodiscard]] Parsed<IpNetwork> parse_address_and_mask(std::string_view address, std::string_view mask);

}  // namespace pgweir::core
