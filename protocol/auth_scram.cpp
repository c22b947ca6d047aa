// The two SCRAM machines. Formulas of RFC 5802 section 3:
//   ClientProof     = ClientKey XOR HMAC(StoredKey, AuthMessage), where StoredKey = H(ClientKey)
//   ServerSignature = HMAC(ServerKey, AuthMessage)
//   AuthMessage     = client-first-message-bare , server-first-message , client-final-message-without-proof
#include "protocol/auth_scram.hpp"

#include <algorithm>
#include <charconv>

#include "protocol/base64.hpp"
#include "protocol/saslprep.hpp"
#include "protocol/scram_attributes.hpp"

namespace pgweir::protocol {
namespace {

constexpr std::string_view kPlusHeader = "p=tls-server-end-point,,";
constexpr std::string_view kSupportedHeader = "y,,";
constexpr std::string_view kNoBindingHeader = "n,,";
constexpr std::size_t kNonceBytes = 18;

// RFC 5802: printable ASCII without the comma. That also keeps control characters out of logs and replies.
bool is_valid_nonce(std::string_view nonce) {
  const auto is_allowed = [](char c) { return c >= 0x21 && c <= 0x7E && c != ','; };
  return !nonce.empty() && std::all_of(nonce.begin(), nonce.end(), is_allowed);
}

bool is_acceptable_size(std::string_view message, std::size_t max) {
  return message.size() <= max && message.find('\0') == std::string_view::npos;
}

Sha256Digest exclusive_or(const Sha256Digest& a, const Sha256Digest& b) {
  Sha256Digest out;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<unsigned char>(a[i] ^ b[i]);
  return out;
}

std::optional<Sha256Digest> decode_digest(std::string_view text) {
  const auto raw = base64_decode(text);
  Sha256Digest digest;
  if (!raw || raw->size() != digest.size()) return std::nullopt;
  std::copy(raw->begin(), raw->end(), digest.begin());
  return digest;
}

std::string join_auth_message(std::string_view client_first_bare, std::string_view server_first,
                              std::string_view client_final_without_proof) {
  std::string out(client_first_bare);
  out.append(",").append(server_first).append(",").append(client_final_without_proof);
  return out;
}

struct ClientFinal {
  std::string_view binding;
  std::string_view nonce;
  Sha256Digest proof;
  std::string_view without_proof;
};

// c=, r=, any extensions, and p= as the last attribute.
std::optional<ClientFinal> parse_client_final(std::string_view message) {
  ScramAttributes attributes(message);
  const auto binding = attributes.next('c');
  const auto nonce = binding ? attributes.next('r') : std::nullopt;
  if (!nonce) return std::nullopt;
  while (true) {
    const std::size_t before = message.size() - attributes.rest().size();
    const auto attribute = attributes.next();
    if (!attribute) return std::nullopt;
    if (attribute->name != 'p') continue;
    const auto proof = decode_digest(attribute->value);
    if (!proof || !attributes.at_end()) return std::nullopt;
    return ClientFinal{*binding, *nonce, *proof, message.substr(0, before - 1)};
  }
}

}  // namespace

std::string make_scram_nonce(Crypto& crypto) {
  unsigned char raw[kNonceBytes];
  crypto.random_bytes(raw);
  return base64_encode({reinterpret_cast<const char*>(raw), sizeof raw});
}

ScramServer::ScramServer(const Crypto& crypto, const ScramSecret& secret, bool mock, std::string nonce,
                         ScramServerOptions options)
    : crypto_(crypto), secret_(secret), mock_(mock), options_(std::move(options)), nonce_(std::move(nonce)) {}

// gs2-header of RFC 5802, with the meaning of its flag:
//   p  binds to the channel: only with -PLUS      n  cannot bind: never with -PLUS
//   y  can bind but thinks we cannot: a lie of somebody in between if we offered it
bool ScramServer::read_gs2_header(std::string_view& rest, bool plus) {
  std::string_view header = plus ? kPlusHeader : kNoBindingHeader;
  if (!plus && !options_.channel_binding_offered && rest.starts_with(kSupportedHeader)) header = kSupportedHeader;
  if (!rest.starts_with(header)) return false;
  rest.remove_prefix(header.size());
  binding_ = base64_encode(std::string(header).append(plus ? options_.channel_binding_data : std::string()));
  return true;
}

std::optional<std::string> ScramServer::first(std::string_view mechanism, std::string_view client_first) {
  if (state_ != State::First) return std::nullopt;
  state_ = State::Done;
  const bool plus = mechanism == kScramPlusMechanism;
  if (!plus && mechanism != kScramMechanism) return std::nullopt;
  const bool can_bind = options_.channel_binding_offered && !options_.channel_binding_data.empty();
  if (plus && !can_bind) return std::nullopt;
  if (!is_acceptable_size(client_first, kScramClientMessageMax)) return std::nullopt;

  std::string_view bare = client_first;
  if (!read_gs2_header(bare, plus)) return std::nullopt;
  ScramAttributes attributes(bare);
  const auto user = attributes.next('n');
  const auto client_nonce = user ? attributes.next('r') : std::nullopt;
  if (!client_nonce || !is_valid_nonce(*client_nonce) || !attributes.skip_extensions()) return std::nullopt;

  client_first_bare_ = bare;
  nonce_.insert(0, *client_nonce);
  server_first_ = "r=" + nonce_ + ",s=" + base64_encode(secret_.salt) + ",i=" + std::to_string(secret_.iterations);
  state_ = State::Final;
  return server_first_;
}

ScramServer::Result ScramServer::final(std::string_view client_final) {
  if (state_ != State::Final) return {};
  state_ = State::Done;
  if (!is_acceptable_size(client_final, kScramClientMessageMax)) return {};
  const auto message = parse_client_final(client_final);
  if (!message || message->binding != binding_ || !equal_secrets(message->nonce, nonce_)) return {};

  const std::string auth_message = join_auth_message(client_first_bare_, server_first_, message->without_proof);
  const Sha256Digest client_signature = crypto_.hmac_sha256(digest_view(secret_.stored_key), auth_message);
  const Sha256Digest client_key = exclusive_or(message->proof, client_signature);
  const Sha256Digest stored_key = crypto_.sha256(digest_view(client_key));
  const bool proved = equal_secrets(digest_view(stored_key), digest_view(secret_.stored_key));
  if (!proved || mock_) return {};
  const Sha256Digest signature = crypto_.hmac_sha256(digest_view(secret_.server_key), auth_message);
  return {true, "v=" + base64_encode(digest_view(signature)), client_key};
}

ScramClient::ScramClient(const Crypto& crypto, std::string password, std::string nonce, ScramClientOptions options,
                         SaltedPasswordCache* cache)
    : crypto_(crypto),
      password_(std::move(password)),
      nonce_(std::move(nonce)),
      options_(std::move(options)),
      cache_(cache) {}

ScramClient::ScramClient(const Crypto& crypto, const ScramKeys& keys, std::string nonce, ScramClientOptions options)
    : crypto_(crypto), keys_(keys), nonce_(std::move(nonce)), options_(std::move(options)) {}

std::string_view ScramClient::mechanism() const {
  const bool bind = options_.server_offered_plus && !options_.channel_binding_data.empty();
  return bind ? kScramPlusMechanism : kScramMechanism;
}

// "y" tells the server that we would have bound to the channel had it offered to: it can then detect that somebody took
// the -PLUS mechanism out of its list.
std::string_view ScramClient::gs2_header() const {
  if (use_plus()) return kPlusHeader;
  return options_.channel_binding_data.empty() ? kNoBindingHeader : kSupportedHeader;
}

std::string ScramClient::first() {
  // PostgreSQL takes the user from the start-up message, so the name is left empty, as libpq does.
  client_first_bare_ = "n=,r=" + nonce_;
  if (state_ == State::First) state_ = State::Answer;
  return std::string(gs2_header()) + client_first_bare_;
}

ScramKeys ScramClient::keys_of(const Sha256Digest& salted_password) const {
  return {crypto_.hmac_sha256(digest_view(salted_password), "Client Key"),
          crypto_.hmac_sha256(digest_view(salted_password), "Server Key")};
}

struct ScramClient::ServerFirst {
  std::string_view nonce;
  std::string salt;
  std::uint32_t iterations;
};

// Nullopt unless it is one that may be answered.
std::optional<ScramClient::ServerFirst> ScramClient::read_server_first(std::string_view message) const {
  if (!is_acceptable_size(message, kScramServerMessageMax)) return std::nullopt;
  ScramAttributes attributes(message);
  const auto nonce = attributes.next('r');
  const auto salt_text = nonce ? attributes.next('s') : std::nullopt;
  const auto iterations_text = salt_text ? attributes.next('i') : std::nullopt;
  if (!iterations_text || !attributes.skip_extensions()) return std::nullopt;

  auto salt = base64_decode(*salt_text);
  std::uint32_t iterations = 0;
  const char* const end = iterations_text->data() + iterations_text->size();
  const auto [stop, error] = std::from_chars(iterations_text->data(), end, iterations);
  if (!salt || salt->empty() || error != std::errc() || stop != end) return std::nullopt;
  // The server has to add to our nonce: otherwise the exchange would not be fresh for it.
  const bool continues_ours = nonce->size() > nonce_.size() && nonce->starts_with(nonce_);
  if (!continues_ours || !is_valid_nonce(*nonce)) return std::nullopt;
  if (iterations == 0 || iterations > options_.iterations_max) return std::nullopt;
  return ServerFirst{*nonce, std::move(*salt), iterations};
}

std::optional<ScramClient::MissingKey> ScramClient::missing_key(std::string_view server_first) const {
  if (state_ != State::Answer || keys_) return std::nullopt;
  auto message = read_server_first(server_first);
  if (!message) return std::nullopt;
  const bool known = cache_ != nullptr &&
                     find_salted_password(crypto_, password_, message->salt, message->iterations, *cache_) != nullptr;
  if (known) return std::nullopt;
  return MissingKey{prepare_password(password_), std::move(message->salt), message->iterations};
}

void ScramClient::take_key(std::string_view salt, std::uint32_t iterations, const Sha256Digest& salted_password) {
  if (cache_ != nullptr) keep_salted_password(crypto_, password_, salt, iterations, salted_password, *cache_);
  keys_ = keys_of(salted_password);
}

std::optional<std::string> ScramClient::answer(std::string_view server_first) {
  if (state_ != State::Answer) return std::nullopt;
  state_ = State::Done;
  const auto message = read_server_first(server_first);
  if (!message) return std::nullopt;

  std::string binding(gs2_header());
  if (use_plus()) binding += options_.channel_binding_data;
  std::string reply = "c=" + base64_encode(binding) + ",r=" + std::string(message->nonce);
  const std::string auth_message = join_auth_message(client_first_bare_, server_first, reply);

  const ScramKeys keys =
      keys_ ? *keys_ : keys_of(salted_password(crypto_, password_, message->salt, message->iterations, cache_));
  const Sha256Digest stored_key = crypto_.sha256(digest_view(keys.client_key));
  const Sha256Digest client_signature = crypto_.hmac_sha256(digest_view(stored_key), auth_message);
  server_signature_ = crypto_.hmac_sha256(digest_view(keys.server_key), auth_message);
  state_ = State::Verify;
  return reply + ",p=" + base64_encode(digest_view(exclusive_or(keys.client_key, client_signature)));
}

bool ScramClient::verify(std::string_view server_final) {
  if (state_ != State::Verify) return false;
  state_ = State::Done;
  if (!is_acceptable_size(server_final, kScramServerMessageMax)) return false;
  ScramAttributes attributes(server_final);
  const auto signature_text = attributes.next('v');
  if (!signature_text || !attributes.skip_extensions()) return false;
  const auto signature = decode_digest(*signature_text);
  return signature && equal_secrets(digest_view(*signature), digest_view(server_signature_));
}

}  // namespace pgweir::protocol
