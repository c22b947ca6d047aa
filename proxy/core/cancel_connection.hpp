// The connection that carries one cancel request to a server or to another process: wait for its turn, connect, TLS if
// the server's connection uses it, ask the pools whether the query still runs, send, wait for the other side to close.
// Follows "Canceling Requests in Progress".
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
    std::uint16_t peer = 0;      ///< to which process; 0: to the server `target`
    pool::WorkerId origin = 0;   ///< worker of the client that sent the request
    pool::ClientId requester{};  ///< its connection, closed when the request has ended
  };

  CancelConnection(WorkerCore& core, std::uint64_t token, Job job);

  /// It is its turn: the Host connects it to the job's target.
  void connecting();
  /// The Host has connected it.
  void connected(std::unique_ptr<Port> port);
  /// Ends it, telling the pools and the requester. `delivered`: the server closed it after our request.
  void finish(bool delivered);
  /// Says in the log why a request could not be passed on; nothing if it is for a server, whose own lines tell.
  void log_peer(const std::string& reason);
  /// The pools took it back: the query it was meant for is over.
  void abandon();
  void on_hangup(const std::string& reason) override;
  void on_tls_ready() override;
  void on_timer(TimePoint now) override;
  [[nodiscard]] std::uint64_t token() const { return token_; }
  [[nodiscard]] const Job& job() const { return job_; }
  [[nodiscard]] bool waiting() const { return state_ == State::Waiting; }
  [[nodiscard]] bool sent() const { return state_ == State::Sent; }
  /// For SHOW.
  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] std::int64_t connect_wall_us() const { return connect_wall_us_; }
  /// For a peer, which is looked up when it is its turn.
  void set_target(ServerTarget target) { job_.target = std::move(target); }

 private:
  enum class State : std::uint8_t { Waiting, Connecting, SslAnswer, Handshake, Sent, Done };
  std::size_t consume(ByteView in) override;
  void on_output_drained() override {}
  [[nodiscard]] std::uint8_t wanted_events() const override { return kRead; }
  void send_request();

  std::uint64_t token_;
  Job job_;
  State state_ = State::Waiting;
  std::uint64_t number_;
  std::int64_t connect_wall_us_;
};

}  // namespace pgweir::core
