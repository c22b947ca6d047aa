#include <catch2/catch.hpp>

#include "router/lsn.hpp"

using namespace pgweir::router;

TEST_CASE("positions are read and written as PostgreSQL does") {
  CHECK(parse_lsn("0/0") == Lsn{0});
  CHECK(parse_lsn("16/B374D848") == Lsn{0x16B374D848});
  CHECK(parse_lsn("ffffffff/FFFFFFFF") == Lsn{0xFFFFFFFFFFFFFFFF});
  CHECK(to_string(Lsn{0x16B374D848}) == "16/B374D848");
  CHECK(to_string(Lsn{0}) == "0/0");
  CHECK(to_string(Lsn{0xFFFFFFFFFFFFFFFF}) == "FFFFFFFF/FFFFFFFF");
  CHECK(to_string(Lsn{0x100000001}) == "1/1");
}

TEST_CASE("what is no position is refused") {
  for (const char* text : {"", "/", "1/", "/1", "1", "g/1", "1/g", "123456789/0", "0/123456789", "1/2/3", " 1/2",
                           "1/2 ", "-1/2", "+1/2", "0x1/2"}) {
    INFO(text);
    CHECK_FALSE(parse_lsn(text));
  }
}

TEST_CASE("positions are ordered, and distances are not negative") {
  CHECK(*parse_lsn("1/0") > *parse_lsn("0/FFFFFFFF"));
  CHECK(bytes_behind(Lsn{100}, Lsn{130}) == 30);
  CHECK(bytes_behind(Lsn{130}, Lsn{100}) == 0);
  CHECK(bytes_behind(*parse_lsn("0/FFFFFFFF"), *parse_lsn("1/0")) == 1);
}

TEST_CASE("an insert position at the start of a page is the end of the record before it") {
  constexpr std::uint64_t kPage = 8192, kSegment = 16 << 20U;
  CHECK(end_of_record(Lsn{kSegment * 3 + 40}, kPage, kSegment) == Lsn{kSegment * 3});
  CHECK(end_of_record(Lsn{kSegment * 3 + kPage + 24}, kPage, kSegment) == Lsn{kSegment * 3 + kPage});
  // 40 bytes into another page a record may end.
  CHECK(end_of_record(Lsn{kPage + 40}, kPage, kSegment) == Lsn{kPage + 40});
  CHECK(end_of_record(Lsn{kPage + 32}, kPage, kSegment) == Lsn{kPage + 32});
  CHECK(end_of_record(Lsn{kPage}, kPage, kSegment) == Lsn{kPage});
  CHECK(end_of_record(Lsn{24}, 0, 0) == Lsn{24});
}
