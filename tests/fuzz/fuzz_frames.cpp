// A stream of typed messages: cut into the same frames whether it arrives at once or in pieces, and the frames with the
// unfinished rest are all of the stream. The first input byte says how large the pieces are.
#include <string>
#include <vector>

#include "protocol/frame_header.hpp"
#include "tests/fuzz/fuzz_check.hpp"

namespace pgweir::protocol {
namespace {

using fuzz::check;

constexpr std::uint32_t kMaxPacketSize = 4096;

struct Cut {
  std::vector<std::string> messages;
  bool bad_length = false;
  std::string rest;
};

/// Takes complete messages off the front of `cut.rest`.
void take_messages(Cut& cut) {
  std::size_t position = 0;
  while (!cut.bad_length) {
    const ByteView in = ByteView(cut.rest).substr(position);
    FrameHeader header;
    const FrameStatus status = read_frame_header(in, kMaxPacketSize, header);
    cut.bad_length = status == FrameStatus::BadLength;
    check((status == FrameStatus::NeedMore) == (in.size() < kHeaderSize), "a header is five bytes");
    if (status != FrameStatus::Ok) break;
    check(header.total() == kHeaderSize + header.body() && header.total() <= kMaxPacketSize + 1, "sizes agree");
    if (in.size() < header.total()) break;
    cut.messages.emplace_back(in.substr(0, header.total()));
    position += header.total();
  }
  cut.rest.erase(0, position);
}

Cut cut_in_pieces(ByteView stream, std::size_t piece_size) {
  Cut cut;
  while (!stream.empty()) {
    const ByteView piece = stream.substr(0, piece_size);
    stream.remove_prefix(piece.size());
    cut.rest += piece;
    take_messages(cut);
  }
  return cut;
}

}  // namespace
}  // namespace pgweir::protocol

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pgweir::protocol;
  if (size == 0) return 0;
  const ByteView stream = pgweir::fuzz::as_view(data, size).substr(1);
  const Cut whole = cut_in_pieces(stream, size);
  const Cut pieces = cut_in_pieces(stream, std::size_t{data[0]} % 64 + 1);
  check(whole.messages == pieces.messages, "the same messages");
  check(whole.bad_length == pieces.bad_length && whole.rest == pieces.rest, "the same end");
  std::string joined;
  for (const std::string& message : whole.messages) joined += message;
  check(joined + whole.rest == stream, "nothing lost");
  return 0;
}
