// ScramClient: exchanges with fixed nonces (computed with Python's hashlib and hmac), every way a server can be wrong,
// the choice of mechanism, pass-through keys, and both machines against each other.
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
const std::string kSalt = "W22ZaJ0SNY7soEsUEjb6gQ==";
const std::string kServerFirst = "r=" + kBothNonces + ",s=" + kSalt + ",i=4096";
const std::string kServerFinal = "v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg=";
const std::string kProof = "qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k=";

std::string binding_data() {
  std::string data;
  for (char c = 0; c < 32; ++c) data += c;
  return data;
}

const pgweir::io::OpensslCrypto& crypto() {
  static const pgweir::io::OpensslCrypto instance;
  return instance;
}

ScramClient pencil_client(ScramClientOptions options = {}) {
  return {crypto(), "pencil"s, kClientNonce, std::move(options)};
}

ScramClient started_client(ScramClientOptions options = {}) {
  ScramClient client = pencil_client(std::move(options));
  static_cast<void>(client.first());
  return client;
}

/// Lets both machines talk; true if both are satisfied.
bool log_in(ScramClient& client, ScramServer& server, Sha256Digest* client_key = nullptr) {
  const auto server_first = server.first(client.mechanism(), client.first());
  if (!server_first) return false;
  const auto client_final = client.answer(*server_first);
  if (!client_final) return false;
  const auto result = server.final(*client_final);
  if (client_key) *client_key = result.client_key;
  return result.ok && client.verify(result.server_final);
}

}  // namespace

TEST_CASE("the client side with the numbers of RFC 7677 and libpq's empty user", "[auth][scram]") {
  ScramClient client = pencil_client();
  CHECK(client.mechanism() == "SCRAM-SHA-256");
  CHECK(client.first() == "n,,n=,r=" + kClientNonce);
  CHECK(client.answer(kServerFirst) == "c=biws,r=" + kBothNonces + ",p=" + kProof);
  CHECK(client.verify(kServerFinal));
  CHECK_FALSE(client.verify(kServerFinal));
}

TEST_CASE("the client says y if it could have bound to the channel", "[auth][scram]") {
  ScramClient client = pencil_client({false, binding_data()});
  CHECK(client.mechanism() == "SCRAM-SHA-256");
  CHECK(client.first() == "y,,n=,r=" + kClientNonce);
  CHECK(client.answer(kServerFirst) == "c=eSws,r=" + kBothNonces + ",p=VpuC5DGQa5ro9tXE9MnKs69NH1nxnuregZZcclqIGfM=");
  CHECK(client.verify("v=FOmOj9BpTGwvnzwBtWQjBaPmVxT9I8IeHBOhcIPu3us="));
}

TEST_CASE("the client binds to the channel if it can", "[auth][scram]") {
  ScramClient client = pencil_client({true, binding_data()});
  CHECK(client.mechanism() == "SCRAM-SHA-256-PLUS");
  CHECK(client.first() == "p=tls-server-end-point,,n=,r=" + kClientNonce);
  CHECK(client.answer(kServerFirst) ==
        "c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=,r=" + kBothNonces +
            ",p=Q8h71kjaoMzNI7dPksDrhRE/5mTUObF0fUHVIgBOWQg=");
  CHECK(client.verify("v=ykwoqH8mLqO5AQCeuwwf6lsj9f8zyJZT/CcvAbN4Ssc="));

  ScramClient without_tls = pencil_client({true, ""});
  CHECK(without_tls.mechanism() == "SCRAM-SHA-256");
  CHECK(without_tls.first() == "n,,n=,r=" + kClientNonce);
}

TEST_CASE("the client takes messages once and in order", "[auth][scram]") {
  ScramClient client = pencil_client();
  CHECK_FALSE(client.answer(kServerFirst));
  CHECK_FALSE(client.verify(kServerFinal));
  static_cast<void>(client.first());
  CHECK_FALSE(client.verify(kServerFinal));
  REQUIRE(client.answer(kServerFirst));
  CHECK_FALSE(client.answer(kServerFirst));

  ScramClient refused = started_client();
  CHECK_FALSE(refused.answer("r="));
  static_cast<void>(refused.first());
  CHECK_FALSE(refused.answer(kServerFirst));
}

