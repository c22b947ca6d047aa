// SASLprep against RFC 4013 and, exhaustively, against an independent implementation (Python's stringprep and
// unicodedata modules), whose output is kept here as digests.
#include <catch2/catch.hpp>

#include "protocol/auth_secret.hpp"
#include "protocol/saslprep.hpp"
#include "proxy/io/openssl_crypto.hpp"

using namespace pgweir::protocol;

namespace {

std::string utf8(char32_t code) {
  const auto byte = [](char32_t value) { return static_cast<char>(value); };
  if (code < 0x80) return {byte(code)};
  if (code < 0x800) return {byte(0xC0 | (code >> 6)), byte(0x80 | (code & 0x3F))};
  if (code < 0x10000) return {byte(0xE0 | (code >> 12)), byte(0x80 | ((code >> 6) & 0x3F)), byte(0x80 | (code & 0x3F))};
  return {byte(0xF0 | (code >> 18)), byte(0x80 | ((code >> 12) & 0x3F)), byte(0x80 | ((code >> 6) & 0x3F)),
          byte(0x80 | (code & 0x3F))};
}

void append_result(std::string& out, const std::string& password) {
  out += saslprep(password).value_or("-");
  out += '\n';
}

std::string hex_sha256(const std::string& text) {
  const auto digest = pgweir::io::OpensslCrypto().sha256(text);
  std::string out;
  for (const unsigned char byte : digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    out += kDigits[byte >> 4];
    out += kDigits[byte & 0xF];
  }
  return out;
}

}  // namespace

TEST_CASE("saslprep gives the examples of RFC 4013 section 3", "[auth][saslprep]") {
  CHECK(saslprep("I\u00ADX") == "IX");
  CHECK(saslprep("user") == "user");
  CHECK(saslprep("USER") == "USER");
  CHECK(saslprep("\u00AA") == "a");
  CHECK(saslprep("\u2168") == "IX");
  CHECK_FALSE(saslprep("\u06271"));
  // The RFC prohibits U+0007; PostgreSQL leaves pure ASCII alone and sees it only next to something else.
  CHECK(saslprep("\a") == "\a");
  CHECK_FALSE(saslprep("\a\u00E4"));
}

TEST_CASE("saslprep maps, normalises and checks directions", "[auth][saslprep]") {
  CHECK(saslprep("") == "");
  CHECK(saslprep("p\u00A0\uFB01") == "p fi");
  CHECK(saslprep("a\u200Bb") == "a b");
  CHECK(saslprep("e\u0301") == "\u00E9");
  CHECK(saslprep("q\u0307\u0323") == "q\u0323\u0307");
  CHECK(saslprep("\u1112\u1161\u11AB") == "\uD55C");
  CHECK(saslprep("\u06271\u0628") == "\u06271\u0628");
  CHECK_FALSE(saslprep("\u0627a\u0628"));
  CHECK_FALSE(saslprep("\u00AD"));
  CHECK_FALSE(saslprep("\u0221"));      // unassigned in Unicode 3.2
  CHECK_FALSE(saslprep("\U0001F600"));  // likewise
  CHECK_FALSE(saslprep("\uE000"));      // private use
  CHECK_FALSE(saslprep("\uFFFD"));
}

TEST_CASE("saslprep refuses malformed UTF-8", "[auth][saslprep]") {
  for (const char* text :
       {"\x80", "a\xFF", "\xC3", "\xC3(", "\xC0\xAF", "\xC1\x81", "\xE0\x80\xAF", "\xE2\x82", "\xED\xA0\x80",
        "\xF0\x80\x80\xAF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xF0\x9F\x98"}) {
    CAPTURE(text);
    CHECK_FALSE(saslprep(text));
    CHECK(prepare_password(text) == text);
  }
}

TEST_CASE("passwords that cannot be prepared are used as they are", "[auth][saslprep]") {
  CHECK(prepare_password("\u2168") == "IX");
  CHECK(prepare_password("\u06271") == "\u06271");
  CHECK(prepare_password("\u00AD") == "\u00AD");
}

TEST_CASE("saslprep agrees with another implementation on every code point", "[auth][saslprep]") {
  std::string results;
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code < 0xD800 || code > 0xDFFF) append_result(results, utf8(code));
  }
  CHECK(hex_sha256(results) == "6999c2a61734541f23c67ac15a7c91d103b838d40c2d36e79a0b6033bb15fc91");
}

TEST_CASE("saslprep agrees with another implementation on combining marks and Hangul", "[auth][saslprep]") {
  std::string marks;
  for (const char base : std::string_view("AEIOUYaeiouyc")) {
    for (char32_t a = 0x300; a < 0x370; ++a) {
      for (char32_t b = 0x300; b < 0x370; ++b) append_result(marks, base + utf8(a) + utf8(b));
    }
  }
  CHECK(hex_sha256(marks) == "6fd321558e5754f974f62445e734f0e70473eba2dd3182bea185dc7ce46ec539");

  std::string syllables;
  for (char32_t lead = 0x1100; lead < 0x1114; ++lead) {
    for (char32_t vowel = 0x1160; vowel < 0x1177; ++vowel) {
      for (char32_t tail = 0x11A6; tail < 0x11C4; ++tail)
        append_result(syllables, utf8(lead) + utf8(vowel) + utf8(tail));
    }
  }
  CHECK(hex_sha256(syllables) == "66735a1b0c74c200f770224a51995bbb69bbddb216241df617e3c5ee92407d03");
}
