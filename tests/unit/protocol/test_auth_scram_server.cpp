// ScramServer: the exchange of RFC 7677, every way to spoil it, channel binding and mock users.
#include <catch2/catch.hpp>

#include "protocol/auth_scram.hpp"
#include "protocol/base64.hpp"
#include "proxy/io/openssl_crypto.hpp"

using namespace pgweir::protocol;
using namespace std::string_literals;

namespace {

const std::string kClientNonce = "rOprNGfwEbeRWgbNEkqO";
const std::string kServerNonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const std::string kBothNonces = kClientNonce + kServerNonce;
const std::string kClientFirst = "n,,n=user,r=" + kClientNonce;
const std::string kServerFirst = "r=" + kBothNonces + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const std::string kProof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const std::string kClientFinal = "c=biws,r=" + kBothNonces + ",p=" + kProof;
const std::string kServerFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
const std::string kClientKey = "pg/JI9Z+hkSpLRa5btpe9GVrDHJcSEN0viVTVXaZbos=";

// Channel binding data 00 01 .. 1f, and the vectors for the client that binds to it (computed with Python's hmac).
std::string binding_data() {
  std::string data;
  for (char c = 0; c < 32; ++c) data += c;
  return data;
}
const std::string kPlusFirst = "p=tls-server-end-point,,n=,r=" + kClientNonce;
const std::string kPlusBinding = "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const std::string kPlusProof = "Q8h71kjaoMzNI7dPksDrhRE/5mTUObF0fUHVIgBOWQg=";
const std::string kPlusServerFinal = "v=ykwoqH8mLqO5AQCeuwwf6lsj9f8zyJZT/CcvAbN4Ssc=";

const pgweir::io::OpensslCrypto& crypto() {
  static const pgweir::io::OpensslCrypto instance;
  return instance;
}

const ScramSecret& pencil() {
  static const ScramSecret secret =
      make_scram_secret(crypto(), "pencil", 4096, *base64_decode("W22ZaJ0SNY7soEsUEjb6gQ=="));
  return secret;
}

ScramServer plain_server() {
  return {crypto(), pencil(), false, kServerNonce};
}
ScramServer plus_server() {
  return {crypto(), pencil(), false, kServerNonce, {true, binding_data()}};
}

void check_failed(const ScramServer::Result& result) {
  CHECK_FALSE(result.ok);
  CHECK(result.server_final.empty());
  CHECK(result.client_key == Sha256Digest{});
}

}  // namespace

TEST_CASE("the server side of the exchange in RFC 7677", "[auth][scram]") {
  ScramServer server = plain_server();
  CHECK(server.first(kScramMechanism, kClientFirst) == kServerFirst);
  const auto result = server.final(kClientFinal);
  CHECK(result.ok);
  CHECK(result.server_final == kServerFinal);
  CHECK(base64_encode(digest_view(result.client_key)) == kClientKey);
}

TEST_CASE("the server takes each message once and in order", "[auth][scram]") {
  ScramServer server = plain_server();
  check_failed(server.final(kClientFinal));
  REQUIRE(server.first(kScramMechanism, kClientFirst));
  CHECK_FALSE(server.first(kScramMechanism, kClientFirst));

  ScramServer done = plain_server();
  REQUIRE(done.first(kScramMechanism, kClientFirst));
  REQUIRE(done.final(kClientFinal).ok);
  check_failed(done.final(kClientFinal));

  ScramServer refused = plain_server();
  CHECK_FALSE(refused.first(kScramMechanism, "n,,"));
  CHECK_FALSE(refused.first(kScramMechanism, kClientFirst));
  check_failed(refused.final(kClientFinal));
}

TEST_CASE("a second try after a wrong proof is refused", "[auth][scram]") {
  ScramServer server = plain_server();
  REQUIRE(server.first(kScramMechanism, kClientFirst));
  check_failed(server.final("c=biws,r=" + kBothNonces + ",p=" + base64_encode(std::string(32, 'x'))));
  check_failed(server.final(kClientFinal));
}

