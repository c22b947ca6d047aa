// Both sides of a SCRAM-SHA-256 and SCRAM-SHA-256-PLUS exchange (RFC 5802, RFC 7677, RFC 5929 tls-server-end-point), as
// machines that take and give SASL payloads. They decide whether the other side has proved its knowledge of the
// password. They do not wrap payloads into messages, draw random numbers or choose the secret. Follows "SASL
// Authentication" of the PostgreSQL manual: the user name inside the messages is ignored, authorization identities and
// mandatory extensions are refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/auth_secret.hpp"
#include "protocol/crypto.hpp"
#include "protocol/salted_password_cache.hpp"

namespace pgweir::protocol {

inline constexpr std::string_view kScramMechanism = "SCRAM-SHA-256";
inline constexpr std::string_view kScramPlusMechanism = "SCRAM-SHA-256-PLUS";

/// Longest payload either machine looks at. PostgreSQL takes at most 1024 bytes from clients.
inline constexpr std::size_t kScramClientMessageMax = 1024;
inline constexpr std::size_t kScramServerMessageMax = 4096;

/// A fresh nonce as PostgreSQL makes them: 18 random bytes in base64 (24 printable characters).
[[nodiscard]] std::string make_scram_nonce(Crypto& crypto);

struct ScramServerOptions {
  bool channel_binding_offered = false;  ///< SCRAM-SHA-256-PLUS was in our list (so the client is on TLS)
  std::string channel_binding_data;      ///< hash of our own certificate; not empty if offered
};

/// Us towards a client. One object per login; `crypto` must outlive it.
class ScramServer {
 public:
  struct Result {
    bool ok = false;
    std::string server_final;   ///< payload of AuthenticationSASLFinal, empty unless ok
    Sha256Digest client_key{};  ///< recovered from the proof, for ScramKeys towards servers; zero unless ok
  };

  /// `mock`: the user is unknown, run the whole exchange and then fail. `nonce` is printable ASCII without commas.
  ScramServer(const Crypto& crypto, const ScramSecret& secret, bool mock, std::string nonce,
              ScramServerOptions options = {});

  /// Takes mechanism and data of SASLInitialResponse, gives the payload of AuthenticationSASLContinue; nullopt if the
  /// mechanism was not offered, the message is malformed or its channel binding is refused.
  [[nodiscard]] std::optional<std::string> first(std::string_view mechanism, std::string_view client_first);

  /// Takes the data of SASLResponse. Answers !ok for malformed messages and wrong passwords alike, and when called out
  /// of turn.
  [[nodiscard]] Result final(std::string_view client_final);

 private:
  enum class State { First, Final, Done };

  [[nodiscard]] bool read_gs2_header(std::string_view& rest, bool plus);

  const Crypto& crypto_;
  ScramSecret secret_;
  bool mock_;
  State state_ = State::First;
  ScramServerOptions options_;
  std::string nonce_;              // ours, then the client's and ours together
  std::string binding_;            // expected value of c=
  std::string client_first_bare_;  // kept for the signatures
  std::string server_first_;
};

/// What lets us log in to a server without knowing the password: both come from a client's own SCRAM login.
struct ScramKeys {
  Sha256Digest client_key{};
  Sha256Digest server_key{};
};

struct ScramClientOptions {
  bool server_offered_plus = false;  ///< SCRAM-SHA-256-PLUS was in the server's list
  std::string channel_binding_data;  ///< hash of the server's certificate; empty without TLS or when switched off
  /// More is refused: a derivation takes its thread about 0.3 us per iteration.
  std::uint32_t iterations_max = 1'000'000;
};

/// Us towards a server. One object per login; `crypto` and `cache` must outlive it.
class ScramClient {
 public:
  /// With the password as the user typed it. `cache` may be nullptr.
  ScramClient(const Crypto& crypto, std::string password, std::string nonce, ScramClientOptions options = {},
              SaltedPasswordCache* cache = nullptr);
  /// With keys recovered from a client's login; works only if the server's secret has the same salt and iterations.
  ScramClient(const Crypto& crypto, const ScramKeys& keys, std::string nonce, ScramClientOptions options = {});

  /// The mechanism to name in SASLInitialResponse: the -PLUS one if it was offered and there is data to bind to.
  [[nodiscard]] std::string_view mechanism() const;
  /// The data of SASLInitialResponse.
  [[nodiscard]] std::string first();
  /// Of what answer() to this message would have to derive a key by PBKDF2, because the cache does not have it. Nullopt
  /// if of nothing; a message that is not acceptable is left to answer(), too.
  struct MissingKey {
    std::string password;  ///< SASLprep has been applied
    std::string salt;
    std::uint32_t iterations = 0;
  };
  [[nodiscard]] std::optional<MissingKey> missing_key(std::string_view server_first) const;
  /// That key, for answer() and for the cache.
  void take_key(std::string_view salt, std::uint32_t iterations, const Sha256Digest& salted_password);
  /// Takes the payload of AuthenticationSASLContinue, gives the data of SASLResponse; nullopt if the message is
  /// malformed, the nonce is not ours continued, or the iteration count is out of bounds. With a password that is not
  /// cached this computes PBKDF2.
  [[nodiscard]] std::optional<std::string> answer(std::string_view server_first);
  /// Takes the payload of AuthenticationSASLFinal; true if the server knows the secret too. False when out of turn.
  [[nodiscard]] bool verify(std::string_view server_final);

 private:
  enum class State { First, Answer, Verify, Done };

  [[nodiscard]] bool use_plus() const { return mechanism() == kScramPlusMechanism; }
  [[nodiscard]] std::string_view gs2_header() const;
  struct ServerFirst;
  [[nodiscard]] std::optional<ServerFirst> read_server_first(std::string_view message) const;
  [[nodiscard]] ScramKeys keys_of(const Sha256Digest& salted_password) const;

  const Crypto& crypto_;
  std::string password_;
  std::optional<ScramKeys> keys_;
  std::string nonce_;
  ScramClientOptions options_;
  SaltedPasswordCache* cache_ = nullptr;
  State state_ = State::First;
  std::string client_first_bare_;
  Sha256Digest server_signature_{};
};

}  // namespace pgweir::protocol
