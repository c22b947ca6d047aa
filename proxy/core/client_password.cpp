// How a client proves that it knows its password: what it is asked for, and whether its answer is right. Follows "SASL
// Authentication" and the messages around it of the protocol chapter, from the server's side.
#include <fmt/format.h>

#include "protocol/auth_md5.hpp"
#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "protocol/saslprep.hpp"
#include "proxy/core/client_login.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

using protocol::SecretKind;

namespace {
constexpr std::uint32_t kPasswordMessageMax = 65536;
}  // namespace

void ClientLogin::start_authentication() {
  if (!check_certificate_name()) return;
  WorkerCore& core = *client_.core_;
  const Config& config = core.config();
  const SecretKind kind = protocol::classify_secret(secret_);
  std::string message;
  switch (method_) {
    case AuthType::Trust:
    case AuthType::Cert:
      if (mock_) return fail(unknown_user_text_, "28000");
      return authenticated();
    case AuthType::Plain:
    case AuthType::Pam:
    case AuthType::Ldap:
      step_ = Step::Password;
      protocol::append_authentication_cleartext(message);
      break;
    case AuthType::ScramSha256:
      break;
    default:
      if (kind == SecretKind::Scram && !mock_) break;
      step_ = Step::Password;
      core.host().crypto().random_bytes(
          std::span<unsigned char>(reinterpret_cast<unsigned char*>(salt_), sizeof salt_));
      protocol::append_authentication_md5(message, std::string_view(salt_, sizeof salt_));
      break;
  }
  if (!message.empty()) {
    client_.send(ByteView(message));
    return;
  }
  if (kind == SecretKind::Scram && !mock_) {
    if (const auto secret = protocol::parse_scram_secret(secret_)) {
      scram_pass_through_ = true;
      return offer_scram(*secret, false);
    }
  }
  if (kind == SecretKind::Plain && !mock_) return derive_secret();
  mock_ = true;
  offer_scram(protocol::mock_scram_secret(core.host().crypto(), client_.user_, core.keys().mock_auth_key,
                                          static_cast<std::uint32_t>(config.scram_iterations)),
              true);
}

/// Of a plain-text password; the login goes on in key_derived() where that takes a derivation.
void ClientLogin::derive_secret() {
  WorkerCore& core = *client_.core_;
  if (const auto* known = core.known_scram_secret(client_.user_, secret_)) return offer_scram(*known, false);
  step_ = Step::DeriveSecret;
  derivation_ = core.derive_key(
      client_.id_, {protocol::prepare_password(secret_),
                    protocol::scram_salt_of(core.host().crypto(), client_.user_, core.keys().mock_auth_key),
                    static_cast<std::uint32_t>(core.config().scram_iterations)});
}

void ClientLogin::key_derived(const KeyQuestion& question, const protocol::Sha256Digest& key) {
  WorkerCore& core = *client_.core_;
  if (step_ == Step::DeriveSecret) {
    const auto secret = protocol::scram_secret_of_key(core.host().crypto(), key, question.iterations, question.salt);
    core.remember_scram_secret(client_.user_, secret_, secret);
    offer_scram(secret, false);
  } else if (step_ == Step::DeriveGiven) {
    protocol::Crypto& crypto = core.host().crypto();
    const std::string password = std::move(asked_password_);
    asked_password_.clear();
    if (!compare_with_scram_secret(key)) return;
    // Only what is right is worth its place.
    protocol::keep_salted_password(crypto, password, question.salt, question.iterations, key, core.password_cache());
  }
}

void ClientLogin::offer_scram(const protocol::ScramSecret& secret, bool mock) {
  WorkerCore& core = *client_.core_;
  step_ = Step::SaslInitial;
  scram_secret_ = secret;
  protocol::ScramServerOptions options;
  options.channel_binding_data = client_.port().tls_server_end_point();
  options.channel_binding_offered = !options.channel_binding_data.empty();
  std::vector<std::string_view> mechanisms;
  if (options.channel_binding_offered) mechanisms.push_back(protocol::kScramPlusMechanism);
  mechanisms.push_back(protocol::kScramMechanism);
  scram_ = std::make_unique<protocol::ScramServer>(
      core.host().crypto(), secret, mock, protocol::make_scram_nonce(core.host().crypto()), std::move(options));
  std::string message;
  protocol::append_authentication_sasl(message, mechanisms);
  client_.send(ByteView(message));
}

