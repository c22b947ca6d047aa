// Throws seeded mutations of valid messages at both SCRAM machines: nothing may crash, and no spoilt exchange may
// succeed.
#include <catch2/catch.hpp>
#include <random>

#include "protocol/auth_scram.hpp"
#include "proxy/io/openssl_crypto.hpp"

using namespace pgweir::protocol;

namespace {

constexpr int kRounds = 4000;

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  std::string operator()(std::string text) {
    for (std::size_t changes = 1 + below(3); changes > 0; --changes) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  // Half of the time a character that means something in SCRAM messages.
  char any_char() {
    constexpr std::string_view kMeaningful = ",=abceimnprsvwxy0129+/";
    return below(2) == 0 ? kMeaningful[below(kMeaningful.size())] : static_cast<char>(random_());
  }

  void change(std::string& text) {
    const std::size_t at = below(text.size());
    switch (below(7)) {
      case 0:
        if (!text.empty()) text[at] = any_char();
        return;
      case 1:
        text.insert(at, 1, any_char());
        return;
      case 2:
        text.erase(at, 1 + below(4));
        return;
      case 3:
        text.resize(at);
        return;
      case 4:
        text.insert(at, text.substr(below(text.size()), below(40)));
        return;
      case 5:
        text.insert(at, below(3000), any_char());
        return;
      default:
        if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
    }
  }

  std::mt19937 random_;
};

struct Exchange {
  std::string mechanism, client_first, server_first, client_final, server_final;
};

const pgweir::io::OpensslCrypto& crypto() {
  static const pgweir::io::OpensslCrypto instance;
  return instance;
}

struct Fixture {
  explicit Fixture(bool plus)
      : secret(make_scram_secret(crypto(), "pencil", 16, "0123456789abcdef")),
        server_options{plus, plus ? "certificate hash" : ""},
        client_options{plus, plus ? "certificate hash" : "", 1000} {}

  ScramServer server() const { return {crypto(), secret, false, "server+nonce/", server_options}; }
  ScramClient client() const { return {crypto(), std::string("pencil"), "client+nonce/", client_options}; }

  Exchange valid_exchange() const {
    ScramServer us = server();
    ScramClient them = client();
    Exchange exchange;
    exchange.mechanism = them.mechanism();
    exchange.client_first = them.first();
    exchange.server_first = us.first(exchange.mechanism, exchange.client_first).value();
    exchange.client_final = them.answer(exchange.server_first).value();
    const auto result = us.final(exchange.client_final);
    exchange.server_final = result.server_final;
    REQUIRE(result.ok);
    REQUIRE(them.verify(exchange.server_final));
    return exchange;
  }

  ScramSecret secret;
  ScramServerOptions server_options;
  ScramClientOptions client_options;
};

}  // namespace

TEST_CASE("no spoilt message logs a client in", "[auth][scram][mutation]") {
  const bool plus = GENERATE(false, true);
  const Fixture fixture(plus);
  const Exchange valid = fixture.valid_exchange();
  Mutator mutate(plus ? 2u : 1u);
  int accepted_first = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::string first = mutate(valid.client_first);
    ScramServer spoilt_first = fixture.server();
    if (spoilt_first.first(valid.mechanism, first)) ++accepted_first;
    CAPTURE(round, first);
    if (first != valid.client_first) REQUIRE_FALSE(spoilt_first.final(valid.client_final).ok);

    const std::string final = mutate(valid.client_final);
    CAPTURE(final);
    ScramServer spoilt_final = fixture.server();
    REQUIRE(spoilt_final.first(valid.mechanism, valid.client_first) == valid.server_first);
    REQUIRE(spoilt_final.final(final).ok == (final == valid.client_final));
  }
  CHECK(accepted_first > 0);  // the mutations reach the code behind the parser
}

TEST_CASE("no spoilt message makes us trust a server", "[auth][scram][mutation]") {
  const bool plus = GENERATE(false, true);
  const Fixture fixture(plus);
  const Exchange valid = fixture.valid_exchange();
  Mutator mutate(plus ? 4u : 3u);
  int answered = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::string first = mutate(valid.server_first);
    CAPTURE(round, first);
    ScramClient spoilt_first = fixture.client();
    static_cast<void>(spoilt_first.first());
    if (spoilt_first.answer(first)) ++answered;
    if (first != valid.server_first) REQUIRE_FALSE(spoilt_first.verify(valid.server_final));

    const std::string final = mutate(valid.server_final);
    CAPTURE(final);
    ScramClient spoilt_final = fixture.client();
    static_cast<void>(spoilt_final.first());
    REQUIRE(spoilt_final.answer(valid.server_first) == valid.client_final);
    // Optional extensions may follow a right signature.
    const bool extended = final.starts_with(valid.server_final + ",");
    if (!extended) REQUIRE(spoilt_final.verify(final) == (final == valid.server_final));
  }
  CHECK(answered > 0);
}
