// Secrets of every shape, the MD5 formulas and the cache of salted passwords. Expected values were computed with
// Python's hashlib, except where PostgreSQL's documented examples exist.
#include <catch2/catch.hpp>

#include "protocol/auth_md5.hpp"
#include "protocol/auth_secret.hpp"
#include "protocol/base64.hpp"
#include "proxy/io/openssl_crypto.hpp"

using namespace pgweir::protocol;
using namespace std::string_literals;

namespace {

const std::string kPencil =
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const std::string kPencilSalt = *base64_decode("W22ZaJ0SNY7soEsUEjb6gQ==");
const std::string kAliceMd5 = "md54a0a68b43b6cd5cf266fa02f196e2371";  // password "secret"

/// Counts the expensive calls.
class CountingCrypto final : public Crypto {
 public:
  Sha256Digest sha256(std::string_view data) const override { return real_.sha256(data); }
  Sha256Digest hmac_sha256(std::string_view key, std::string_view data) const override {
    return real_.hmac_sha256(key, data);
  }
  Sha256Digest pbkdf2_sha256(std::string_view password, std::string_view salt,
                             std::uint32_t iterations) const override {
    ++pbkdf2_calls;
    return real_.pbkdf2_sha256(password, salt, iterations);
  }
  std::string md5_hex(std::string_view data) const override { return real_.md5_hex(data); }
  void random_bytes(std::span<unsigned char> out) override { real_.random_bytes(out); }

  mutable int pbkdf2_calls = 0;

 private:
  pgweir::io::OpensslCrypto real_;
};

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  const auto at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), with);
}

Sha256Digest digest_of(unsigned char value) {
  Sha256Digest digest{};
  digest[0] = value;
  return digest;
}

}  // namespace

TEST_CASE("secrets are recognised by their shape", "[auth][secret]") {
  CHECK(classify_secret("") == SecretKind::Empty);
  CHECK(classify_secret("secret") == SecretKind::Plain);
  CHECK(classify_secret(kAliceMd5) == SecretKind::Md5);
  CHECK(classify_secret(kPencil) == SecretKind::Scram);
}

TEST_CASE("almost MD5 is plain text", "[auth][secret]") {
  for (const std::string& text :
       {"md5"s, kAliceMd5 + "0", kAliceMd5.substr(0, 34), "MD5" + kAliceMd5.substr(3), replaced(kAliceMd5, "a", "A"),
        replaced(kAliceMd5, "a", "g"), " " + kAliceMd5.substr(0, 34), "nd5" + kAliceMd5.substr(3)}) {
    CAPTURE(text);
    CHECK(classify_secret(text) == SecretKind::Plain);
  }
}

TEST_CASE("almost SCRAM is plain text", "[auth][secret]") {
  const std::string salt = "W22ZaJ0SNY7soEsUEjb6gQ==";
  const std::string key = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=";
  for (const std::string& text : {"SCRAM-SHA-256"s,
                                  "SCRAM-SHA-256$"s,
                                  "SCRAM-SHA-256$4096:" + salt,
                                  "SCRAM-SHA-256$4096:" + salt + "$" + key,
                                  "SCRAM-SHA-256$4096:" + salt + "$" + key + ":",
                                  replaced(kPencil, "SCRAM", "scram"),
                                  replaced(kPencil, "256", "512"),
                                  replaced(kPencil, "256$", "256-PLUS$"),
                                  replaced(kPencil, "4096", ""),
                                  replaced(kPencil, "4096", "0"),
                                  replaced(kPencil, "4096", "-1"),
                                  replaced(kPencil, "4096", "+1"),
                                  replaced(kPencil, "4096", " 1"),
                                  replaced(kPencil, "4096", "4096x"),
                                  replaced(kPencil, "4096", "0x10"),
                                  replaced(kPencil, "4096", "2147483648"),
                                  replaced(kPencil, "4096", "99999999999999999999"),
                                  replaced(kPencil, salt, ""),
                                  replaced(kPencil, salt, salt.substr(0, salt.size() - 1)),
                                  replaced(kPencil, salt, "!" + salt),
                                  replaced(kPencil, key, key.substr(4)),
                                  replaced(kPencil, key, "AAAA" + key),
                                  replaced(kPencil, key, replaced(key, "=", "")),
                                  replaced(kPencil, key, replaced(key, "8", " ")),
                                  kPencil + "=",
                                  kPencil + " ",
                                  kPencil + ":" + key,
                                  " " + kPencil,
                                  kPencil.substr(0, kPencil.size() - 1)}) {
    CAPTURE(text);
    CHECK_FALSE(parse_scram_secret(text));
    CHECK(classify_secret(text) == SecretKind::Plain);
  }
}

