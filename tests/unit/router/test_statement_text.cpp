#include <catch2/catch.hpp>

#include <map>
#include <random>

#include "router/statement_text.hpp"
#include "tests/unit/router/corpus_files.hpp"

using namespace pgweir;
using router::TextForm;
using router::TextProblem;

namespace {
std::string key(std::string_view text) {
  TextForm form;
  router::read_text_form(text, form);
  REQUIRE(form.problem == TextProblem::None);
  return form.key;
}
bool same(std::string_view a, std::string_view b) {
  return key(a) == key(b);
}
}  // namespace

TEST_CASE("literals, comments and white space do not count") {
  CHECK(same("SELECT 1", "SELECT 234"));
  CHECK(same("SELECT 1.5", "SELECT 12.75"));
  CHECK(same("SELECT 'a'", "SELECT 'it''s'"));
  CHECK(same("SELECT 'a'", "SELECT $$b$$"));
  CHECK(same("SELECT 'a'", "SELECT $x$ b $$ c $x$"));
  CHECK(same("SELECT 'a'", "SELECT E'b'"));
  CHECK(same("SELECT * FROM t WHERE a = 1 AND b = 'x'", "SELECT *\n  FROM t /* c */ WHERE a = 7 -- d\n AND b = ''"));
  CHECK(same("/* trace 1 */ SELECT 1", "/* trace 2 */ SELECT 2 -- 3"));
}

TEST_CASE("lists of literals behind IN count as one") {
  CHECK(same("SELECT * FROM t WHERE a IN (1)", "SELECT * FROM t WHERE a IN (1, 2,3 , 4)"));
  CHECK(same("SELECT * FROM t WHERE a IN ($1) AND b", "SELECT * FROM t WHERE a IN ($1, $2, 'x', 1.5 ) AND b"));
  CHECK(same("SELECT a NOT IN ('a','b')", "SELECT a NOT IN ('c')"));
  CHECK_FALSE(same("SELECT a IN (1, 2)", "SELECT a IN (1, b)"));
  CHECK_FALSE(same("SELECT a IN (1, 2)", "SELECT a IN (1, f(2))"));
  CHECK_FALSE(same("SELECT a IN (1, 2)", "SELECT a IN (1, 2 + b)"));
  CHECK_FALSE(same("SELECT a IN (1, $1 .x)", "SELECT a IN (1 .x)"));
  CHECK_FALSE(same("SELECT a IN (1, 2)", "SELECT a IN (1, 2"));
  CHECK_FALSE(same("SELECT a IN (1, 2)", "SELECT a IN (1,)"));
  CHECK_FALSE(same("SELECT a IN (1, 2), 3", "SELECT a IN (1, 2), 3, 4"));
  CHECK_FALSE(same("SELECT (1, 2) OVERLAPS (1, 2)", "SELECT (1, 2) OVERLAPS (1, 2, 3)"));
  CHECK_FALSE(same("SELECT nullif(1, 2)", "SELECT nullif(1, 2, 3)"));
}

TEST_CASE("data modification needs no form") {
  TextForm form;
  for (const char* text :
       {"INSERT INTO t VALUES (1)", " /* c */ update t SET a = 1", "Delete", "; DELETE FROM t", "MERGE\0"}) {
    router::read_text_form(text, form);
    INFO(text);
    CHECK(form.modifies);
  }
  for (const char* text : {"INSERTED", "(INSERT INTO t VALUES (1))", "\"INSERT\" INTO t",
                           "WITH a AS (INSERT INTO t VALUES (1)) SELECT 1", "SELECT insert FROM t", "EXPLAIN DELETE"}) {
    router::read_text_form(text, form);
    INFO(text);
    CHECK_FALSE(form.modifies);
  }
}

