// A client's way from its first byte to ReadyForQuery: TLS, start-up packet, limits, authentication (with auth_query
// where the user is not in the file), checking its start-up parameters on a server where they are new, and the welcome.
// A client that replicates is welcomed by the server that was opened for it (client_replication.cpp).
// Follows "Start-up" and "SASL Authentication" of the protocol chapter from the server's side; the order of the checks
// is PgBouncer's, since what is refused first tells an attacker what exists.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "protocol/auth_scram.hpp"
#include "protocol/auth_secret.hpp"
#include "protocol/startup.hpp"
#include "proxy/core/certificate_names.hpp"
#include "proxy/core/hba.hpp"
#include "proxy/core/key_derivations.hpp"
#include "proxy/core/ldap_options.hpp"
#include "proxy/core/pool_context.hpp"
#include "proxy/core/port.hpp"
#include "proxy/core/replication.hpp"
#include "proxy/core/server_session.hpp"
#include "proxy/core/startup_request.hpp"

namespace pgweir::core {

class ClientSession;
class ServerSession;

class ClientLogin {
 public:
  explicit ClientLogin(ClientSession& client) : client_(client) {}

  std::size_t consume(ByteView in);
  void tls_ready();
  /// A server was granted for the step that waits for one.
  void granted(ServerSession& server);
  void hidden_done(HiddenPurpose purpose, const HiddenResult& result);
  /// The server that was used for a step has gone back to its pool.
  void server_released();
  /// The pool gave up. True if the login has answered it itself.
  bool rejected();
  /// A server granted now stays with the client, or runs auth_query for it; it is not only asked about parameters.
  [[nodiscard]] bool keeps_server() const;
  /// The pool that the step under way wants a server of.
  [[nodiscard]] PoolContext* wanted_pool() const { return wanted_; }
  /// Where a server for the login may come from now: of a routed database, from any host that serves.
  [[nodiscard]] PoolContext& pool_to_ask();
  /// The hosts have changed while it waited.
  void route_again();
  [[nodiscard]] bool refers_to(const PoolContext& context) const { return wanted_ == &context || asked_ == &context; }
  /// The client has sent something.
  [[nodiscard]] bool heard() const { return heard_; }
  /// It is no login but a cancel request, which lasts as long as it takes.
  [[nodiscard]] bool is_cancel() const { return is_cancel_; }
  /// Which one, as long as it is one that the pools know.
  [[nodiscard]] pool::CancelId cancel() const { return cancel_; }
  void cancel_begun(pool::CancelId cancel) { cancel_ = cancel; }
  /// The socket was accepted beyond max_client_conn: only the console may go on.
  void set_over_limit() { over_limit_ = true; }
  /// The answer to a question of check_password or find_host_name; late ones are ignored.
  void password_checked(const PasswordVerdict& verdict);
  void host_name_found(const std::string& name);
  /// What it has asked WorkerCore::derive_key for.
  void key_derived(const KeyQuestion& question, const protocol::Sha256Digest& key);
  /// It waits for one of these.
  [[nodiscard]] bool waits_for_host() const {
    return step_ == Step::Check || step_ == Step::HostName || step_ == Step::DeriveSecret || step_ == Step::DeriveGiven;
  }
  /// The client has left: nobody is to judge its password any more.
  void abandon();
  /// Welcomes the client if what it waits for a server for is known by now.
  void retry_welcome(const PoolContext& pool);

 private:
  enum class Step : std::uint8_t {
    FirstPacket,
    Handshake,
    HostName,  ///< the rule depends on the name of the client's host, which is being looked up
    Lookup,
    Password,
    SaslInitial,
    SaslResponse,
    Check,         ///< somebody else judges the password
    DeriveSecret,  ///< the key of the password that we know is being derived, to ask the client for it by SCRAM
    DeriveGiven,   ///< the key of the password that the client has sent, to compare it with a SCRAM secret
    Welcome,
    Done,
  };
  /// What choosing a method came to. In the other two cases nothing is left to do: the client was told, or the login
  /// goes on when the name of its host is known.
  enum class Choice : std::uint8_t { Made, Refused, Postponed };