TEST_CASE("SCRAM secrets are parsed, printed and made", "[auth][secret]") {
  const pgweir::io::OpensslCrypto crypto;
  const auto parsed = parse_scram_secret(kPencil);
  REQUIRE(parsed);
  CHECK(parsed->iterations == 4096);
  CHECK(parsed->salt == kPencilSalt);
  CHECK(format_scram_secret(*parsed) == kPencil);
  CHECK(make_scram_secret(crypto, "pencil", 4096, kPencilSalt) == *parsed);
  CHECK_FALSE(make_scram_secret(crypto, "pencils", 4096, kPencilSalt) == *parsed);

  CHECK(parse_scram_secret(replaced(kPencil, "4096", "1"))->iterations == 1);
  CHECK(parse_scram_secret(replaced(kPencil, "4096", "2147483647"))->iterations == 2147483647);
}

TEST_CASE("passwords are prepared before they are salted", "[auth][secret]") {
  const pgweir::io::OpensslCrypto crypto;
  const auto encoded = [&](std::string_view password) {
    return base64_encode(digest_view(salted_password(crypto, password, "0123456789abcdef", 1000)));
  };
  CHECK(encoded("p\u00A0\uFB01") == "g/FSPa9FDjwv13a5AuKhHACOkvEzrZpCUnjH85uK81A=");
  CHECK(encoded("p fi") == "g/FSPa9FDjwv13a5AuKhHACOkvEzrZpCUnjH85uK81A=");
  CHECK(encoded("p\xFF\u00E4") == "lkkM90o5nIdt6R2u4GzZhH9UvrfHsJrjnNDWwyx7ye8=");
}

TEST_CASE("mock secrets depend on the user and the process only", "[auth][secret]") {
  const pgweir::io::OpensslCrypto crypto;
  const ScramSecret bob = mock_scram_secret(crypto, "bob", "key one");
  CHECK(bob == mock_scram_secret(crypto, "bob", "key one"));
  CHECK(bob.iterations == 4096);
  CHECK(bob.salt.size() == kScramSaltSize);
  CHECK(bob.salt != mock_scram_secret(crypto, "rob", "key one").salt);
  CHECK(bob.salt != mock_scram_secret(crypto, "bob", "key two").salt);
  CHECK(mock_scram_secret(crypto, "bob", "key one", 77).iterations == 77);
  CHECK(bob.stored_key != bob.server_key);
}

TEST_CASE("MD5 secrets and answers", "[auth][md5]") {
  const pgweir::io::OpensslCrypto crypto;
  const std::string salt("\x01\x02\xfe\x00", 4);
  CHECK(md5_secret(crypto, "alice", "secret") == kAliceMd5);
  CHECK(md5_secret(crypto, "jürgen", "pässwört") == "md5a5aca37524ef534dab75022c50804c7c");
  const std::string answer = "md5219241086d97207b1680e30a8d1e9331";
  CHECK(md5_response(crypto, kAliceMd5, salt) == answer);
  CHECK(md5_response(crypto, kAliceMd5, std::string(4, '\0')) == "md5d5892e05ed854e3687f1ffefc3977bf9");

  CHECK(check_md5_response(crypto, kAliceMd5, "alice", salt, answer));
  CHECK(check_md5_response(crypto, kAliceMd5, "any name", salt, answer));
  CHECK(check_md5_response(crypto, "secret", "alice", salt, answer));
  CHECK_FALSE(check_md5_response(crypto, "secret", "bob", salt, answer));
  CHECK_FALSE(check_md5_response(crypto, "Secret", "alice", salt, answer));
  CHECK_FALSE(check_md5_response(crypto, kAliceMd5, "alice", "abcd", answer));
  CHECK_FALSE(check_md5_response(crypto, kAliceMd5, "alice", salt, answer.substr(3)));
  CHECK_FALSE(check_md5_response(crypto, kAliceMd5, "alice", salt, answer + "0"));
  CHECK_FALSE(check_md5_response(crypto, kAliceMd5, "alice", salt, kAliceMd5));
  CHECK_FALSE(check_md5_response(crypto, kAliceMd5, "alice", salt, ""));
  CHECK_FALSE(
      check_md5_response(crypto, "", "alice", salt, md5_response(crypto, md5_secret(crypto, "alice", ""), salt)));
  CHECK_FALSE(check_md5_response(crypto, kPencil, "alice", salt,
                                 md5_response(crypto, md5_secret(crypto, "alice", kPencil), salt)));
}

