#include <catch2/catch.hpp>

#include <random>
#include <thread>

#include "tests/unit/router/corpus_files.hpp"

using namespace pgweir;
using router::Classifier;
using router::ClassReason;
using router::StatementClass;

namespace {

std::string repeat(std::string_view part, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += part;
  return result;
}

router::Verdict classify(std::string_view text, router::TextRules rules = {},
                         const std::vector<std::string>& temporary = {}) {
  static Classifier classifier;
  return classifier.classify(text, test::corpus_knowledge().get(), rules, temporary);
}

// Statements that nest once per repetition: before, inner part, behind.
struct Nest {
  const char* head;
  const char* open;
  const char* core;
  const char* close;
};
constexpr Nest kNests[] = {
    {"SELECT ", "(", "1", ")"},
    {"SELECT 1", "+1", "", ""},
    {"SELECT ", "- ", "id", ""},
    {"SELECT ", "NOT ", "true", ""},
    {"SELECT 1", "::int", "", ""},
    {"SELECT 1", " UNION SELECT 1", "", ""},
    {"SELECT ", "upper(", "'a'", ")"},
    {"SELECT ", "(SELECT ", "1", ")"},
    {"SELECT ", "ARRAY[", "1", "]"},
    {"SELECT 1", " IS NULL", "", ""},
    {"SELECT 1 FROM ", "(SELECT 1 FROM ", "users", ") a"},
    {"SELECT ", "CASE WHEN true THEN ", "1", " END"},
    {"SELECT 1 FROM users", " NATURAL JOIN users", "", ""},
    {"", "WITH a AS (", "SELECT 1", ") SELECT 1"},
    {"SELECT 1", "||1", "", ""},
    {"SELECT '{}'", " AT TIME ZONE 'UTC'", "", ""},
    {"SELECT 1", " COLLATE \"C\"", "", ""},
};

std::string nested(const Nest& nest, int times) {
  return nest.head + repeat(nest.open, times) + nest.core + repeat(nest.close, times);
}

}  // namespace

TEST_CASE("nesting is bounded before the parser sees it, and in the walk") {
  for (const Nest& nest : kNests) {
    INFO(nested(nest, 2));
    CHECK(classify(nested(nest, 5)).reason != ClassReason::TooDeep);
    for (const int times : {900, 1100, 1900, 3900, 6000, 100000}) {
      const router::Verdict verdict = classify(nested(nest, times));
      if (times > 3000 && nest.open != std::string_view("(")) CHECK(verdict.cls == StatementClass::Unknown);
    }
  }
  CHECK(classify(repeat("(", 100000)).reason == ClassReason::TooLong);
  CHECK(classify("SELECT " + repeat("(", 3000) + "1" + repeat(")", 3000)).reason == ClassReason::TooDeep);
  CHECK(classify(repeat("/*", 8000)).reason == ClassReason::TooDeep);
  CHECK(classify("SELECT 1" + repeat(" + 1", 2000)).reason == ClassReason::TooDeep);
  CHECK(classify("SELECT 1" + repeat(" + 1", 500)).cls == StatementClass::Read);
}

TEST_CASE("wide statements are no deep ones") {
  CHECK(classify("SELECT * FROM users WHERE id IN (1" + repeat(",1", 5000) + ")").cls == StatementClass::Read);
  CHECK(classify("SELECT 1" + repeat(", 1", 3000)).cls == StatementClass::Read);
  CHECK(classify("SELECT true" + repeat(" AND true", 1500)).cls == StatementClass::Read);
}

TEST_CASE("texts over the limit are not classified") {
  const std::string text = "SELECT '" + std::string(router::kMaxClassifiedText - 9, 'x') + "'";
  REQUIRE(text.size() == router::kMaxClassifiedText);
  CHECK(classify(text).cls == StatementClass::Read);
  CHECK(classify(text + " ").reason == ClassReason::TooLong);
  CHECK(classify(std::string(10'000'000, 'x')).reason == ClassReason::TooLong);
}

