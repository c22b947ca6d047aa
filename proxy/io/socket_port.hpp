// A session's socket: turns epoll events into the session's events and the session's wishes into system calls. Plain
// and TLS sockets look the same to the session. It decides nothing; how much is read per wake-up is the only policy
// here.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "proxy/core/connection.hpp"
#include "proxy/core/port.hpp"
#include "proxy/io/event_set.hpp"
#include "proxy/io/stream.hpp"

namespace pgweir::io {

class Worker;

class SocketPort final : public core::Port, public EventHandler {
 public:
  /// Takes over the connected non-blocking `fd` and watches it.
  SocketPort(Worker& worker, int fd);
  ~SocketPort() override;

  // core::Port
  void bind(core::Connection& session) override { session_ = &session; }
  std::size_t write(std::span<const core::ByteView> pieces) override;
  void set_interest(bool read, bool write, bool hangup) override;
  void start_tls_server(core::ByteView already_received) override;
  void start_tls_client(const core::ServerTarget& target) override;
  [[nodiscard]] bool is_tls() const override { return stream_.is_tls() && !handshaking_; }
  [[nodiscard]] std::string tls_info() const override { return stream_.tls_info(); }
  [[nodiscard]] std::string tls_server_end_point() const override { return stream_.tls_server_end_point(); }
  [[nodiscard]] std::optional<core::CertificateNames> verified_certificate() const override {
    return stream_.verified_certificate();
  }
  void shutdown_write() override { stream_.shutdown_write(); }
  void close() override;
  [[nodiscard]] int descriptor() const override { return stream_.fd(); }
  [[nodiscard]] std::shared_ptr<const int> duplicate() const override;
  [[nodiscard]] bool send_descriptors(
      const std::vector<std::pair<std::string, std::shared_ptr<const int>>>& messages) override;
  void give_away() override;

  // EventHandler
  void on_event(std::uint32_t events) override;

  /// Called by the worker when it was asked to look at this port again without an event of the socket.
  void again();
  void leave_worker();
  void enter_worker(Worker& worker);

 private:
  [[nodiscard]] std::size_t gather(std::span<const core::ByteView> pieces);
  [[nodiscard]] std::size_t swallow(const IoResult& failure, std::span<const core::ByteView> pieces);
  void run_pending();
  void handshake();
  void read();
  void hang_up(const std::string& reason);
  void update_events();
  void note_use();

  Worker* worker_;  ///< null between leave_worker and enter_worker
  Stream stream_;
  core::Connection* session_ = nullptr;
  bool want_read_ = true, want_write_ = false, want_hangup_ = false;
  bool handshaking_ = false;
  bool broken_ = false;  ///< a write failed; the session hears of it with the next event
  /// The last read took all there was, and nothing was written since.
  bool all_read_ = false;
  std::uint32_t events_ = EPOLLIN;
  std::string failure_;
};

}  // namespace pgweir::io