TEST_CASE("the client refuses malformed first messages of the server", "[auth][scram]") {
  const std::string s = ",s=" + kSalt;
  for (const std::string& message : {""s,
                                     "r"s,
                                     "r=" + kBothNonces,
                                     "r=" + kBothNonces + s,
                                     "r=" + kBothNonces + ",i=4096",
                                     "s=" + kSalt + ",i=4096",
                                     "s=" + kSalt + ",r=" + kBothNonces + ",i=4096",
                                     "r=" + kBothNonces + ",i=4096" + s,
                                     "m=ext," + kServerFirst,
                                     "e=other-error"s,
                                     kServerFirst + ",",
                                     kServerFirst + ",x",
                                     kServerFirst + ",,x=1",
                                     kServerFirst + "\0"s,
                                     " " + kServerFirst,
                                     "r=" + kBothNonces + ",s=,i=4096",
                                     "r=" + kBothNonces + ",s=W22ZaJ0SNY7soEsUEjb6gQ=,i=4096",
                                     "r=" + kBothNonces + ",s=W22ZaJ0SNY7so\nEsUEjb6gQ==,i=4096",
                                     "r=" + kBothNonces + s + ",i=",
                                     "r=" + kBothNonces + s + ",i=0",
                                     "r=" + kBothNonces + s + ",i=-1",
                                     "r=" + kBothNonces + s + ",i=+1",
                                     "r=" + kBothNonces + s + ",i= 1",
                                     "r=" + kBothNonces + s + ",i=1 ",
                                     "r=" + kBothNonces + s + ",i=1e3",
                                     "r=" + kBothNonces + s + ",i=10000001",
                                     "r=" + kBothNonces + s + ",i=4294967296",
                                     "r=" + kBothNonces + s + ",i=4294967297",
                                     "r=" + kBothNonces + s + ",i=99999999999999999999999",
                                     "r=" + s + ",i=4096",
                                     "r=" + kClientNonce + s + ",i=4096",
                                     "r=" + kServerNonce + s + ",i=4096",
                                     "r=" + kServerNonce + kClientNonce + s + ",i=4096",
                                     "r=x" + kBothNonces.substr(1) + s + ",i=4096",
                                     "r=" + kBothNonces + "\x7f" + s + ",i=4096",
                                     "r=" + kBothNonces + " " + s + ",i=4096",
                                     kServerFirst + ",x=" + std::string(kScramServerMessageMax, 'x')}) {
    CAPTURE(message);
    ScramClient client = started_client();
    CHECK_FALSE(client.answer(message));
    CHECK_FALSE(client.verify(kServerFinal));
  }
}

TEST_CASE("the client's bound on iterations is exact", "[auth][scram]") {
  const std::string before = "r=" + kBothNonces + ",s=" + kSalt + ",i=";
  CHECK(started_client({false, "", 20}).answer(before + "20"));
  CHECK(started_client({false, "", 20}).answer(before + "1"));
  CHECK_FALSE(started_client({false, "", 20}).answer(before + "21"));
}

TEST_CASE("the client reads over optional extensions", "[auth][scram]") {
  CHECK(started_client().answer(kServerFirst + ",x=1,y="));
  ScramClient client = started_client();
  REQUIRE(client.answer(kServerFirst));
  CHECK(client.verify(kServerFinal + ",x=1"));
}

