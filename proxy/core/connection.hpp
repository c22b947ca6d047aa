// The buffering that client and server connections share: bytes that could not be passed on yet, in both directions,
// and the back-pressure between them. Decides when a socket is read and when not; what the bytes mean is up to the
// session classes. A connection owns memory only while it holds bytes.
//
//   socket --receive()--> [ unread residue in_ ] --consume()--> peer's send() --> [ unsent out_ ] --> socket
#pragma once

#include <memory>
#include <span>
#include <string>

#include "protocol/state_archive.hpp"
#include "proxy/core/alarm.hpp"
#include "proxy/core/port.hpp"

namespace pgweir::core {

class WorkerCore;

/// The first bytes of what a peer sent, for error texts.
[[nodiscard]] std::string hex_of(ByteView bytes);

/// Output gathered while one batch of input is looked at: runs of the input itself and bytes of our own between them.
/// One per worker; empty outside of a consume() call.
class OutBatch {
 public:
  /// Adds bytes that stay valid until views(). Those that follow the last ones in memory join them.
  void add(ByteView bytes) {
    if (bytes.data() != end_ || bytes.empty()) return add_piece(bytes);
    ByteView& last = pieces_.back();
    last = ByteView(last.data(), last.size() + bytes.size());
    end_ += bytes.size();
  }
  /// Bytes of our own may be appended to scratch() between begin_own() and end_own().
  std::string& begin_own() {
    own_start_ = scratch_.size();
    return scratch_;
  }
  void end_own() {
    const std::size_t size = scratch_.size() - own_start_;
    if (size == 0) return;
    if (!own_.empty() && own_.back().piece + 1 == pieces_.size()) {
      own_.back().size += size;
    } else {
      own_.push_back({pieces_.size(), own_start_, size});
      pieces_.emplace_back();
      end_ = nullptr;
    }
  }
  [[nodiscard]] bool empty() const { return pieces_.empty(); }
  /// The gathered bytes in order; valid until clear() or the next add.
  [[nodiscard]] std::span<const ByteView> views() {
    if (!own_.empty()) place_own();
    return pieces_;
  }
  void clear() {
    pieces_.clear();
    own_.clear();
    scratch_.clear();
    end_ = nullptr;
  }

 private:
  /// A piece of our own, `offset` into scratch_, which may still move while there are more to come.
  struct Own {
    std::size_t piece;
    std::size_t offset;
    std::size_t size;
  };
  void add_piece(ByteView bytes);
  void place_own();

  std::vector<ByteView> pieces_;
  const char* end_ = nullptr;  ///< of the last piece, if that is not one of our own
  std::vector<Own> own_;
  std::string scratch_;
  std::size_t own_start_ = 0;
};

class Connection {
 public:
  Connection(WorkerCore& core, std::unique_ptr<Port> port) : core_(&core), port_(std::move(port)) {
    if (port_) port_->bind(*this);
  }
  virtual ~Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // ---- events, from the Port's owner ----
  /// Bytes were read; the view is valid during the call only.
  void receive(ByteView fresh);
  /// The socket takes bytes again.
  void writable();
  /// The peer closed or the connection broke; `reason` for the log. Nothing follows.
  virtual void on_hangup(const std::string& reason) = 0;
  virtual void on_tls_ready() {}
  /// The alarm was set for now, or for some time before.
  virtual void on_timer(TimePoint now) = 0;

  /// Looks again at the unread bytes, after whatever kept them from being passed on has ended.
  void resume_input();

  /// Called by WorkerCore after the event in which somebody asked for it with wake().
  virtual void on_woken() { resume_input(); }

  [[nodiscard]] Alarm& alarm() { return alarm_; }
  [[nodiscard]] bool closed() const { return closed_; }
  [[nodiscard]] bool has_unsent() const { return out_sent_ < out_.size(); }
  [[nodiscard]] std::size_t unread_size() const { return in_.size(); }
  [[nodiscard]] std::size_t unsent_size() const { return out_.size() - out_sent_; }
  [[nodiscard]] Port& port() { return *port_; }
  [[nodiscard]] const Port& port() const { return *port_; }
  /// Tells the Port what is wanted now; after changes made from outside.
  void update_interest() {
    if (closed_) return;
    const auto wanted = static_cast<std::uint8_t>(wanted_events() | (has_unsent() ? kWrite : 0));
    if (wanted != interest_) set_interest(wanted);
  }
  /// Another process has the socket: the object is over, without anything being done.
  void give_away() {
    closed_ = true;
    port_->give_away();
  }

 protected:
  /// Looks at `in` and says how many bytes are done with; the rest is kept and given again, with more behind it.
  virtual std::size_t consume(ByteView in) = 0;
  /// Everything sent has left.
  virtual void on_output_drained() = 0;
  static constexpr std::uint8_t kRead = 1, kWrite = 2, kHangup = 4;
  /// kRead if more input may come now; kHangup if the end of the peer's stream matters even so.
  [[nodiscard]] virtual std::uint8_t wanted_events() const = 0;

  /// Sends, keeping what the socket does not take.
  void send(std::span<const ByteView> pieces) {
    if (closed_) return;
    const std::size_t accepted = has_unsent() ? 0 : port_->write(pieces);
    if (pieces.size() != 1 || accepted != pieces.front().size()) keep_unsent(pieces, accepted);
  }
  void send(ByteView bytes) { send(std::span<const ByteView>(&bytes, 1)); }
  void drop_input() { in_.clear(); }
  /// These bytes are the next to be looked at. Not from within consume().
  void put_back_input(std::string bytes);
  /// Ends our direction. What was not sent yet is dropped: written to an ended direction it would break the connection,
  /// and the end of the peer's could not be told from that.
  void end_output();
  [[nodiscard]] ByteView unread() const { return in_; }
  void mark_closed() { closed_ = true; }
  /// What was read and not yet dealt with, and what was not sent yet, for another process.
  void transfer_buffers(protocol::StateArchive& archive);
  void attach_port(std::unique_ptr<Port> port) {
    port_ = std::move(port);
    port_->bind(*this);
  }
  /// Closes the socket; the object is destroyed at the end of the batch.
  void close_port();

  WorkerCore* core_;

 private:
  void keep_unsent(std::span<const ByteView> pieces, std::size_t accepted);
  void set_interest(std::uint8_t wanted);

  std::unique_ptr<Port> port_;
  bool closed_ = false;
  bool consuming_ = false;
  std::uint8_t interest_ = kRead;  ///< what the Port was told last; a new Port reads
  std::size_t out_sent_ = 0;
  std::string out_;
  std::string in_;
  Alarm alarm_{*this};

  friend class WorkerCore;
};

}  // namespace pgweir::core
