// Logging in to a server: TLS, the start-up packet, whatever authentication the server asks for, and what it reports.
// Follows "Start-up" and "SASL Authentication" of the protocol chapter from the client's side. The permit for the
// connection and the retry after a failure belong to pool::PoolManager.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/auth_scram.hpp"
#include "protocol/frame_header.hpp"
#include "proxy/core/server_session.hpp"

namespace pgweir::core {

/// A login error on its way through PoolManager, which carries one text: SQLSTATE and message.
[[nodiscard]] std::string encode_login_error(std::string_view sqlstate, std::string_view message);
/// SQLSTATE (08P01 if none was encoded) and message; views into `text`.
[[nodiscard]] std::pair<std::string_view, std::string_view> decode_login_error(std::string_view text);

class ServerLogin {
 public:
  explicit ServerLogin(ServerSession& server) : server_(server) {}

  void start();
  void tls_ready();
  /// Bytes of `in` used.
  std::size_t consume(ByteView in);
  void hung_up(const std::string& reason);
  /// `severity`: what the server called it, for the log alone.
  void failed(std::string_view text, pool::CloseKind kind, std::string_view sqlstate = "08P01",
              std::string_view severity = {});
  void connect_query_done(const HiddenResult& result);
  /// What it has asked WorkerCore::derive_key for.
  void key_derived(const KeyQuestion& question, const protocol::Sha256Digest& key);
  /// connect_query runs: messages are the relay's.
  [[nodiscard]] bool relaying() const { return state_ == State::ConnectQuery; }
  [[nodiscard]] bool done() const { return state_ == State::Done; }

 private:
  enum class State : std::uint8_t {
    SslAnswer,
    Handshake,
    Messages,
    DeriveKey,  ///< of the password, to answer the server's SCRAM message
    ConnectQuery,
    Done,
    Failed,
  };

  void send_startup();
  void add_replication(std::vector<std::pair<std::string_view, std::string_view>>& parameters) const;
  void take_message(char type, ByteView body);
  void take_authentication(ByteView body);
  void start_sasl(ByteView mechanisms);
  void continue_sasl(ByteView server_first);
  void take_error(ByteView body);
  void logged_in();
  void share_report();
  [[nodiscard]] std::optional<std::string> secret() const;

  ServerSession& server_;
  bool authenticated_ = false;  ///< AuthenticationOk came
  State state_ = State::Messages;
  std::unique_ptr<protocol::ScramClient> scram_;
  std::string server_first_;  ///< while the key to answer it is being derived
  KeyDerivations::Request derivation_;
  ServerReport report_;
};

}  // namespace pgweir::core