TEST_CASE("what may change the class counts") {
  CHECK_FALSE(same("SELECT 1", "SELECT 'a'"));
  CHECK_FALSE(same("SELECT 1", "SELECT 1.5"));
  CHECK_FALSE(same("SELECT 1", "SELECT 12345678901"));
  CHECK_FALSE(same("SELECT a", "SELECT b"));
  CHECK_FALSE(same("SELECT \"a\"", "SELECT \"b\""));
  CHECK_FALSE(same("SELECT 'a'", "SELECT \"a\""));
  CHECK_FALSE(same("SELECT $1", "SELECT $2"));
  CHECK_FALSE(same("SELECT 1::float(3)", "SELECT 1::float(60)"));
  CHECK_FALSE(same("SELECT a[1]", "SELECT a[99999999999]"));
  CHECK_FALSE(same("SELECT U&'\\0061'", "SELECT U&'\\0062'"));
  CHECK_FALSE(same("SELECT U&\"d!0061\" UESCAPE '!'", "SELECT U&\"d!0061\" UESCAPE '#'"));
  CHECK_FALSE(same("SELECT E'\\u0061'", "SELECT E'\\uD800'"));
  CHECK_FALSE(same("SELECT 'a'\n'b'", "SELECT 'a' 'b'"));
  CHECK_FALSE(same("SELECT 'a'\n'b'", "SELECT 'a' /*\n*/ 'b'"));
  CHECK_FALSE(same("SELECT a NOT IN (1)", "SELECT a NOT /* c */ IN (1)"));
  CHECK_FALSE(same("SELECT 12", "SELECT 1 2"));
  CHECK_FALSE(same("SELECT 1a", "SELECT 2a"));
  CHECK_FALSE(same("SELECT 1/**/2", "SELECT 12"));
  CHECK_FALSE(same("COPY (SELECT 1) TO ''", "COPY (SELECT 1) TO '/tmp/x'"));
  CHECK_FALSE(same("EXPLAIN (ANALYZE 0) SELECT 1", "EXPLAIN (ANALYZE 1) SELECT 1"));
  CHECK_FALSE(same("SELECT 1; SELECT 'a'", "SELECT 1; SELECT 'b'"));
  CHECK_FALSE(same("SET x = 'a'", "SET x = 'b'"));
  CHECK_FALSE(same("SELECT '\x01S'", "SELECT \x01S"));
  CHECK_FALSE(same("SELECT 'a'", "SELECT \x01S"));
  CHECK_FALSE(same("SELECT 'open", "SELECT 'Open"));
}

TEST_CASE("texts are empty, or tell what would read them otherwise") {
  TextForm form;
  for (const char* text : {"", " ", ";", " ; ;", "--", "/* */", "-- x\n/* y */;"}) {
    router::read_text_form(text, form);
    INFO(text);
    CHECK(form.empty);
  }
  for (const char* text : {"1", "'", "/*", "\x01", "SELECT", "$"}) {
    router::read_text_form(text, form);
    INFO(text);
    CHECK_FALSE(form.empty);
  }
  router::read_text_form("SELECT '\\'", form);
  CHECK(form.backslash);
  CHECK_FALSE(form.non_ascii);
  router::read_text_form("SELECT '\xC3\xA9'", form);
  CHECK_FALSE(form.backslash);
  CHECK(form.non_ascii);
}

TEST_CASE("statements of one form are of one class") {
  const auto corpus = test::corpus_statements();
  const auto knowledge = test::corpus_knowledge();
  router::Classifier classifier;
  std::mt19937 random(GENERATE(1, 2, 3));
  const auto pick = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  const std::vector<std::string> pieces = {"'",
                                           "''",
                                           "'a'",
                                           "\"",
                                           "E'\\''",
                                           "E'\\u0061'",
                                           "E'\\uD800'",
                                           "E'\\u00'",
                                           "U&'",
                                           "$$",
                                           "$a$",
                                           "/*",
                                           "*/",
                                           "/* x */",
                                           "--",
                                           "-- x\n",
                                           "\n",
                                           "1",
                                           "54",
                                           "1.5",
                                           "1e5",
                                           ".5",
                                           "0x1",
                                           "1_0",
                                           "999999999999",
                                           "(25)",
                                           "(54)",
                                           "[1]",
                                           "[99999999999]",
                                           " ",
                                           "\t",
                                           "\v",
                                           ";",
                                           "\\",
                                           "float(1)",
                                           "interval(3)",
                                           "N'x'",
                                           "B'1'",
                                           "x'f'",
                                           "$1",
                                           "$2a",
                                           "u&",
                                           "e",
                                           "UESCAPE '!'",
                                           "::float(54)",
                                           "second(3)",
                                           "char(99999999999)",
                                           "varchar(3)",
                                           "time(7)",
                                           "timestamp(3)",
                                           "\x01",
                                           "\x7F",
                                           "2147483647",
                                           "2147483648",
                                           "0000000001",
                                           "1..2",
                                           "a.1"};
  std::map<std::string, std::pair<std::string, router::Verdict>> seen;
  std::size_t pairs = 0;
  TextForm form;
  for (int round = 0; round < 60000; ++round) {
    std::string text = corpus[pick(corpus.size())].text;
    for (std::size_t edits = pick(4); edits > 0; --edits) {
      const std::size_t at = pick(text.size() + 1);
      if (pick(3) != 0) {
        text.insert(at, pieces[pick(pieces.size())]);
      } else if (const std::size_t digit = text.find_first_of("0123456789", at); digit != std::string::npos) {
        text[digit] = static_cast<char>('0' + pick(10));
      } else {
        text.erase(at, 1);
      }
    }
    router::read_text_form(text, form);
    if (form.problem != TextProblem::None || form.empty || form.modifies) continue;
    const router::Verdict verdict = classifier.classify(text, knowledge.get());
    const auto [found, fresh] = seen.try_emplace(form.key, text, verdict);
    if (fresh || found->second.first == text) continue;
    ++pairs;
    INFO("one form:\n" << found->second.first << "\n" << text);
    REQUIRE(found->second.second == verdict);
  }
  CHECK(pairs > 3000);
}
