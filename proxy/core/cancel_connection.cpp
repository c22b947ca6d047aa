#include "proxy/core/cancel_connection.hpp"

#include <fmt/format.h>

#include "pool/mutation.hpp"
#include "protocol/message_builder.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

CancelConnection::CancelConnection(WorkerCore& core, std::uint64_t token, Job job)
    : Connection(core, nullptr),
      token_(token),
      job_(std::move(job)),
      number_(core.host().next_number()),
      connect_wall_us_(core.host().wall_clock_us()) {}

void CancelConnection::connecting() {
  state_ = State::Connecting;
}

void CancelConnection::connected(std::unique_ptr<Port> port) {
  attach_port(std::move(port));
  if (job_.target.sslmode == SslMode::Disable) {
    send_request();
    return;
  }
  state_ = State::SslAnswer;
  std::string request;
  protocol::append_ssl_request(request);
  send(ByteView(request));
}

std::size_t CancelConnection::consume(ByteView in) {
  if (state_ != State::SslAnswer) return in.size();  // a server says nothing to a cancel request
  if (in.size() == 1 && in[0] == 'S') {
    state_ = State::Handshake;
    port().start_tls_client(job_.target);
  } else if (in.size() == 1 && in[0] == 'N' && job_.target.sslmode <= SslMode::Prefer) {
    send_request();
  } else {
    finish(false);
  }
  return in.size();
}

void CancelConnection::on_tls_ready() {
  if (state_ == State::Handshake) send_request();
}

void CancelConnection::send_request() {
  if (job_.cancel) {
    bool wanted;
    {
      PoolLock pools(core_->host());
      wanted = pools->confirm_cancel(job_.cancel) || PGWEIR_MUTANT(3);
    }
    if (!wanted) {
      job_.cancel = {};  // the query is over: the request has ended with it
      finish(false);
      return;
    }
  }
  state_ = State::Sent;
  std::string request;
  protocol::append_cancel_request(request, job_.key.pid, job_.key.secret);
  send(ByteView(request));
}

void CancelConnection::on_hangup(const std::string& reason) {
  (void)reason;
  finish(state_ == State::Sent && !has_unsent());
}

void CancelConnection::log_peer(const std::string& reason) {
  if (job_.peer == 0) return;
  const HostPort& host = job_.target.host;
  const std::string where = waiting() ? std::string() : fmt::format("@{}:{}", host.host, host.port);
  core_->log(LogLevel::Warning, fmt::format("S: peer-{}{} closing because: {}", job_.peer, where, reason));
}

void CancelConnection::on_timer(TimePoint now) {
  (void)now;
  log_peer("cancel_wait_timeout");
  finish(false);
}

void CancelConnection::abandon() {
  if (PGWEIR_MUTANT(3)) return;
  job_.cancel = {};
  finish(false);
}

void CancelConnection::finish(bool delivered) {
  if (state_ == State::Done) return;
  const bool waiting = state_ == State::Waiting, connecting = state_ == State::Connecting;
  state_ = State::Done;
  if (job_.cancel) {
    PoolLock pools(core_->host());
    pools->end_cancel(job_.cancel, delivered, core_->now(), core_->actions());
  }
  if (job_.requester) {
    core_->host().post(job_.origin,
                       [requester = job_.requester](WorkerCore& there) { there.cancel_finished(requester); });
  }
  if (connecting) core_->host().abandon_cancel(token_);
  if (waiting || connecting) {
    mark_closed();
  } else {
    close_port();
  }
  core_->bury(*this);
}

}  // namespace pgweir::core
