// SCRAM from both sides, stored secrets and SASLprep. An exchange that nobody touches succeeds, with and without
// channel binding; a message that does not prove the password never does, and neither does one for another channel;
// what we answer is bounded, and a server cannot make us compute more than we allow. The formulas are written down here
// again.
//
// Input: a byte of options, then up to six parts separated by line feeds: client-first and client-final of a hostile
// client, server-first and server-final of a hostile server, a stored secret, a password. With the nonces below and
// an empty sixth part, messages that are right can be spelled out; the corpus has some.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/auth_md5.hpp"
#include "protocol/auth_scram.hpp"
#include "protocol/auth_secret.hpp"
#include "protocol/base64.hpp"
#include "protocol/saslprep.hpp"
#include "tests/fake_crypto.hpp"
#include "tests/fuzz/fuzz_check.hpp"

namespace pgweir::protocol {
namespace {

using fuzz::check;
using test::FakeCrypto;

constexpr std::string_view kClientNonce = "client+nonce/";
constexpr std::string_view kServerNonce = "server+nonce/";
constexpr std::string_view kSalt = "0123456789abcdef";
constexpr std::uint32_t kIterations = 16;
constexpr std::uint32_t kIterationsMax = 1000;
/// The longest expansion NFKC knows is U+FDFA: 3 bytes become 33.
constexpr std::size_t kExpansionMax = 11;

struct Case {
  bool tls = false;      ///< both ends have the hash of a certificate
  bool offered = false;  ///< the server offers -PLUS
  bool mock = false, by_keys = false, cached = false, claim_plus = false;
  std::array<std::string, 6> parts;

