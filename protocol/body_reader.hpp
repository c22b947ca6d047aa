// A cursor over bytes that are all here, for the parsers of this folder: takes one field at a time, checks every length
// first, and after the first failure gives nothing but empty values. Data types as in "Message Data Types" of the
// PostgreSQL manual.
#pragma once

#include <cstddef>
#include <cstdint>

#include "protocol/wire.hpp"

namespace pgweir::protocol {

class BodyReader {
 public:
  explicit BodyReader(ByteView bytes) : bytes_(bytes) {}

  /// False once any field did not fit.
  [[nodiscard]] bool ok() const { return ok_; }
  /// True if everything fitted and nothing is left over: what a well-formed body looks like at its end.
  [[nodiscard]] bool complete() const { return ok_ && position_ == bytes_.size(); }
  [[nodiscard]] std::size_t position() const { return position_; }
  [[nodiscard]] std::size_t remaining() const { return bytes_.size() - position_; }
  [[nodiscard]] bool at_end() const { return remaining() == 0; }

  [[nodiscard]] char byte() {
    const ByteView field = bytes(1);
    return field.empty() ? '\0' : field[0];
  }
  [[nodiscard]] std::uint16_t u16() {
    const ByteView field = bytes(2);
    return field.empty() ? std::uint16_t{0} : load_u16(field.data());
  }
  [[nodiscard]] std::uint32_t u32() {
    const ByteView field = bytes(4);
    return field.empty() ? 0 : load_u32(field.data());
  }
  [[nodiscard]] std::int32_t i32() { return static_cast<std::int32_t>(u32()); }

  /// A NUL-terminated string, without its terminator.
  [[nodiscard]] ByteView string() {
    const std::size_t end = ok_ ? bytes_.find('\0', position_) : ByteView::npos;
    if (end == ByteView::npos) return fail();
    const ByteView field = bytes_.substr(position_, end - position_);
    position_ = end + 1;
    return field;
  }
  [[nodiscard]] ByteView bytes(std::size_t count) {
    if (!ok_ || count > remaining()) return fail();
    const ByteView field = bytes_.substr(position_, count);
    position_ += count;
    return field;
  }
  [[nodiscard]] ByteView rest() { return bytes(remaining()); }

 private:
  ByteView fail() {
    ok_ = false;
    return {};
  }

  ByteView bytes_;
  std::size_t position_ = 0;
  bool ok_ = true;
};

}  // namespace pgweir::protocol