TEST_CASE("texts that another reader might understand differently are not classified") {
  const std::string nul("SELECT 1\0; DELETE FROM users", 28);
  CHECK(classify(nul).reason == ClassReason::UnsafeText);
  for (const char* bad : {"\xFF", "\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\x83\\"}) {
    CHECK(classify("SELECT '" + std::string(bad) + "'").reason == ClassReason::UnsafeText);
  }
  CHECK(classify("SELECT '\xE2\x82\xAC\xF0\x9F\x98\x80'").cls == StatementClass::Read);
  // In Shift-JIS and its kin the second byte of a character may be a backslash or a quote.
  CHECK(classify("SELECT '\xC3\xA9'", {true, false}).reason == ClassReason::UnsafeText);
  CHECK(classify("SELECT 'e'", {true, false}).cls == StatementClass::Read);
  CHECK(classify("SELECT 'a\\'", {true, true}).cls == StatementClass::Read);
  CHECK(classify("SELECT 'a\\'; DELETE FROM users; --'", {false, true}).reason == ClassReason::UnsafeText);
  CHECK(classify("SELECT 'a'", {false, true}).cls == StatementClass::Read);
}

TEST_CASE("temporary tables of the session shadow all others") {
  CHECK(classify("SELECT * FROM users").cls == StatementClass::Read);
  CHECK(classify("SELECT * FROM users", {}, {"users"}).reason == ClassReason::TemporaryObject);
  CHECK(classify("SELECT * FROM orders WHERE id IN (SELECT id FROM users)", {}, {"x", "users"}).reason ==
        ClassReason::TemporaryObject);
  CHECK(classify("SELECT * FROM orders", {}, {"users"}).cls == StatementClass::Read);
  CHECK(classify("SELECT to_regclass('users')", {}, {"users"}).reason == ClassReason::TemporaryObject);
  CHECK(classify("SELECT 'users'::regclass", {}, {"users"}).reason == ClassReason::TemporaryObject);
}

TEST_CASE("one volatile cast or operator class in the database and no query is a read") {
  Classifier classifier;
  auto file = test::open_corpus_file("catalog.tsv");
  auto rows = test::read_catalog(file);
  for (auto& row : rows) {
    if (row.kind == "implicit") row.safe = false;
  }
  const auto suspicious = router::CatalogKnowledge::build(rows, 2, classifier);
  CHECK(classifier.classify("SELECT 1", suspicious.get()).reason == ClassReason::ImplicitCalls);
  CHECK(classifier.classify("SHOW search_path", suspicious.get()).cls == StatementClass::Read);
  const auto empty = router::CatalogKnowledge::build({}, 3, classifier);
  CHECK(classifier.classify("SELECT 1", empty.get()).reason == ClassReason::ImplicitCalls);
}

TEST_CASE("who is serializable by default") {
  Classifier classifier;
  const auto row = [](const char* role, bool here, bool serializable) {
    return router::CatalogRow{"isolation", role, here, !serializable, false, ""};
  };
  const auto knows = [&](std::vector<router::CatalogRow> rows) {
    return router::CatalogKnowledge::build(rows, 1, classifier);
  };
  CHECK_FALSE(knows({})->serializable_by_default("alice"));
  const auto of_role = knows({row("alice", false, true)});
  CHECK(of_role->serializable_by_default("alice"));
  CHECK_FALSE(of_role->serializable_by_default("bob"));
  // As a session asks that begins: role in database, role, database, all.
  const auto all = knows({row("", false, true), row("", true, false), row("alice", false, true), row("bob", true, true),
                          row("bob", false, false)});
  CHECK(all->serializable_by_default("alice"));
  CHECK(all->serializable_by_default("bob"));
  CHECK_FALSE(all->serializable_by_default("carol"));
  CHECK(knows({row("", false, true)})->serializable_by_default("carol"));
}