  explicit Case(std::string_view in) {
    const unsigned options = in.empty() ? 0 : static_cast<unsigned char>(in.front());
    tls = (options & 1) != 0;
    offered = tls && (options & 2) != 0;
    mock = (options & 4) != 0;
    by_keys = (options & 8) != 0;
    cached = (options & 16) != 0;
    claim_plus = (options & 32) != 0;
    in.remove_prefix(std::min<std::size_t>(in.size(), 1));
    for (std::string& part : parts) {
      const std::size_t end = std::min(in.find('\n'), in.size());
      part = in.substr(0, end);
      in.remove_prefix(std::min(in.size(), end + 1));
    }
    if (parts[5].empty()) parts[5] = "pencil";
  }
  [[nodiscard]] const std::string& client_first() const { return parts[0]; }
  [[nodiscard]] const std::string& client_final() const { return parts[1]; }
  [[nodiscard]] const std::string& server_first() const { return parts[2]; }
  [[nodiscard]] const std::string& server_final() const { return parts[3]; }
  [[nodiscard]] const std::string& secret() const { return parts[4]; }
  [[nodiscard]] const std::string& password() const { return parts[5]; }
};

constexpr std::string_view kCertificate = "hash of the certificate";

// ---- the formulas of RFC 5802, once more ----

ScramKeys keys_of(const Crypto& crypto, std::string_view password, std::string_view salt, std::uint32_t iterations) {
  const Sha256Digest salted = crypto.pbkdf2_sha256(prepare_password(password), salt, iterations);
  return {crypto.hmac_sha256(digest_view(salted), "Client Key"), crypto.hmac_sha256(digest_view(salted), "Server Key")};
}

std::string proof_of(const Crypto& crypto, const ScramKeys& keys, std::string_view auth_message) {
  const Sha256Digest stored_key = crypto.sha256(digest_view(keys.client_key));
  Sha256Digest proof = crypto.hmac_sha256(digest_view(stored_key), auth_message);
  for (std::size_t i = 0; i < proof.size(); ++i) proof[i] = static_cast<unsigned char>(proof[i] ^ keys.client_key[i]);
  return base64_encode(digest_view(proof));
}

std::string signature_of(const Crypto& crypto, const ScramKeys& keys, std::string_view auth_message) {
  return "v=" + base64_encode(digest_view(crypto.hmac_sha256(digest_view(keys.server_key), auth_message)));
}

std::string auth_message_of(std::string_view client_first_bare, std::string_view server_first,
                            std::string_view without_proof) {
  return std::string(client_first_bare).append(",").append(server_first).append(",").append(without_proof);
}

/// The text itself, or with more attributes behind it.
bool extends(std::string_view text, std::string_view start) {
  return text.starts_with(start) && (text.size() == start.size() || text[start.size()] == ',');
}

// ---- both sides are ours ----

ScramServer make_server(const Case& input, const Crypto& crypto, bool mock) {
  const ScramSecret secret = make_scram_secret(crypto, input.password(), kIterations, kSalt);
  return {crypto, secret, mock, std::string(kServerNonce), {input.offered, std::string(input.tls ? kCertificate : "")}};
}

ScramClient make_client(const Case& input, const Crypto& crypto, bool offered, SaltedPasswordCache* cache) {
  const ScramClientOptions options{offered, std::string(input.tls ? kCertificate : ""), kIterationsMax};
  if (input.by_keys) {
    return {crypto, keys_of(crypto, input.password(), kSalt, kIterations), std::string(kClientNonce), options};
  }
  return {crypto, input.password(), std::string(kClientNonce), options, cache};
}

void check_untouched(const Case& input) {
  FakeCrypto crypto;
  SaltedPasswordCache cache;
  for (const bool mock : {false, true}) {
    ScramServer server = make_server(input, crypto, mock);
    ScramClient client = make_client(input, crypto, input.offered, input.cached ? &cache : nullptr);
    check((client.mechanism() == kScramPlusMechanism) == input.offered, "-PLUS exactly where both can");
    const auto server_first = server.first(client.mechanism(), client.first());
    check(server_first.has_value(), "an honest client-first");
    const auto client_final = client.answer(*server_first);
    check(client_final.has_value(), "an honest server-first");
    const ScramServer::Result result = server.final(*client_final);
    check(result.ok == !mock, "an honest proof, unless nobody has that name");
    check(result.ok != result.server_final.empty(), "a signature for who proved the password only");
    check(client.verify(result.server_final) == result.ok, "an honest signature");
    if (mock) continue;
    check(result.client_key == keys_of(crypto, input.password(), kSalt, kIterations).client_key, "the client's key");
    check(!server.final(*client_final).ok && !client.verify(result.server_final), "once only");
  }
}

/// Somebody in between takes -PLUS out of the list, or ends TLS with a certificate of his own.
void check_binding(const Case& input) {
  if (!input.offered) return;
  FakeCrypto crypto;
  ScramServer told = make_server(input, crypto, false);
  ScramClient misled = make_client(input, crypto, false, nullptr);
  check(misled.mechanism() == kScramMechanism, "no -PLUS if it is not offered");
  check(!told.first(misled.mechanism(), misled.first()), "a downgrade is noticed");

  ScramServer server = make_server(input, crypto, false);
  const ScramKeys keys = keys_of(crypto, input.password(), kSalt, kIterations);
  ScramClient client(crypto, keys, std::string(kClientNonce), {true, "another certificate", kIterationsMax});
  const auto server_first = server.first(client.mechanism(), client.first());
  check(server_first.has_value(), "-PLUS");
  const auto client_final = client.answer(*server_first);
  check(client_final && !server.final(*client_final).ok, "another channel");
}

// ---- a hostile client ----

struct ClientView {
  std::string mechanism, first, bare, server_first, honest_without_proof;
  ScramKeys keys;

