#include "proxy/core/connection.hpp"

namespace pgweir::core {

namespace {
// A buffer that grew for one large message is not kept.
constexpr std::size_t kKeepCapacity = 4096;

void release(std::string& buffer) {
  if (buffer.capacity() > kKeepCapacity) {
    std::string().swap(buffer);
  } else {
    buffer.clear();
  }
}
}  // namespace

std::string hex_of(ByteView bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes.substr(0, 8)) {
    const auto byte = static_cast<unsigned char>(c);
    text.push_back(digits[byte >> 4]);
    text.push_back(digits[byte & 15]);
  }
  return text;
}

void OutBatch::add_piece(ByteView bytes) {
  if (bytes.empty()) return;
  pieces_.push_back(bytes);
  end_ = bytes.data() + bytes.size();
}

void OutBatch::place_own() {
  for (const Own& own : own_) pieces_[own.piece] = ByteView(scratch_.data() + own.offset, own.size);
}

void Connection::receive(ByteView fresh) {
  if (closed_) return;
  if (in_.empty()) {
    consuming_ = true;
    const std::size_t used = consume(fresh);
    consuming_ = false;
    if (!closed_ && used < fresh.size()) in_.assign(fresh.substr(used));
  } else {
    in_.append(fresh);
    resume_input();
  }
  update_interest();
}

void Connection::resume_input() {
  // While consuming, the loop that is under way comes to the rest by itself or leaves it for a later call.
  if (closed_ || consuming_ || in_.empty()) return;
  // Taken out meanwhile: whoever asks unread_size() from within means what is left behind the bytes being looked at.
  std::string batch;
  batch.swap(in_);
  consuming_ = true;
  const std::size_t used = consume(batch);
  consuming_ = false;
  if (closed_) return;
  if (used == batch.size()) {
    release(batch);
  } else {
    batch.erase(0, used);
  }
  in_.swap(batch);
  update_interest();
}

void Connection::put_back_input(std::string bytes) {
  bytes += in_;
  in_ = std::move(bytes);
}

void Connection::writable() {
  if (closed_) return;
  if (has_unsent()) {
    const ByteView rest = ByteView(out_).substr(out_sent_);
    out_sent_ += port_->write(std::span<const ByteView>(&rest, 1));
    if (has_unsent()) return;
    release(out_);
    out_sent_ = 0;
  }
  on_output_drained();
  update_interest();
}

// What lies behind the first `accepted` bytes is sent later.
void Connection::keep_unsent(std::span<const ByteView> pieces, std::size_t accepted) {
  bool rest = false;
  for (const ByteView piece : pieces) {
    if (accepted >= piece.size()) {
      accepted -= piece.size();
      continue;
    }
    if (!rest && !has_unsent()) {
      out_.clear();
      out_sent_ = 0;
    }
    rest = true;
    out_.append(piece.substr(accepted));
    accepted = 0;
  }
  if (rest) update_interest();
}

void Connection::end_output() {
  release(out_);
  out_sent_ = 0;
  port_->shutdown_write();
}

void Connection::set_interest(std::uint8_t wanted) {
  interest_ = wanted;
  port_->set_interest((wanted & kRead) != 0, (wanted & kWrite) != 0, (wanted & kHangup) != 0);
}

void Connection::transfer_buffers(protocol::StateArchive& archive) {
  std::string unsent = out_.substr(out_sent_);
  archive(in_, unsent);
  if (archive.reading()) {
    out_ = std::move(unsent);
    out_sent_ = 0;
  }
}

void Connection::close_port() {
  if (closed_) return;
  closed_ = true;
  port_->close();
}

}  // namespace pgweir::core
