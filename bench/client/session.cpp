#include "bench/client/session.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"

namespace pgweir::bench {

namespace {

constexpr std::uint32_t kVersion = 196608;  // 3.0
constexpr std::uint32_t kLongestMessage = 1U << 20;

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what);
}

[[noreturn]] void fail_errno(const char* what) {
  fail(std::string(what) + ": " + std::strerror(errno));
}

/// The kernel gives a connection that is closed here back its port after a second, and connects from one half of its
/// range: from one address to one port that is some 14,000 logins per second, whatever they cost.
constexpr std::uint32_t kSourceAddresses = 32;

int connect_to(int port, std::uint32_t source) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail_errno("socket");
  sockaddr_in own{};
  own.sin_family = AF_INET;
  own.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source % kSourceAddresses);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const int on = 1;
  // Blocking: on the loopback interface a connect ends at once, unless the other side's backlog is full. As few calls
  // as can be: where logins are measured, this process has one core and the proxy the other.
  if (::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) != 0 ||
      ::bind(fd, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0 ||
      ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    ::close(fd);
    errno = error;
    fail_errno("connect");
  }
  return fd;
}

/// The message of an ErrorResponse: its field M.
std::string error_text(std::string_view body) {
  while (!body.empty() && body[0] != '\0') {
    const std::size_t end = body.find('\0');
    if (end == std::string_view::npos) break;
    if (body[0] == 'M') return std::string(body.substr(1, end - 1));
    body.remove_prefix(end + 1);
  }
  return "an error without a message";
}

}  // namespace