  std::size_t take_first_packet(ByteView in);
  std::size_t start_tls(ByteView in);
  bool refuse_typed_message(ByteView in);
  std::size_t refuse_encryption(ByteView in, std::size_t size, const char* text);
  void take_cancel_request(ByteView body);
  void take_startup(const protocol::FirstPacket& packet);
  [[nodiscard]] std::shared_ptr<KnownStartup> read_parameters(ByteView body);
  void add_host(StartupRequest& request) const;
  [[nodiscard]] bool refuse_plaintext();
  [[nodiscard]] const KnownStartup& startup();
  [[nodiscard]] const DatabaseConfig* entry() { return startup().entry; }
  void log_parameters(ByteView body) const;
  void negotiate(std::uint16_t minor);
  void check_limits();
  void find_user();
  void find_secret();
  // These tell the client and give false if it is refused. choose_method is asked again after an auth_query, and when
  // the name of the client's host is known.
  [[nodiscard]] Choice choose_method();
  [[nodiscard]] Choice choose_method_by_rule();
  [[nodiscard]] Choice ask_for_host_name();
  [[nodiscard]] bool take_rule(const HbaRule& rule);
  [[nodiscard]] bool choose_pam(const std::string& service, bool use_hostname);
  [[nodiscard]] bool choose_ldap(const std::shared_ptr<const LdapSettings>& own);
  [[nodiscard]] bool refuse_auth_user();
  [[nodiscard]] bool demand_certificate();
  [[nodiscard]] bool check_certificate_name();
  void start_lookup(PoolContext& pool);
  void align_lookup(ServerSession& server);
  void run_lookup(ServerSession& server);
  void lookup_done(const HiddenResult& result);
  void secret_found();
  void start_authentication();
  void offer_scram(const protocol::ScramSecret& secret, bool mock);
  std::size_t take_password(ByteView in);
  void derive_secret();
  void check_password(ByteView body);
  void check_against_scram_secret(std::string_view password);
  [[nodiscard]] bool compare_with_scram_secret(const protocol::Sha256Digest& key);
  void ask_about_password(std::string_view password);
  void refuse_password(std::string_view reason);
  [[nodiscard]] bool others_judge() const { return method_ == AuthType::Pam || method_ == AuthType::Ldap; }
  void take_sasl(ByteView body);
  void authenticated();
  void start_console();
  void prepare_welcome();
  void request_own_server();
  void welcome_to(ServerSession& server);
  [[nodiscard]] bool parameters_known() const;
  void sort_parameters(const ServerReport& report);
  void align(ServerSession& server);
  void aligned(ServerSession& server);
  void welcome();
  [[nodiscard]] bool welcome_as_known();
  void send_welcome(std::string& text, std::size_t key_at);
  [[nodiscard]] std::size_t append_welcome(std::string& out, const std::shared_ptr<const ServerReport>& report) const;
  [[nodiscard]] const std::string& shared_welcome(const std::shared_ptr<const ServerReport>& report) const;
  void request_server(PoolContext& pool);
  [[nodiscard]] bool console_login() const;
  void fail(std::string_view text, std::string_view native_sqlstate);
  void log_failure(std::string_view user) const;

  ClientSession& client_;
  Step step_ = Step::FirstPacket;
  bool over_limit_ = false;
  bool mock_ = false;  ///< the user does not exist: the exchange is for show
  bool heard_ = false;
  bool startup_seen_ = false;
  bool is_cancel_ = false;
  pool::CancelId cancel_{};
  AuthType method_ = AuthType::Md5;                  ///< of this login: auth_type, or what a rule of auth_hba_file says
  const char* unknown_user_text_ = "";               ///< what a method without a password says to an unknown user
  std::optional<CertificatePart> certificate_part_;  ///< set if the certificate's name must allow the user
  std::string certificate_map_;                      ///< of auth_ident_file; empty: the names must be equal
  std::variant<PamQuestion, std::shared_ptr<const LdapSettings>> judge_;  ///< who is asked, for pam and ldap
  std::string asked_password_;            ///< while it is being judged, or its key derived
  KeyDerivations::Request derivation_;    ///< while it is under way
  std::optional<std::string> host_name_;  ///< of the client, once it was needed; empty: none that counts
  bool secret_known_ = false;             ///< auth_query was asked: only the method is still open
  bool console_admin_ = false;
  std::optional<HiddenResult> found_;  ///< by auth_query, looked at when its server has been given back
  std::string secret_;                 ///< as stored; of the login user
  PoolContext* wanted_ = nullptr;
  PoolContext* asked_ = nullptr;           ///< where it waits: wanted_, or the part of it on one host
  std::shared_ptr<KnownStartup> startup_;  ///< null until the start-up packet
  std::string packet_;                     ///< the body of it, if it is new and what is known of it may be kept
  // What is asked for in it, as far as the welcome has to be found out.
  StartupOverrides tracked_;
  std::map<std::string, std::string> extras_;
  char salt_[4] = {};
  std::unique_ptr<protocol::ScramServer> scram_;
  protocol::ScramSecret scram_secret_;
  bool scram_pass_through_ = false;  ///< the secret is a real one, its keys are good for servers
};

}  // namespace pgweir::core
