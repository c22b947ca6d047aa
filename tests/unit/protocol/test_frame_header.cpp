// The five-byte header: every split point, and the limits of the length word.
#include <catch2/catch.hpp>
#include <string>

#include "protocol/frame_header.hpp"

namespace pgweir::protocol {
namespace {

constexpr std::uint32_t kMax = 1000;

TEST_CASE("a header is read as soon as five bytes are there, and not before", "[frame_header]") {
  const std::string bytes("Q\x00\x00\x00\x0dSELECT 1\x00", 14);
  for (std::size_t split = 0; split <= bytes.size(); ++split) {
    FrameHeader header{'?', 77};
    const FrameStatus status = read_frame_header(ByteView(bytes).substr(0, split), kMax, header);
    INFO("split " << split);
    if (split < 5) {
      CHECK(status == FrameStatus::NeedMore);
      CHECK(header.type == '?');
      CHECK(header.length == 77);
    } else {
      CHECK(status == FrameStatus::Ok);
      CHECK(header.type == 'Q');
      CHECK(header.length == 13);
      CHECK(header.total() == 14);
      CHECK(header.body() == 9);
    }
  }
}

TEST_CASE("a length word below four or above the limit is refused", "[frame_header]") {
  FrameHeader header;
  const auto status_of = [&header](const char* length) {
    return read_frame_header(std::string("d") + std::string(length, 4), kMax, header);
  };
  CHECK(status_of("\x00\x00\x00\x00") == FrameStatus::BadLength);
  CHECK(status_of("\x00\x00\x00\x03") == FrameStatus::BadLength);
  CHECK(header.length == 3);
  CHECK(status_of("\x00\x00\x00\x04") == FrameStatus::Ok);
  CHECK(header.body() == 0);
  CHECK(status_of("\x00\x00\x03\xe8") == FrameStatus::Ok);  // 1000
  CHECK(status_of("\x00\x00\x03\xe9") == FrameStatus::BadLength);
  CHECK(status_of("\x80\x00\x00\x00") == FrameStatus::BadLength);  // negative if read as signed
  CHECK(status_of("\xff\xff\xff\xff") == FrameStatus::BadLength);
}

TEST_CASE("the size of the largest possible message does not wrap around", "[frame_header]") {
  FrameHeader header;
  REQUIRE(read_frame_header(ByteView("d\xff\xff\xff\xff", 5), 0xffffffffU, header) == FrameStatus::Ok);
  CHECK(header.total() == 0x100000000U);
  CHECK(header.body() == 0xfffffffbU);
}

}  // namespace
}  // namespace pgweir::protocol