  [[nodiscard]] std::string auth_message(std::string_view without_proof) const {
    return auth_message_of(bare, server_first, without_proof);
  }
};

/// What a client that sent this first message knows then; nullopt if it was refused.
std::optional<ClientView> begin(const Case& input, const Crypto& crypto, std::string_view first) {
  ClientView view;
  view.mechanism = input.claim_plus ? kScramPlusMechanism : kScramMechanism;
  view.first = first;
  view.keys = keys_of(crypto, input.password(), kSalt, kIterations);
  ScramServer server = make_server(input, crypto, false);
  check(!server.final(first).ok, "final before first");
  const auto answer = make_server(input, crypto, false).first(view.mechanism, first);
  check(!server.first("SCRAM-SHA-1", first), "another mechanism");
  if (!answer) return std::nullopt;
  check(first.size() <= kScramClientMessageMax && answer->size() <= first.size() + 128, "a short server-first");
  const std::size_t header_end = first.find(",,") + 2;
  view.bare = first.substr(header_end);
  view.server_first = *answer;
  const std::string_view nonce = std::string_view(*answer).substr(2, answer->find(',') - 2);
  check(answer->starts_with("r=") && nonce.ends_with(kServerNonce) && nonce.size() > kServerNonce.size(), "the nonce");
  const std::string binding = std::string(first.substr(0, header_end)).append(input.claim_plus ? kCertificate : "");
  view.honest_without_proof = "c=" + base64_encode(binding) + ",r=" + std::string(nonce);
  return view;
}

bool accepts(const Case& input, const Crypto& crypto, const ClientView& view, const std::string& final, bool mock) {
  ScramServer server = make_server(input, crypto, mock);
  check(server.first(view.mechanism, view.first) == view.server_first, "the same answer again");
  const ScramServer::Result result = server.final(final);
  check(result.ok || (result.server_final.empty() && result.client_key == Sha256Digest{}), "nothing for a failure");
  check(!server.final(final).ok && !server.first(view.mechanism, view.first), "over");
  if (!result.ok) return false;
  check(!mock, "nobody logs in under a name that does not exist");
  const std::string without_proof = final.substr(0, final.rfind(",p="));
  check(extends(without_proof, view.honest_without_proof), "this nonce on this channel");
  check(final == without_proof + ",p=" + proof_of(crypto, view.keys, view.auth_message(without_proof)), "a proof");
  check(result.server_final == signature_of(crypto, view.keys, view.auth_message(without_proof)), "our signature");
  return true;
}

void check_hostile_client(const Case& input) {
  FakeCrypto crypto;
  for (const bool honest_first : {false, true}) {
    const std::string header = input.claim_plus              ? "p=tls-server-end-point,,"
                               : input.tls && !input.offered ? "y,,"
                                                             : "n,,";
    const std::string first =
        honest_first ? header + "n=,r=" + std::string(kClientNonce) : std::string(input.client_first());
    const auto view = begin(input, crypto, first);
    check(view || !honest_first || input.claim_plus != input.offered, "an honest client-first");
    if (!view) continue;
    (void)accepts(input, crypto, *view, input.client_final(), input.mock);
    // Somebody who knows the password, first as it should be, then with the nonce, channel and extensions of the input.
    const auto proved = [&](const std::string& without_proof) {
      return without_proof + ",p=" + proof_of(crypto, view->keys, view->auth_message(without_proof));
    };
    const std::string right = proved(view->honest_without_proof);
    check(accepts(input, crypto, *view, right, input.mock) == (!input.mock && right.size() <= kScramClientMessageMax),
          "who knows the password gets in");
    (void)accepts(input, crypto, *view, proved(input.client_final().substr(0, input.client_final().rfind(",p="))),
                  false);
  }
}

// ---- a hostile server ----

/// The keys that follow from salt and iteration count of a server-first that was taken.
ScramKeys keys_for(const Case& input, const Crypto& crypto, std::string_view server_first) {
  const auto value_of = [&](std::string_view name) {
    const std::size_t at = server_first.find(name) + name.size();
    return server_first.substr(at, std::min(server_first.find(',', at), server_first.size()) - at);
  };
  if (input.by_keys) return keys_of(crypto, input.password(), kSalt, kIterations);
  const auto salt = base64_decode(value_of(",s="));
  check(salt.has_value() && !salt->empty(), "a salt");
  return keys_of(crypto, input.password(), *salt, static_cast<std::uint32_t>(std::stoul(std::string(value_of(",i=")))));
}

void check_server_first(const Case& input, const std::string& server_first) {
  FakeCrypto crypto;
  SaltedPasswordCache cache;
  const auto fresh = [&] {
    ScramClient client = make_client(input, crypto, input.offered, input.cached ? &cache : nullptr);
    check(!client.answer(server_first) && !client.verify(input.server_final()), "out of turn");
    return client;
  };
  ScramClient early = fresh();
  const std::string first = early.first();
  check(!early.verify(input.server_final()), "final before first");
  ScramClient client = fresh();
  check(client.first() == first, "the same again");
  const auto answer = client.answer(server_first);
  check(crypto.iterations_seen() <= kIterationsMax, "no more work than allowed");
  if (!answer) {
    check(!client.verify(input.server_final()), "over");
    return;
  }
  const std::string nonce = server_first.substr(2, server_first.find(',') - 2);
  check(nonce.starts_with(kClientNonce) && nonce.size() > kClientNonce.size(), "our nonce and theirs");
  check(server_first.size() <= kScramServerMessageMax && answer->size() <= server_first.size() + 256, "a short answer");
  const std::string header = first.substr(0, first.find(",,") + 2);
  const std::string binding = header + std::string(input.offered ? kCertificate : "");
  const std::string without_proof = "c=" + base64_encode(binding) + ",r=" + nonce;
  const std::string auth_message = auth_message_of(first.substr(header.size()), server_first, without_proof);
  const ScramKeys keys = keys_for(input, crypto, server_first);
  check(*answer == without_proof + ",p=" + proof_of(crypto, keys, auth_message), "our proof");

  const std::string right = signature_of(crypto, keys, auth_message);
  const bool verified = client.verify(input.server_final());
  check(!verified || extends(input.server_final(), right), "only who knows the password signs");
  check(!client.verify(right), "once only");
  ScramClient trusting = fresh();
  (void)trusting.first();
  check(trusting.answer(server_first) == answer && trusting.verify(right), "a right signature");
}

void check_hostile_server(const Case& input) {
  check_server_first(input, input.server_first());
  const std::string honest = "r=" + std::string(kClientNonce) + std::string(kServerNonce) +
                             ",s=" + base64_encode(kSalt) + ",i=" + std::to_string(kIterations);
  check_server_first(input, honest);
}

// ---- secrets and passwords ----

void check_secret(const Case& input) {
  FakeCrypto crypto;
  const std::string& text = input.secret();
  const std::string& password = input.password();
  const auto parsed = parse_scram_secret(text);
  const SecretKind kind = classify_secret(text);
  check((kind == SecretKind::Scram) == parsed.has_value() && (kind == SecretKind::Empty) == text.empty(), "the kind");
  bool right = kind == SecretKind::Plain && text == password;
  if (kind == SecretKind::Md5) right = text == md5_secret(crypto, "user", password);
  if (parsed) {
    check(!parsed->salt.empty() && parsed->iterations >= 1 && parsed->iterations <= 2147483647U, "limits of a secret");
    check(parse_scram_secret(format_scram_secret(*parsed)) == parsed, "printed and read again");
    check(format_scram_secret(*parsed).size() <= text.size(), "no bytes from nowhere");
    right = parsed->server_key == keys_of(crypto, password, parsed->salt, parsed->iterations).server_key;
  }
  check(check_plain_password(crypto, text, "user", password) == right, "a password against the secret");

  const ScramSecret made = make_scram_secret(crypto, password, kIterations, kSalt);
  const std::string printed = format_scram_secret(made);
  check(parse_scram_secret(printed) == made, "a secret of ours");
  check(check_plain_password(crypto, printed, "user", password), "the password of a secret of ours");
  check(!check_plain_password(crypto, printed, "user", password + "x"), "another password");
  check(mock_scram_secret(crypto, text, "key") == mock_scram_secret(crypto, text, "key"), "the same stand-in");
}

void check_saslprep(std::string_view text) {
  const auto prepared = saslprep(text);
  check(prepare_password(text) == prepared.value_or(std::string(text)), "the bytes as they are, if need be");
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
  if (ascii) check(prepared == std::string(text), "ASCII stays");
  if (!prepared) return;
  check(prepared->size() <= kExpansionMax * text.size(), "a bounded expansion");
  const auto again = saslprep(*prepared);
  check(!again || *again == *prepared, "prepared once and for all");
}

}  // namespace
}  // namespace pgweir::protocol

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pgweir::protocol;
  const Case input(pgweir::fuzz::as_view(data, size));
  check_untouched(input);
  check_binding(input);
  check_hostile_client(input);
  check_hostile_server(input);
  check_secret(input);
  for (const std::string& part : input.parts) check_saslprep(part);
  return 0;
}