TEST_CASE("clear-text passwords are checked against every kind of secret", "[auth][secret]") {
  const pgweir::io::OpensslCrypto crypto;
  CHECK(check_plain_password(crypto, "secret", "alice", "secret"));
  CHECK_FALSE(check_plain_password(crypto, "secret", "alice", "secret "));
  CHECK(check_plain_password(crypto, kAliceMd5, "alice", "secret"));
  CHECK_FALSE(check_plain_password(crypto, kAliceMd5, "bob", "secret"));
  CHECK_FALSE(check_plain_password(crypto, kAliceMd5, "alice", kAliceMd5));
  CHECK(check_plain_password(crypto, kPencil, "alice", "pencil"));
  CHECK_FALSE(check_plain_password(crypto, kPencil, "alice", "pen"));
  CHECK_FALSE(check_plain_password(crypto, kPencil, "alice", kPencil));
  CHECK_FALSE(check_plain_password(crypto, "", "alice", ""));
  CHECK_FALSE(check_plain_password(crypto, md5_secret(crypto, "alice", ""), "alice", ""));
}

TEST_CASE("the cache forgets the least recently used entry first", "[auth][cache]") {
  SaltedPasswordCache cache(2);
  cache.insert(digest_of(1), digest_of(101));
  cache.insert(digest_of(2), digest_of(102));
  REQUIRE(cache.find(digest_of(1)));
  CHECK(*cache.find(digest_of(1)) == digest_of(101));
  cache.insert(digest_of(3), digest_of(103));
  CHECK(cache.size() == 2);
  CHECK_FALSE(cache.find(digest_of(2)));
  CHECK(cache.find(digest_of(1)));
  CHECK(cache.find(digest_of(3)));

  cache.insert(digest_of(1), digest_of(111));
  CHECK(cache.size() == 2);
  CHECK(*cache.find(digest_of(1)) == digest_of(111));
  cache.clear();
  CHECK(cache.size() == 0);
  CHECK_FALSE(cache.find(digest_of(1)));
}

TEST_CASE("a cache of no size keeps nothing", "[auth][cache]") {
  SaltedPasswordCache cache(0);
  cache.insert(digest_of(1), digest_of(2));
  CHECK_FALSE(cache.find(digest_of(1)));
  CHECK(SaltedPasswordCache().capacity() == 1024);
}

TEST_CASE("salted passwords are computed once for each password, salt and count", "[auth][cache]") {
  const CountingCrypto crypto;
  SaltedPasswordCache cache;
  const auto first = salted_password(crypto, "ab", "cd", 10, &cache);
  CHECK(salted_password(crypto, "ab", "cd", 10, &cache) == first);
  CHECK(crypto.pbkdf2_calls == 1);
  CHECK(salted_password(crypto, "ab", "cd", 10) == first);
  CHECK(crypto.pbkdf2_calls == 2);

  CHECK(salted_password(crypto, "ab", "cd", 11, &cache) != first);
  CHECK(salted_password(crypto, "ab", "ce", 10, &cache) != first);
  CHECK(salted_password(crypto, "a", "bcd", 10, &cache) != first);
  CHECK(crypto.pbkdf2_calls == 5);
  CHECK(cache.size() == 4);

  static_cast<void>(make_scram_secret(crypto, "ab", 10, "cd", &cache));
  CHECK(crypto.pbkdf2_calls == 5);
}
