// The connection that carries one cancel request to a server: connect, TLS if the server's connection uses it, ask the
// pools whether the query still runs, send, wait for the server to close. Follows "Canceling Requests in Progress".
#pragma once

#include <memory>
#include <string>

#include "proxy/core/connection.hpp"

namespace pgweir::core {

class CancelConnection final : public Connection {
 public:
  struct Job {
    pool::CancelId cancel{};  ///< none: we interrupt a server connection that is being closed anyway
    pool::BackendKey key;
    ServerTarget target;
    pool::WorkerId origin = 0;   ///< worker of the client that sent the request
    pool::ClientId requester{};  ///< its connection, closed when the request has ended
  };

  CancelConnection(WorkerCore& core, std::uint64_t token, Job job);

  /// The Host has connected it.
  void connected(std::unique_ptr<Port> port);
  /// Ends it, telling the pools and the requester. `delivered`: the server closed it after our request.
  void finish(bool delivered);
  /// The pools took it back: the query it was meant for is over.
  void abandon();
  void on_hangup(const std::string& reason) override;
  void on_tls_ready() override;
  void on_timer(TimePoint now);
  [[nodiscard]] std::uint64_t token() const { return token_; }
  [[nodiscard]] const Job& job() const { return job_; }

  TimePoint timer_at = pool::kNever;

 private:
  enum class State : std::uint8_t { Connecting, SslAnswer, Handshake, Sent, Done };
  std::size_t consume(ByteView in) override;
  void on_output_drained() override {}
  [[nodiscard]] bool wants_input() const override { return true; }
  void send_request();

  std::uint64_t token_;
  Job job_;
  State state_ = State::Connecting;
};

}  // namespace pgweir::core