std::size_t ClientLogin::take_password(ByteView in) {
  protocol::FrameHeader header;
  const auto status = read_frame_header(in, kPasswordMessageMax, header);
  if (!in.empty() && in[0] == '\0') {
    // Only the first packets have no type: length and code.
    if (in.size() < 8) return 0;
    if (protocol::load_u32(in.data() + 4) >> 16 == 3) {
      fail("client re-sent startup pkt", "08P01");
    } else {
      client_.disconnect("unexpected packet during login");
    }
    return in.size();
  }
  if (!in.empty() && in[0] != protocol::frontend::PasswordMessage) {
    client_.disconnect("unexpected packet during login");
    return in.size();
  }
  if (status == protocol::FrameStatus::NeedMore) return 0;
  if (status == protocol::FrameStatus::BadLength) {
    fail(fmt::format("bad packet header: '{}'", hex_of(in)), "08P01");
    return in.size();
  }
  if (in.size() < header.total()) return 0;
  const ByteView body = in.substr(protocol::kHeaderSize, header.body());
  if (step_ == Step::Password) {
    check_password(body);
  } else {
    take_sasl(body);
  }
  return header.total();
}

void ClientLogin::check_password(ByteView body) {
  protocol::Crypto& crypto = client_.core_->host().crypto();
  const auto password = protocol::parse_password(body);
  if (!password || password->empty()) return fail("empty password returned by client", "28P01");
  if (others_judge()) return ask_about_password(*password);
  bool ok;
  if (method_ == AuthType::Plain && protocol::classify_secret(secret_) == SecretKind::Scram) {
    return check_against_scram_secret(*password);
  }
  if (method_ == AuthType::Plain) {
    ok = protocol::check_plain_password(crypto, secret_, client_.user_, *password);
  } else {
    ok = protocol::check_md5_response(crypto, secret_, client_.user_, std::string_view(salt_, sizeof salt_), *password);
  }
  if (!ok || mock_) return fail("password authentication failed", "28P01");
  authenticated();
}

void ClientLogin::check_against_scram_secret(std::string_view password) {
  WorkerCore& core = *client_.core_;
  const auto stored = protocol::parse_scram_secret(secret_);
  if (!stored) return fail("password authentication failed", "28P01");
  const auto* known = protocol::find_salted_password(core.host().crypto(), password, stored->salt, stored->iterations,
                                                     core.password_cache());
  if (known != nullptr) return (void)compare_with_scram_secret(*known);
  step_ = Step::DeriveGiven;
  asked_password_ = std::string(password);
  derivation_ = core.derive_key(client_.id_, {protocol::prepare_password(password), stored->salt, stored->iterations});
}

// False if the client was refused.
bool ClientLogin::compare_with_scram_secret(const protocol::Sha256Digest& key) {
  const auto stored = protocol::parse_scram_secret(secret_);
  if (!stored || mock_ || !protocol::is_key_of(client_.core_->host().crypto(), *stored, key)) {
    fail("password authentication failed", "28P01");
    return false;
  }
  authenticated();
  return true;
}

void ClientLogin::take_sasl(ByteView body) {
  std::string message;
  if (step_ == Step::SaslInitial) {
    // The mechanism comes first, whatever is wrong with the rest.
    const ByteView mechanism = body.substr(0, body.find('\0'));
    const bool plus = mechanism == protocol::kScramPlusMechanism && !client_.port().tls_server_end_point().empty();
    if (mechanism != protocol::kScramMechanism && !plus) {
      return fail("client selected an invalid SASL authentication mechanism", "28000");
    }
    const auto initial = protocol::parse_sasl_initial_response(body);
    if (!initial || !initial->data) return fail("SASL authentication failed", "28P01");
    const auto answer = scram_->first(initial->mechanism, *initial->data);
    if (!answer) return fail("SASL authentication failed", "28P01");
    step_ = Step::SaslResponse;
    protocol::append_authentication_sasl_continue(message, *answer);
    client_.send(ByteView(message));
    return;
  }
  const auto result = scram_->final(body);
  if (!result.ok || mock_) return fail("SASL authentication failed", "28P01");
  protocol::append_authentication_sasl_final(message, result.server_final);
  client_.send(ByteView(message));
  if (scram_pass_through_ && !console_login()) {
    Credentials credentials;
    credentials.scram_keys = protocol::ScramKeys{result.client_key, scram_secret_.server_key};
    client_.core_->share_credentials(client_.database_, client_.user_, credentials);
  }
  authenticated();
}

}  // namespace pgweir::core
