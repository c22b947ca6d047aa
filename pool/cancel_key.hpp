// Cancel keys that say whose they are. A process with a peer id puts it into the keys of its clients, so that another
// one which receives the request knows where to pass it on; the layout is PgBouncer's, so that both may be peers of
// each other. The eight bytes as a number, the first byte sent being the highest:
//
//   byte  0        1        2        3 4 5 6    7
//         0rrrrrrr iiiiiiii IIIIIIII rrrrrrrr…  rrrrrrtt
//
// i: low byte of the peer id, I: high byte, t: how often the request may still be passed on, r: random, 45 bits.
#pragma once

#include <cstdint>

namespace pgweir::pool::cancel_key {

inline constexpr std::uint64_t kHopsMask = 3;

/// Makes eight random bytes a key; `peer` 0: of a process without peers, 63 random bits.
[[nodiscard]] constexpr std::uint64_t make(std::uint64_t random, std::uint16_t peer) {
  std::uint64_t key = random & ~(std::uint64_t{1} << 63);  // some drivers keep the pid in a signed integer
  if (peer == 0) return key;
  key &= ~(std::uint64_t{0xFFFF} << 40);
  key |= std::uint64_t{peer & 0xFFU} << 48;
  key |= std::uint64_t{static_cast<std::uint8_t>(peer >> 8)} << 40;
  return key | kHopsMask;
}

[[nodiscard]] constexpr std::uint16_t peer(std::uint64_t key) {
  return static_cast<std::uint16_t>(((key >> 48) & 0xFF) | (((key >> 40) & 0xFF) << 8));
}

/// How often a request with this key may still be passed on.
[[nodiscard]] constexpr std::uint64_t hops(std::uint64_t key) {
  return key & kHopsMask;
}

/// The key as the client was told it, before anybody passed it on.
[[nodiscard]] constexpr std::uint64_t original(std::uint64_t key) {
  return key | kHopsMask;
}

/// The key as the next process gets it. `hops` must not be 0.
[[nodiscard]] constexpr std::uint64_t passed_on(std::uint64_t key) {
  return key - 1;
}

}  // namespace pgweir::pool::cancel_key
