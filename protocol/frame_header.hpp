// Decides where one typed message ends: the five bytes (type, length) that start every message but the first of a
// client. Knows nothing of bodies or of which types are legal when. Follows "Message Formats" of the PostgreSQL manual.
#pragma once

#include <cstddef>
#include <cstdint>

#include "protocol/wire.hpp"

namespace pgweir::protocol {

/// Smallest length word: it counts its own four bytes.
inline constexpr std::uint32_t kLengthMin = 4;

struct FrameHeader {
  char type = 0;
  std::uint32_t length = 0;  ///< As on the wire: body plus the four bytes of the length word.

  /// Bytes of the whole message, type byte included.
  [[nodiscard]] std::size_t total() const { return std::size_t{length} + 1; }
  /// Bytes after the header. Only meaningful for a header that was read with status Ok.
  [[nodiscard]] std::size_t body() const { return std::size_t{length} - kLengthMin; }
};

enum class FrameStatus {
  NeedMore,   ///< Fewer than five bytes; `out` is untouched.
  Ok,         ///< `out` is set; the body may still be missing.
  BadLength,  ///< `out` is set for the log line; the stream cannot be followed any further.
};

/// Reads the header at the start of `in`. `max_packet_size` limits the length word (PgBouncer's setting of that name).
[[nodiscard]] inline FrameStatus read_frame_header(ByteView in, std::uint32_t max_packet_size, FrameHeader& out) {
  if (in.size() < kHeaderSize) return FrameStatus::NeedMore;
  out.type = in[0];
  out.length = load_u32(in.data() + 1);
  if (out.length < kLengthMin || out.length > max_packet_size) return FrameStatus::BadLength;
  return FrameStatus::Ok;
}

}  // namespace pgweir::protocol