TEST_CASE("a name is as good as the worst that bears it") {
  Classifier classifier;
  const auto knows = [&](std::vector<router::CatalogRow> rows) {
    rows.push_back({"implicit", "", false, true, false, ""});
    return router::CatalogKnowledge::build(rows, 1, classifier);
  };
  const auto reads = [&](const auto& knowledge, const char* text) {
    return classifier.classify(text, knowledge.get()).cls == StatementClass::Read;
  };
  CHECK(reads(knows({{"function", "f", false, true, false, ""}}), "SELECT f()"));
  CHECK_FALSE(reads(knows({{"function", "f", true, true, false, ""}, {"function", "f", false, false, false, ""}}),
                    "SELECT pg_catalog.f()"));
  // A volatile built-in that is fine on a standby, and one of the same name that is not PostgreSQL's.
  CHECK(reads(knows({{"function", "random", true, false, false, ""}}), "SELECT random()"));
  CHECK_FALSE(
      reads(knows({{"function", "random", true, false, false, ""}, {"function", "random", false, false, false, ""}}),
            "SELECT random()"));
  CHECK_FALSE(reads(knows({{"function", "random", false, false, false, ""}}), "SELECT random()"));
  CHECK_FALSE(reads(knows({{"function", "nextval", false, true, false, ""}}), "SELECT nextval('x')"));
  CHECK(reads(knows({{"relation", "v", false, true, false, "SELECT 1"}}), "SELECT * FROM v"));
  CHECK_FALSE(
      reads(knows({{"relation", "v", false, true, false, "SELECT 1"}, {"relation", "v", false, false, false, ""}}),
            "SELECT * FROM v"));
  CHECK_FALSE(
      reads(knows({{"relation", "v", false, false, false, ""}, {"relation", "v", false, true, false, "SELECT 1"}}),
            "SELECT * FROM v"));
  CHECK_FALSE(reads(knows({{"relation", "v", false, true, false, "SELECT 1"},
                           {"relation", "v", false, true, false, "SELECT nextval('x')"}}),
                    "SELECT * FROM v"));
  // Views over views, in an order in which the proof needs several rounds; a circle proves nothing.
  const auto views = knows({{"relation", "c", false, true, false, "SELECT * FROM b"},
                            {"relation", "b", false, true, false, "SELECT * FROM a"},
                            {"relation", "a", false, true, false, "SELECT 1"},
                            {"relation", "x", false, true, false, "SELECT * FROM y"},
                            {"relation", "y", false, true, false, "SELECT * FROM x"}});
  CHECK(reads(views, "SELECT * FROM c"));
  CHECK_FALSE(reads(views, "SELECT * FROM x"));
}

TEST_CASE("a name that is a CTE's elsewhere does not hide what is known of the relation") {
  CHECK(classify("SELECT * FROM next_numbers, (WITH next_numbers AS (SELECT 1) SELECT * FROM next_numbers) x").reason ==
        ClassReason::UnsafeRelation);
  CHECK(classify("WITH unheard AS (SELECT 1) SELECT * FROM unheard").cls == StatementClass::Read);
  CHECK(classify("WITH unheard AS (SELECT 1) SELECT * FROM public.unheard").reason == ClassReason::UnknownRelation);
}

TEST_CASE("mutated statements never crash and never turn into reads they are not") {
  std::mt19937 random(7);
  const auto corpus = test::corpus_statements();
  const auto pick = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  for (int round = 0; round < 20000; ++round) {
    std::string text = corpus[pick(corpus.size())].text;
    for (std::size_t edits = 1 + pick(4); edits > 0; --edits) {
      const std::string& other = corpus[pick(corpus.size())].text;
      const std::size_t at = pick(text.size() + 1);
      switch (pick(4)) {
        case 0:
          text.insert(at, other.substr(pick(other.size()), pick(12)));
          break;
        case 1:
          text.erase(at, pick(6));
          break;
        case 2:
          text.insert(at, 1, static_cast<char>(pick(256)));
          break;
        default:
          text.insert(at, 1, "'\"$/*-;()\\E"[pick(11)]);
      }
    }
    const router::Verdict verdict = classify(text);
    REQUIRE(verdict == classify(text));
    // Outside of quotes and comments these words end every proof.
    if (verdict.cls == StatementClass::Read && text.find_first_of("'\"$/-") == std::string::npos) {
      for (const char* word : {"nextval(", "FOR UPDATE", " INTO "}) {
        INFO(text);
        REQUIRE(text.find(word) == std::string::npos);
      }
    }
  }
}

TEST_CASE("threads classify at the same time") {
  const auto knowledge = test::corpus_knowledge();
  const auto corpus = test::corpus_statements();
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      Classifier classifier;
      for (int round = 0; round < 5; ++round) {
        for (const auto& line : corpus) {
          if (test::corpus_class(classifier.classify(line.text, knowledge.get())) != line.expected) ++wrong[t];
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("classes and reasons have names") {
  CHECK(class_name(StatementClass::Read) == "read");
  CHECK(class_name(StatementClass::Unknown) == "unknown");
  CHECK(reason_name(ClassReason::Select) == "select");
  CHECK(reason_name(ClassReason::TooDeep) == "too_deep");
  CHECK(reason_name(ClassReason::Learned) == "learned");
}
