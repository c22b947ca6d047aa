// One client connection of the load generator: the login (plain or TLS; trust or SCRAM-SHA-256), then bytes. It follows
// "Message Flow" of the PostgreSQL manual only as far as a benchmark needs and knows nothing of what is measured.
//
// Every failure is an exception of type std::runtime_error: a benchmark whose client was refused has no figure.
#pragma once

#include <openssl/ssl.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/auth_scram.hpp"
#include "protocol/salted_password_cache.hpp"
#include "proxy/io/openssl_crypto.hpp"

namespace pgweir::bench {

/// Whom to connect to, and as whom.
struct Target {
  int port = 0;
  std::string user = "postgres", database = "postgres", password{};
  bool tls = false;
};

/// What the sessions of a process share. One thread.
struct Shared {
  Shared();
  io::OpensslCrypto crypto;
  /// One derivation for each user: the proxy is measured, not its clients.
  protocol::SaltedPasswordCache salted_passwords;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> tls;
  std::uint32_t connections = 0;  ///< made so far: they take turns in where they come from
};

class Session {
 public:
  /// Connects and sends the first packet. `target` and `shared` must outlive the session.
  Session(const Target& target, Shared& shared, std::string_view user);
  explicit Session(const Target& target, Shared& shared) : Session(target, shared, target.user) {}
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// To be watched for input.
  [[nodiscard]] int fd() const { return fd_; }
  /// From now on receive() and go_on() wait for what comes next, so that nobody need watch it. Not with TLS.
  void wait_for_input() { receive_flags_ = 0; }
  /// What is sent leaves at once, whatever is on its way. Who waits for each answer has no need of it.
  void send_at_once();
  /// Goes on with the login as far as the bytes at hand allow. True: it is complete.
  [[nodiscard]] bool go_on();
  /// Waits for the end of the login.
  void finish_login();

  /// What is there, at most `size` bytes; 0: nothing now. The end of the connection is a failure.
  [[nodiscard]] std::size_t receive(char* buffer, std::size_t size);
  /// As much as the socket takes now; 0: nothing.
  [[nodiscard]] std::size_t send_some(std::string_view bytes);
  /// All of it, waiting where the socket is full.
  void send(std::string_view bytes);
  /// Waits until there is something to receive; false after `timeout_ms` (-1: never).
  bool wait_readable(int timeout_ms = -1) const;
  /// Says good-bye.
  void leave();

 private:
  enum class Step { SslAnswer, Handshake, Messages, Ready };

  void start_up();
  std::size_t take_messages(std::string_view bytes);
  void begin_tls();
  void on_message(char type, std::string_view body);
  void on_authentication(std::string_view body);

  const Target& target_;
  Shared& shared_;
  std::string user_;
  int fd_ = -1;
  int receive_flags_;
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl_{nullptr, &SSL_free};
  Step step_ = Step::Messages;
  std::string input_;
  std::optional<protocol::ScramClient> scram_;
};

}  // namespace pgweir::bench