Shared::Shared() : tls(SSL_CTX_new(TLS_client_method()), &SSL_CTX_free) {
  if (tls == nullptr) fail("OpenSSL gives no context");
  // As psql does with sslmode=require: any certificate. Sessions are not resumed, as libpq does not either.
  SSL_CTX_set_verify(tls.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_session_cache_mode(tls.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(tls.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

Session::Session(const Target& target, Shared& shared, std::string_view user)
    : target_(target),
      shared_(shared),
      user_(user),
      fd_(connect_to(target.port, shared.connections++)),
      receive_flags_(MSG_DONTWAIT) {
  try {
    if (target.tls) {
      // As libpq does always: the end of the handshake and the start-up packet are two packets without an answer
      // between them, and the second would wait until the first is acknowledged.
      send_at_once();
      step_ = Step::SslAnswer;
      std::string request;
      protocol::append_ssl_request(request);
      send(request);
    } else {
      start_up();
    }
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

Session::~Session() {
  ssl_.reset();
  ::close(fd_);
}

void Session::start_up() {
  step_ = Step::Messages;
  std::string message;
  const std::array<std::pair<std::string_view, std::string_view>, 2> parameters{
      {{"user", user_}, {"database", target_.database}}};
  protocol::append_startup_message(message, kVersion, parameters);
  send(message);
}

void Session::begin_tls() {
  char answer = 0;
  const ssize_t got = ::recv(fd_, &answer, 1, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0 || answer != 'S') fail("the proxy refuses TLS");
  ssl_.reset(SSL_new(shared_.tls.get()));
  if (ssl_ == nullptr || SSL_set_fd(ssl_.get(), fd_) != 1) fail("OpenSSL gives no connection");
  if (::fcntl(fd_, F_SETFL, O_NONBLOCK) != 0) fail_errno("fcntl");
  SSL_set_connect_state(ssl_.get());
  step_ = Step::Handshake;
}

bool Session::go_on() {
  if (step_ == Step::SslAnswer) begin_tls();
  if (step_ == Step::Handshake) {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_.get());
    if (result == 1) {
      start_up();
    } else {
      const int error = SSL_get_error(ssl_.get(), result);
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) fail("the TLS handshake fails");
      return false;
    }
  }
  if (step_ != Step::Messages) return step_ == Step::Ready;
  std::array<char, 4096> buffer;
  // OpenSSL gives one record at a time, and keeps the next where no event tells of it.
  for (std::size_t got = 1; got > 0 && step_ == Step::Messages;) {
    got = receive(buffer.data(), buffer.size());
    const std::string_view fresh(buffer.data(), got);
    if (input_.empty()) {
      input_ = fresh.substr(take_messages(fresh));
    } else {
      input_ += fresh;
      input_.erase(0, take_messages(input_));
    }
    if (got < buffer.size() && ssl_ == nullptr) break;
  }
  if (step_ != Step::Ready) return false;
  input_ = {};  // thousands of these may stay
  scram_.reset();
  return true;
}

/// Gives how many of the bytes were whole messages, up to ReadyForQuery.
std::size_t Session::take_messages(std::string_view bytes) {
  std::size_t at = 0;
  protocol::FrameHeader header;
  while (step_ == Step::Messages) {
    const std::string_view rest = bytes.substr(at);
    const auto status = protocol::read_frame_header(rest, kLongestMessage, header);
    if (status == protocol::FrameStatus::BadLength) fail("the proxy sends a message of a strange length");
    if (status == protocol::FrameStatus::NeedMore || rest.size() < header.total()) break;
    on_message(header.type, rest.substr(protocol::kHeaderSize, header.body()));
    at += header.total();
  }
  return at;
}

void Session::send_at_once() {
  const int on = 1;
  if (::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) fail_errno("setsockopt");
}

void Session::on_message(char type, std::string_view body) {
  switch (type) {
    case 'R':
      on_authentication(body);
      break;
    case 'E':
      fail("the proxy answers: " + error_text(body));
      break;
    case 'Z':
      step_ = Step::Ready;
      break;
    case 'S':
    case 'K':
    case 'N':
      break;
    default:
      fail(std::string("unexpected message of type ") + type);
  }
}

void Session::on_authentication(std::string_view body) {
  if (body.size() < 4) fail("an authentication message without a code");
  const std::uint32_t code = protocol::load_u32(body.data());
  body.remove_prefix(4);
  std::string out;
  switch (code) {
    case 0:
      return;
    case 10:  // AuthenticationSASL
      scram_.emplace(shared_.crypto, target_.password, protocol::make_scram_nonce(shared_.crypto),
                     protocol::ScramClientOptions{}, &shared_.salted_passwords);
      protocol::append_sasl_initial_response(out, scram_->mechanism(), scram_->first());
      break;
    case 11: {  // AuthenticationSASLContinue
      const auto answer = scram_ ? scram_->answer(body) : std::nullopt;
      if (!answer) fail("the proxy's SCRAM message cannot be answered");
      protocol::append_sasl_response(out, *answer);
      break;
    }
    case 12:  // AuthenticationSASLFinal
      if (!scram_ || !scram_->verify(body)) fail("the proxy does not know the password either");
      return;
    default:
      fail("the proxy asks for authentication of kind " + std::to_string(code));
  }
  send(out);
}

void Session::finish_login() {
  while (!go_on()) wait_readable();
}

std::size_t Session::receive(char* buffer, std::size_t size) {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    const int got = SSL_read(ssl_.get(), buffer, static_cast<int>(size));
    if (got > 0) return static_cast<std::size_t>(got);
    const int error = SSL_get_error(ssl_.get(), got);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
    fail("the proxy ends the connection");
  }
  const ssize_t got = ::recv(fd_, buffer, size, receive_flags_);
  if (got > 0) return static_cast<std::size_t>(got);
  if (got == 0) fail("the proxy closes the connection");
  if (errno == EAGAIN || errno == EINTR) return 0;
  fail_errno("recv");
}

std::size_t Session::send_some(std::string_view bytes) {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    const int sent = SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
    if (sent > 0) return static_cast<std::size_t>(sent);
    const int error = SSL_get_error(ssl_.get(), sent);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
    fail("the proxy takes no more");
  }
  const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return static_cast<std::size_t>(sent);
  if (errno == EAGAIN || errno == EINTR) return 0;
  fail_errno("send");
}

void Session::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t sent = send_some(bytes);
    bytes.remove_prefix(sent);
    if (sent == 0) {
      pollfd entry{fd_, POLLOUT, 0};
      ::poll(&entry, 1, -1);
    }
  }
}

bool Session::wait_readable(int timeout_ms) const {
  if (ssl_ != nullptr && SSL_pending(ssl_.get()) > 0) return true;
  pollfd entry{fd_, POLLIN, 0};
  return ::poll(&entry, 1, timeout_ms) > 0;
}

void Session::leave() {
  std::string message;
  protocol::append_terminate(message);
  send(message);
}

}  // namespace pgweir::bench
