// SipHash-2-4 with 128 bits against the reference vectors of its authors (key 00..0f, input 00, 01, ..).
#include "protocol/siphash.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace pgweir::protocol;

namespace {

// Key bytes 00 01 .. 0f.
constexpr HashKey kKey{0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};

std::string counting(std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text.push_back(static_cast<char>(i));
  return text;
}

std::string hex(const Hash128& hash) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string text;
  for (const std::uint64_t word : {hash.low, hash.high}) {
    for (int i = 0; i < 8; ++i) {
      const auto byte = static_cast<unsigned char>(word >> (8 * i));
      text.push_back(digits[byte >> 4]);
      text.push_back(digits[byte & 15]);
    }
  }
  return text;
}

struct Vector {
  std::size_t size;
  const char* digest;
};

const Vector kVectors[] = {
    {0, "A3817F04BA25A8E66DF67214C7550293"},  {1, "DA87C1D86B99AF44347659119B22FC45"},
    {2, "8177228DA4A45DC7FCA38BDEF60AFFE4"},  {3, "9C70B60C5267A94E5F33B6B02985ED51"},
    {7, "A1F1EBBED8DBC153C0B84AA61FF08239"},  {8, "3B62A9BA6258F5610F83E264F31497B4"},
    {9, "264499060AD9BAABC47F8B02BB6D71ED"},  {15, "5493E99933B0A8117E08EC0F97CFC3D9"},
    {16, "6EE2A4CA67B054BBFD3315BF85230577"}, {17, "473D06E8738DB89854C066C47AE47740"},
    {31, "2939B0183223FAFC1723DE4F52C43D35"}, {32, "7C3956CA5EEAFC3E363E9D556546EB68"},
    {63, "5150D1772F50834A503E069A973FBD7C"},
};

}  // namespace

TEST_CASE("SipHash128 gives the reference digests", "[siphash]") {
  for (const Vector& vector : kVectors) {
    SipHash128 hash(kKey);
    hash.add(counting(vector.size));
    CHECK(hex(hash.finish()) == vector.digest);
  }
}

TEST_CASE("SipHash128 does not depend on how the input is cut", "[siphash]") {
  for (const Vector& vector : kVectors) {
    const std::string input = counting(vector.size);
    for (std::size_t cut = 0; cut <= input.size(); ++cut) {
      SipHash128 hash(kKey);
      hash.add(std::string_view(input).substr(0, cut));
      hash.add(std::string_view(input).substr(cut));
      CHECK(hex(hash.finish()) == vector.digest);
    }
    SipHash128 hash(kKey);
    for (const char c : input) hash.add(std::string_view(&c, 1));
    CHECK(hex(hash.finish()) == vector.digest);
  }
}

TEST_CASE("SipHash128 depends on the key and on numbers", "[siphash]") {
  SipHash128 one(kKey), other({kKey[0], kKey[1] ^ 1});
  one.add("x");
  other.add("x");
  CHECK_FALSE(one.finish() == other.finish());

  SipHash128 number(kKey), bytes(kKey);
  number.add_number(0x0706050403020100ULL);
  bytes.add(counting(8));
  CHECK(number.finish() == bytes.finish());
}
