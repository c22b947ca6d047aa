#include "protocol/state_archive.hpp"

#include <algorithm>

namespace pgweir::protocol {

// Seven bits a byte, the lowest first: most numbers are small.
void StateArchive::number(std::uint64_t& value) {
  if (!reading_) {
    std::uint64_t rest = value;
    for (; rest >= 0x80; rest >>= 7) out_.push_back(static_cast<char>(rest | 0x80));
    out_.push_back(static_cast<char>(rest));
    return;
  }
  value = 0;
  for (unsigned shift = 0; shift < 64 && !failed_ && !in_.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(in_.front());
    in_.remove_prefix(1);
    value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return;
  }
  failed_ = true;
  value = 0;
}

std::size_t StateArchive::count(std::size_t n) {
  std::uint64_t wide = n;
  number(wide);
  if (!reading_ || wide <= in_.size()) return wide;
  failed_ = true;
  return 0;
}

void StateArchive::field(std::string& value) {
  const std::size_t size = count(value.size());
  if (!reading_) {
    out_.append(value);
    return;
  }
  value.assign(in_.substr(0, size));
  in_.remove_prefix(size);
}

}  // namespace pgweir::protocol
