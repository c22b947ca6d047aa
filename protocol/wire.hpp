// Big-endian loads and stores, and the view type of the codec. Follows "Message Data Types" of the PostgreSQL manual.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace pgweir::protocol {

/// Bytes owned by somebody else. Valid until the owner's next read, append or compaction; never stored in a container.
/// A string_view of char, since most of what a proxy looks at is text.
using ByteView = std::string_view;

/// The length that stands for NULL in Bind, DataRow and the like.
inline constexpr std::int32_t kNullLength = -1;

[[nodiscard]] inline std::uint16_t load_u16(const char* p) {
  const auto* u = reinterpret_cast<const unsigned char*>(p);
  return static_cast<std::uint16_t>((u[0] << 8) | u[1]);
}

[[nodiscard]] inline std::uint32_t load_u32(const char* p) {
  std::uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_bswap32(v);
}

[[nodiscard]] inline std::uint64_t load_u64(const char* p) {
  std::uint64_t v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_bswap64(v);
}

inline void store_u16(char* p, std::uint16_t v) {
  v = __builtin_bswap16(v);
  std::memcpy(p, &v, sizeof v);
}

inline void store_u32(char* p, std::uint32_t v) {
  v = __builtin_bswap32(v);
  std::memcpy(p, &v, sizeof v);
}

inline void store_u64(char* p, std::uint64_t v) {
  v = __builtin_bswap64(v);
  std::memcpy(p, &v, sizeof v);
}

/// Type byte and length word that start every message but the first of a client.
inline constexpr std::size_t kHeaderSize = 5;
/// What PostgreSQL and PgBouncer accept as a start-up packet, length word included.
inline constexpr std::size_t kStartupPacketMax = 65535;

}  // namespace pgweir::protocol
