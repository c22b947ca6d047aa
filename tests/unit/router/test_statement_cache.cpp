#include <catch2/catch.hpp>

#include "router/statement_cache.hpp"
#include "tests/unit/router/corpus_files.hpp"

using namespace pgweir;
using router::ClassReason;
using router::StatementCache;
using router::StatementClass;

TEST_CASE("a statement with other literals is not parsed again") {
  const auto knowledge = test::corpus_knowledge();
  StatementCache cache({}, 1);
  CHECK(cache.classify("SELECT * FROM users WHERE id = 1", knowledge.get()).cls == StatementClass::Read);
  CHECK(cache.classify("SELECT * FROM users WHERE id = 2 /* x */", knowledge.get()).cls == StatementClass::Read);
  CHECK(cache.classify("DELETE FROM users WHERE id = 2", knowledge.get()).cls == StatementClass::Write);
  CHECK(cache.classify("SELECT * FROM users FOR UPDATE", knowledge.get()).cls == StatementClass::Write);
  CHECK(cache.stats().hits == 1);
  CHECK(cache.stats().misses == 2);
  CHECK(cache.stats().entries == 2);
  CHECK(cache.stats().unparsed == 1);
}

TEST_CASE("the cache says what the classifier says") {
  const auto knowledge = test::corpus_knowledge();
  StatementCache cache({.entries = 50, .bytes = 20000, .learned_max = 10}, 2);
  for (int round = 0; round < 3; ++round) {
    for (const auto& line : test::corpus_statements()) {
      INFO(line.text);
      REQUIRE(test::corpus_class(cache.classify(line.text, knowledge.get())) == line.expected);
      REQUIRE(test::corpus_class(cache.classify(line.text, knowledge.get())) == line.expected);
    }
  }
}

TEST_CASE("verdicts are those of one generation of the catalogue") {
  router::Classifier classifier;
  const std::vector<router::CatalogRow> rows{{"implicit", "", false, true, false, ""},
                                             {"function", "f", false, true, false, ""}};
  const auto first = router::CatalogKnowledge::build(rows, 1, classifier);
  auto changed = rows;
  changed[1].safe = false;
  const auto second = router::CatalogKnowledge::build(changed, 2, classifier);
  StatementCache cache({}, 3);
  CHECK(cache.classify("SELECT f()", nullptr).reason == ClassReason::NoKnowledge);
  CHECK(cache.classify("SELECT f()", first.get()).cls == StatementClass::Read);
  CHECK(cache.classify("SELECT f()", second.get()).reason == ClassReason::VolatileFunction);
  CHECK(cache.classify("SELECT f()", first.get()).cls == StatementClass::Read);
  CHECK(cache.classify("SELECT f()", nullptr).reason == ClassReason::NoKnowledge);
  CHECK(cache.stats().entries == 1);
}

TEST_CASE("a learned write stays one") {
  const auto knowledge = test::corpus_knowledge();
  StatementCache cache({.entries = 10, .bytes = 1U << 20U, .learned_max = 2}, 4);
  CHECK(cache.classify("SELECT stable_count() + 1", knowledge.get()).cls == StatementClass::Read);
  cache.learn_write("SELECT stable_count() + 1");
  cache.learn_write("SELECT stable_count() + 2");
  CHECK(cache.stats().learned == 1);
  for (int i = 0; i < 100; ++i) (void)cache.classify("SELECT 1 AS c" + std::to_string(i), knowledge.get());
  CHECK(cache.stats().entries == 11);
  CHECK(cache.classify("SELECT stable_count() + 3", knowledge.get()).reason == ClassReason::Learned);
  CHECK(cache.classify("SELECT stable_count() + 3", nullptr).cls == StatementClass::Write);
  cache.learn_write("SELECT 1 AS a");
  (void)cache.classify("SELECT stable_count() + 3", knowledge.get());
  cache.learn_write("SELECT 1 AS b");  // of three the least recently used goes
  CHECK(cache.stats().learned == 2);
  CHECK(cache.classify("SELECT stable_count() + 3", knowledge.get()).cls == StatementClass::Write);
  CHECK(cache.classify("SELECT 1 AS a", knowledge.get()).cls == StatementClass::Read);
}

TEST_CASE("neither entries nor bytes exceed their limits") {
  const auto knowledge = test::corpus_knowledge();
  StatementCache cache({.entries = 100, .bytes = 30000, .learned_max = 20}, 5);
  for (int i = 0; i < 2000; ++i) {
    const std::string name(static_cast<std::size_t>(1 + i * 37 % 5000), 'a');
    const std::string text = "SELECT 1 AS " + name + std::to_string(i);
    (void)cache.classify(text, knowledge.get());
    if (i % 3 == 0) cache.learn_write(text);
    const auto stats = cache.stats();
    REQUIRE(stats.bytes <= 30000);
    REQUIRE(stats.learned <= 20);
    REQUIRE(stats.entries <= 120);
  }
  StatementCache none({.entries = 0, .bytes = 0, .learned_max = 0}, 6);
  CHECK(none.classify("SELECT 1", knowledge.get()).cls == StatementClass::Read);
  none.learn_write("SELECT 1");
  CHECK(none.stats().bytes == 0);
}

TEST_CASE("texts that come once do not push out one that comes again and again") {
  const auto knowledge = test::corpus_knowledge();
  StatementCache cache({.entries = 100, .bytes = 30000, .learned_max = 20}, 9);
  std::uint64_t hits = 0;
  for (int i = 0; i < 5000; ++i) {
    (void)cache.classify("SELECT 1 AS a" + std::to_string(i), knowledge.get());
    if (i % 20 != 0) continue;
    const std::uint64_t before = cache.stats().hits;
    CHECK(cache.classify("SELECT stable_count() + 3", knowledge.get()).cls == StatementClass::Read);
    hits += cache.stats().hits - before;
  }
  CHECK(hits == 249);  // all but the first
}

TEST_CASE("what is refused by its text alone is not kept") {
  const auto knowledge = test::corpus_knowledge();
  StatementCache cache({}, 7);
  CHECK(cache.classify("SELECT '\xFF'", knowledge.get()).reason == ClassReason::UnsafeText);
  CHECK(cache.classify("SELECT 'a'", knowledge.get()).cls == StatementClass::Read);
  CHECK(cache.classify("SELECT '\xFF'", knowledge.get()).reason == ClassReason::UnsafeText);
  CHECK(cache.classify("SELECT '\\'", knowledge.get(), {false, true}).reason == ClassReason::UnsafeText);
  CHECK(cache.classify(std::string(100000, '('), knowledge.get()).reason == ClassReason::TooLong);
  CHECK(cache.stats().entries == 1);
  CHECK(cache.stats().unparsed == 4);
}

TEST_CASE("one session's temporary tables do not colour the verdict of others") {
  const auto knowledge = test::corpus_knowledge();
  StatementCache cache({}, 8);
  const std::vector<std::string> temporary{"users"};
  CHECK(cache.classify("TABLE users", knowledge.get(), {}, temporary).reason == ClassReason::TemporaryObject);
  CHECK(cache.classify("TABLE users", knowledge.get()).cls == StatementClass::Read);
  CHECK(cache.classify("TABLE users", knowledge.get(), {}, temporary).reason == ClassReason::TemporaryObject);
}
