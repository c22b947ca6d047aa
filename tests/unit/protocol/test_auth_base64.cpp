// Base64: the vectors of RFC 4648 section 10 and everything strictness refuses.
#include <catch2/catch.hpp>
#include <random>

#include "protocol/base64.hpp"

using namespace pgweir::protocol;

TEST_CASE("base64 follows the vectors of RFC 4648", "[auth][base64]") {
  const std::pair<std::string, std::string> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"},
                                                         {"\xfb\xff\xbf", "+/+/"}};
  for (const auto& [raw, text] : vectors) {
    CAPTURE(raw, text);
    CHECK(base64_encode(raw) == text);
    CHECK(base64_decode(text) == raw);
  }
}

TEST_CASE("base64 survives the round trip for every length and byte", "[auth][base64]") {
  std::mt19937 random(7);
  for (std::size_t length = 0; length < 100; ++length) {
    std::string raw;
    for (std::size_t i = 0; i < length; ++i) raw += static_cast<char>(random());
    CHECK(base64_decode(base64_encode(raw)) == raw);
  }
}

TEST_CASE("base64 refuses every other spelling", "[auth][base64]") {
  using namespace std::string_literals;
  for (const std::string& text : {"Z"s,      "Zg"s,    "Zg="s,      "Zg==="s, "Zm9vYg"s, "Zg==Zg=="s,   "Zm 9v"s,
                                  "Zm9v\n"s, " Zm9v"s, "Zm9v    "s, "Zm-_"s,  "Z==="s,   "===="s,       "="s,
                                  "=Zm9"s,   "Zm=v"s,  "Zh=="s,     "Zm9="s,  "Zm9\0"s,  "Zm\xc3\xa9"s, "Zm9v===="s}) {
    CAPTURE(text);
    CHECK_FALSE(base64_decode(text));
  }
}