TEST_CASE("the server ignores the user name and optional extensions", "[auth][scram]") {
  for (const std::string& message : {"n,,n=,r=abc"s, "y,,n=,r=abc"s, "n,,n=*,r=abc"s, "n,,n=a=2Cb,r=abc"s,
                                     "n,,n=,r=abc,x=1"s, "n,,n=,r=abc,x=,Y=2"s}) {
    CAPTURE(message);
    CHECK(plain_server().first(kScramMechanism, message) ==
          "r=abc" + kServerNonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
  }
}

TEST_CASE("the server refuses malformed first messages", "[auth][scram]") {
  const std::string longest = "n,,n=,r=" + std::string(kScramClientMessageMax - 8, 'r');
  REQUIRE(longest.size() == kScramClientMessageMax);
  CHECK(plain_server().first(kScramMechanism, longest));
  for (const std::string& message : {""s,
                                     "n"s,
                                     "n,"s,
                                     "n,,"s,
                                     "n=,r=abc"s,
                                     "n,,n="s,
                                     "n,,r=abc"s,
                                     "n,,r=abc,n="s,
                                     "n,,n=,r="s,
                                     "n,,n=,,r=abc"s,
                                     "n,,n=,r"s,
                                     "n,,n=,r=abc,"s,
                                     "n,,n=,r=abc,x"s,
                                     "n,,n=,r=abc,=1"s,
                                     "n,,n=,r=abc,1=1"s,
                                     "n,,n=,r=abc,,x=1"s,
                                     "n,,n=,r=a b"s,
                                     "n,,n=,r=a\x7f"s,
                                     "n,,n=,r=a\xc3\xa4"s,
                                     "n,,n=,r=a\nb"s,
                                     "n,,n=,r=abc\0"s,
                                     "n,,n=\0,r=abc"s,
                                     "n,,m=ext,n=,r=abc"s,
                                     "n,a=user,n=,r=abc"s,
                                     "n,user,n=,r=abc"s,
                                     "N,,n=,r=abc"s,
                                     "x,,n=,r=abc"s,
                                     " n,,n=,r=abc"s,
                                     ",,n=,r=abc"s,
                                     "y,a=user,n=,r=abc"s,
                                     longest + "r"}) {
    CAPTURE(message);
    CHECK_FALSE(plain_server().first(kScramMechanism, message));
  }
}

TEST_CASE("the server refuses mechanisms it did not offer", "[auth][scram]") {
  for (const char* mechanism :
       {"", "SCRAM-SHA-1", "SCRAM-SHA-512", "scram-sha-256", "SCRAM-SHA-256 ", "SCRAM-SHA-256-PLUS", "PLAIN"}) {
    CAPTURE(mechanism);
    CHECK_FALSE(plain_server().first(mechanism, kClientFirst));
  }
  CHECK_FALSE(plain_server().first(kScramPlusMechanism, kPlusFirst));
}

TEST_CASE("the server refuses malformed final messages and wrong proofs", "[auth][scram]") {
  const std::string r = ",r=" + kBothNonces;
  const std::string p = ",p=" + kProof;
  std::string flipped = *base64_decode(kProof);
  flipped[31] = static_cast<char>(flipped[31] ^ 1);
  for (const std::string& message : {""s,
                                     "c"s,
                                     "c=biws"s,
                                     "c=biws" + r,
                                     "c=biws" + p,
                                     "r=" + kBothNonces + p,
                                     "r=" + kBothNonces + ",c=biws" + p,
                                     "c=biws" + p + r,
                                     "c=biws" + r + ","s,
                                     "c=biws" + r + ",p"s,
                                     "c=biws" + r + ",p="s,
                                     "c=biws" + r + p + ",",
                                     "c=biws" + r + p + ",x=1",
                                     "c=biws" + r + p + p,
                                     "c=biws" + r + ",x=1" + p,  // well-formed, but not what was signed
                                     "c=biws" + r + "," + p,
                                     "c=biws," + r + p,
                                     "c=biw=" + r + p,
                                     "c=biw" + r + p,
                                     "c=" + r + p,
                                     "c=eSws" + r + p,
                                     "c=bixh" + r + p,
                                     "c=biwsYQ==" + r + p,
                                     "c=cD10bHMtc2VydmVyLWVuZC1wb2ludCws" + r + p,
                                     "C=biws" + r + p,
                                     "c=biws,r=" + p,
                                     "c=biws,r=" + kClientNonce + p,
                                     "c=biws,r=" + kServerNonce + p,
                                     "c=biws" + r + "x" + p,
                                     "c=biws" + r.substr(0, r.size() - 1) + p,
                                     "c=biws" + r + ",p=" + kProof.substr(4),
                                     "c=biws" + r + ",p=" + kProof.substr(0, 43),
                                     "c=biws" + r + ",p=AAAA" + kProof,
                                     "c=biws" + r + ",p=" + kProof.substr(0, 20) + "\n" + kProof.substr(20),
                                     "c=biws" + r + ",p=!" + kProof.substr(1),
                                     "c=biws" + r + ",p=" + base64_encode(flipped),
                                     "c=biws" + r + ",p=" + base64_encode(std::string(32, '\0')),
                                     kClientFinal + "\0"s,
                                     " " + kClientFinal,
                                     "c=biws" + r + ",x=" + std::string(kScramClientMessageMax, 'x') + p}) {
    CAPTURE(message);
    ScramServer server = plain_server();
    REQUIRE(server.first(kScramMechanism, kClientFirst));
    check_failed(server.final(message));
  }
}

TEST_CASE("extensions in the final message are part of what is signed", "[auth][scram]") {
  ScramServer server = plain_server();
  const auto server_first = server.first(kScramMechanism, kClientFirst);
  REQUIRE(server_first);
  const std::string without_proof = "c=biws,r=" + kBothNonces + ",x=anything";
  const std::string auth_message = kClientFirst.substr(3) + "," + *server_first + "," + without_proof;
  const auto signature = crypto().hmac_sha256(digest_view(pencil().stored_key), auth_message);
  std::string proof = *base64_decode(kClientKey);
  for (std::size_t i = 0; i < proof.size(); ++i) proof[i] = static_cast<char>(proof[i] ^ signature[i]);
  CHECK(server.final(without_proof + ",p=" + base64_encode(proof)).ok);
}

TEST_CASE("the server binds to the TLS channel", "[auth][scram]") {
  ScramServer server = plus_server();
  CHECK(server.first(kScramPlusMechanism, kPlusFirst) == kServerFirst);
  const auto result = server.final("c=" + kPlusBinding + ",r=" + kBothNonces + ",p=" + kPlusProof);
  CHECK(result.ok);
  CHECK(result.server_final == kPlusServerFinal);
  CHECK(base64_encode(digest_view(result.client_key)) == kClientKey);
}

TEST_CASE("the server refuses a channel that is not its own", "[auth][scram]") {
  std::string other = binding_data();
  other[5] = 'x';
  ScramServer server(crypto(), pencil(), false, kServerNonce, {true, other});
  REQUIRE(server.first(kScramPlusMechanism, kPlusFirst));
  check_failed(server.final("c=" + kPlusBinding + ",r=" + kBothNonces + ",p=" + kPlusProof));

  ScramServer unbound = plus_server();
  REQUIRE(unbound.first(kScramPlusMechanism, kPlusFirst));
  check_failed(unbound.final("c=cD10bHMtc2VydmVyLWVuZC1wb2ludCws,r=" + kBothNonces + ",p=" + kPlusProof));
}

TEST_CASE("the server detects a downgrade and mixed-up mechanisms", "[auth][scram]") {
  const std::string rest = "n=,r=" + kClientNonce;
  CHECK_FALSE(plus_server().first(kScramMechanism, "y,," + rest));  // we offered -PLUS, somebody hid it
  CHECK(plus_server().first(kScramMechanism, "n,," + rest));
  CHECK(plain_server().first(kScramMechanism, "y,," + rest));
  CHECK_FALSE(plus_server().first(kScramPlusMechanism, "n,," + rest));
  CHECK_FALSE(plus_server().first(kScramPlusMechanism, "y,," + rest));
  CHECK_FALSE(plus_server().first(kScramMechanism, kPlusFirst));
  CHECK_FALSE(plain_server().first(kScramMechanism, kPlusFirst));
  CHECK_FALSE(plus_server().first(kScramPlusMechanism, "p=tls-unique,," + rest));
  CHECK_FALSE(plus_server().first(kScramPlusMechanism, "p=tls-server-end-poin,," + rest));
  CHECK_FALSE(plus_server().first(kScramPlusMechanism, "p=,," + rest));
  CHECK_FALSE(plus_server().first(kScramPlusMechanism, "p,," + rest));
  CHECK_FALSE(plus_server().first(kScramPlusMechanism, "p=tls-server-end-point,a=user," + rest));

  ScramServer without_data(crypto(), pencil(), false, kServerNonce, {true, ""});
  CHECK_FALSE(without_data.first(kScramPlusMechanism, kPlusFirst));
}

TEST_CASE("a client that claims y must repeat it", "[auth][scram]") {
  ScramServer server = plain_server();
  REQUIRE(server.first(kScramMechanism, "y,,n=,r=" + kClientNonce));
  CHECK(server.final("c=eSws,r=" + kBothNonces + ",p=VpuC5DGQa5ro9tXE9MnKs69NH1nxnuregZZcclqIGfM=").ok);

  ScramServer other = plain_server();
  REQUIRE(other.first(kScramMechanism, "y,,n=,r=" + kClientNonce));
  check_failed(other.final("c=biws,r=" + kBothNonces + ",p=VpuC5DGQa5ro9tXE9MnKs69NH1nxnuregZZcclqIGfM="));
}

TEST_CASE("an unknown user is asked like a known one and then fails", "[auth][scram]") {
  const ScramSecret mock = mock_scram_secret(crypto(), "nobody", "process key");
  ScramServer server(crypto(), mock, true, kServerNonce);
  CHECK(server.first(kScramMechanism, kClientFirst) ==
        "r=" + kBothNonces + ",s=" + base64_encode(mock.salt) + ",i=4096");
  check_failed(server.final(kClientFinal));

  // Even the right password of a real secret does not help once the exchange is marked as a mock.
  ScramServer marked(crypto(), pencil(), true, kServerNonce);
  REQUIRE(marked.first(kScramMechanism, kClientFirst));
  check_failed(marked.final(kClientFinal));
}

TEST_CASE("nonces are fresh and printable", "[auth][scram]") {
  pgweir::io::OpensslCrypto random;
  const std::string nonce = make_scram_nonce(random);
  CHECK(nonce.size() == 24);
  CHECK(base64_decode(nonce)->size() == 18);
  CHECK(nonce != make_scram_nonce(random));
}
