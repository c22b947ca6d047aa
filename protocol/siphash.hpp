// SipHash-2-4 with 128 bits of output (Aumasson, Bernstein): a keyed hash short enough for names and strong enough that
// nobody who does not know the process's key can make two statements share one.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace pgweir::protocol {

struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
};

struct Hash128Hasher {
  std::size_t operator()(const Hash128& h) const noexcept { return static_cast<std::size_t>(h.low); }
};

using HashKey = std::array<std::uint64_t, 2>;

/// Incremental, so that several fields can be hashed without being joined. Feed lengths of variable parts as well,
/// otherwise ("ab","c") and ("a","bc") are the same.
class SipHash128 {
 public:
  explicit SipHash128(const HashKey& key)
      : v0_(key[0] ^ 0x736f6d6570736575ULL),
        v1_(key[1] ^ 0x646f72616e646f6dULL ^ 0xee),
        v2_(key[0] ^ 0x6c7967656e657261ULL),
        v3_(key[1] ^ 0x7465646279746573ULL) {}

  void add(std::string_view data) {
    total_ += data.size();
    const char* p = data.data();
    std::size_t n = data.size();
    while (n > 0) {
      if (fill_ == 0 && n >= 8) {
        std::uint64_t word;
        std::memcpy(&word, p, 8);
        absorb(word);
        p += 8;
        n -= 8;
        continue;
      }
      partial_ |= std::uint64_t{static_cast<unsigned char>(*p)} << (8 * fill_);
      ++p;
      --n;
      if (++fill_ == 8) {
        absorb(partial_);
        partial_ = 0;
        fill_ = 0;
      }
    }
  }

  void add_number(std::uint64_t value) {
    char bytes[8];
    std::memcpy(bytes, &value, sizeof bytes);
    add({bytes, sizeof bytes});
  }

  [[nodiscard]] Hash128 finish() {
    absorb(partial_ | (std::uint64_t{total_ & 0xff} << 56));
    v2_ ^= 0xee;
    for (int i = 0; i < 4; ++i) round();
    Hash128 result;
    result.low = v0_ ^ v1_ ^ v2_ ^ v3_;
    v1_ ^= 0xdd;
    for (int i = 0; i < 4; ++i) round();
    result.high = v0_ ^ v1_ ^ v2_ ^ v3_;
    return result;
  }

 private:
  void absorb(std::uint64_t word) {
    v3_ ^= word;
    round();
    round();
    v0_ ^= word;
  }

  void round() {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v2_ = std::rotl(v2_, 32);
  }

  std::uint64_t v0_, v1_, v2_, v3_;
  std::uint64_t partial_ = 0;
  std::uint64_t total_ = 0;
  int fill_ = 0;
};

}  // namespace pgweir::protocol
