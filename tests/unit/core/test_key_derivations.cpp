#include "proxy/core/key_derivations.hpp"

#include <catch2/catch.hpp>

namespace pgweir::core {
namespace {

using pool::ClientId;
using pool::ServerId;

KeyQuestion of(const std::string& password) {
  return {password, "salt", 4096};
}

TEST_CASE("one key is derived at a time, in the order of asking", "[keys]") {
  KeyDerivations keys;
  CHECK_FALSE(keys.next());
  const auto a = keys.ask(ClientId{1, 1}, of("a"));
  const auto b = keys.ask(ClientId{2, 1}, of("b"));
  const auto first = keys.next();
  REQUIRE(first);
  CHECK(first->question == of("a"));
  CHECK_FALSE(keys.next());
  const auto done = keys.finished(first->number);
  CHECK(done.question == of("a"));
  CHECK(done.waiters == std::vector<KeyWaiter>{ClientId{1, 1}});
  const auto second = keys.next();
  REQUIRE(second);
  CHECK(second->question == of("b"));
  CHECK(keys.finished(second->number).waiters == std::vector<KeyWaiter>{ClientId{2, 1}});
  CHECK(keys.size() == 0);
  CHECK_FALSE(keys.next());
}

TEST_CASE("servers come before clients", "[keys]") {
  KeyDerivations keys;
  const auto a = keys.ask(ClientId{1, 1}, of("a"));
  const auto b = keys.ask(ClientId{2, 1}, of("b"));
  const auto begun = keys.next();
  const auto server = keys.ask(ServerId{1, 1}, of("s"));
  CHECK(keys.finished(begun->number).question == of("a"));
  CHECK(keys.next()->question == of("s"));
}

TEST_CASE("who needs the same key shares its derivation", "[keys]") {
  KeyDerivations keys;
  const auto a = keys.ask(ClientId{1, 1}, of("a"));
  const auto other = keys.ask(ClientId{2, 1}, {"a", "another salt", 4096});
  const auto again = keys.ask(ServerId{3, 1}, of("a"));
  const auto begun = keys.next();
  const auto late = keys.ask(ClientId{4, 1}, of("a"));
  CHECK(keys.size() == 2);
  CHECK(keys.finished(begun->number).waiters == std::vector<KeyWaiter>{ClientId{1, 1}, ServerId{3, 1}, ClientId{4, 1}});
  CHECK(keys.next()->question.salt == "another salt");
}

TEST_CASE("nothing is derived for who has left", "[keys]") {
  KeyDerivations keys;
  auto a = keys.ask(ClientId{1, 1}, of("a"));
  auto b = keys.ask(ClientId{2, 1}, of("b"));
  auto shared = keys.ask(ClientId{3, 1}, of("b"));
  SECTION("before it has begun") {
    a = {};
    CHECK(keys.size() == 1);
    const auto begun = keys.next();
    CHECK(begun->question == of("b"));
    b = {};
    CHECK(keys.finished(begun->number).waiters == std::vector<KeyWaiter>{ClientId{3, 1}});
    CHECK(keys.size() == 0);
  }
  SECTION("while it is under way, the next one waits for its end all the same") {
    const auto begun = keys.next();
    a = {};
    CHECK_FALSE(keys.next());
    SECTION("and nobody is told") {
      CHECK(keys.finished(begun->number).waiters.empty());
    }
    SECTION("and somebody who comes for it is") {
      const auto late = keys.ask(ClientId{1, 2}, of("a"));
      CHECK(keys.finished(begun->number).waiters == std::vector<KeyWaiter>{ClientId{1, 2}});
    }
    CHECK(keys.next()->question == of("b"));
  }
  SECTION("after it has ended") {
    (void)keys.finished(keys.next()->number);
    const auto anew = keys.ask(ClientId{1, 2}, of("a"));
    a = {};
    CHECK(keys.size() == 2);
  }
}

TEST_CASE("an answer to somebody else's question is nobody's", "[keys]") {
  KeyDerivations keys;
  CHECK(keys.finished(1).waiters.empty());
  const auto a = keys.ask(ClientId{1, 1}, of("a"));
  const auto begun = keys.next();
  CHECK(keys.finished(begun->number + 1).waiters.empty());
  CHECK(keys.finished(begun->number).waiters.size() == 1);
}

}  // namespace
}  // namespace pgweir::core