TEST_CASE("the client refuses a server that does not know the secret", "[auth][scram]") {
  std::string flipped = *base64_decode(kServerFinal.substr(2));
  flipped[0] = static_cast<char>(flipped[0] ^ 1);
  for (const std::string& message :
       {""s, "v"s, "v="s, "v=" + base64_encode(flipped), "v=" + base64_encode(std::string(32, '\0')),
        "e=invalid-proof"s, "e=other-error," + kServerFinal, "V=" + kServerFinal.substr(2), " " + kServerFinal,
        kServerFinal + ",", kServerFinal + "=", kServerFinal + "\0"s, kServerFinal + " ", "v=" + kServerFinal.substr(6),
        "v=AAAA" + kServerFinal.substr(2), "x=1," + kServerFinal, kServerFinal.substr(0, kServerFinal.size() - 1),
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="s}) {
    CAPTURE(message);
    ScramClient client = started_client();
    REQUIRE(client.answer(kServerFirst));
    CHECK_FALSE(client.verify(message));
    CHECK_FALSE(client.verify(kServerFinal));
  }
}

TEST_CASE("both machines agree with each other", "[auth][scram]") {
  for (const char* password : {"pencil", "", " ", "\u2168\u00A0x", "\xff\xfe", "\u06271"}) {
    CAPTURE(password);
    const ScramSecret secret = make_scram_secret(crypto(), password, 16, "salt salt");
    for (const bool tls : {false, true}) {
      for (const bool offered : {false, true}) {
        ScramClient client(crypto(), std::string(password), "abc", {offered && tls, tls ? binding_data() : ""});
        ScramServer server(crypto(), secret, false, "def", {offered && tls, binding_data()});
        CHECK(log_in(client, server));
      }
    }
    ScramClient wrong(crypto(), std::string(password) + "x", "abc");
    ScramServer server(crypto(), secret, false, "def");
    CHECK_FALSE(log_in(wrong, server));
  }
}

TEST_CASE("a hidden -PLUS mechanism and another certificate are both noticed", "[auth][scram]") {
  const ScramSecret secret = make_scram_secret(crypto(), "pencil", 16, "salt");
  ScramClient deceived(crypto(), "pencil"s, "abc", {false, binding_data()});
  ScramServer offering(crypto(), secret, false, "def", {true, binding_data()});
  CHECK_FALSE(log_in(deceived, offering));

  ScramClient intercepted(crypto(), "pencil"s, "abc", {true, "hash of the wrong certificate"});
  ScramServer real(crypto(), secret, false, "def", {true, binding_data()});
  CHECK_FALSE(log_in(intercepted, real));
}

TEST_CASE("keys recovered from a client's login log in to the server", "[auth][scram]") {
  const ScramSecret secret = make_scram_secret(crypto(), "pencil", 16, "salt");
  ScramClient user(crypto(), "pencil"s, "abc");
  ScramServer us(crypto(), secret, false, "def");
  ScramKeys keys;
  REQUIRE(log_in(user, us, &keys.client_key));
  keys.server_key = secret.server_key;

  ScramClient pass_through(crypto(), keys, "ghi", {true, binding_data()});
  ScramServer postgres(crypto(), secret, false, "jkl", {true, binding_data()});
  CHECK(log_in(pass_through, postgres));

  // Another salt on the server makes the keys worthless.
  ScramClient elsewhere(crypto(), keys, "ghi");
  ScramServer other(crypto(), make_scram_secret(crypto(), "pencil", 16, "tlas"), false, "jkl");
  CHECK_FALSE(log_in(elsewhere, other));

  keys.server_key = secret.stored_key;
  ScramClient suspicious(crypto(), keys, "ghi");
  ScramServer again(crypto(), secret, false, "jkl");
  CHECK_FALSE(log_in(suspicious, again));
}

TEST_CASE("the client keeps salted passwords in the cache", "[auth][scram]") {
  SaltedPasswordCache cache;
  const ScramSecret secret = make_scram_secret(crypto(), "pencil", 16, "salt");
  for (int round = 0; round < 2; ++round) {
    ScramClient client(crypto(), "pencil"s, "abc", {}, &cache);
    ScramServer server(crypto(), secret, false, "def");
    CHECK(log_in(client, server));
    CHECK(cache.size() == 1);
  }
  ScramClient wrong(crypto(), "pencils"s, "abc", {}, &cache);
  ScramServer server(crypto(), secret, false, "def");
  CHECK_FALSE(log_in(wrong, server));
  CHECK(cache.size() == 2);
}
