#include <catch2/catch.hpp>

#include <fstream>

#include "tests/unit/router/corpus_files.hpp"

using namespace pgweir;

TEST_CASE("every statement of the corpus has its class") {
  const auto knowledge = test::corpus_knowledge();
  router::Classifier classifier;
  const auto corpus = test::corpus_statements();
  REQUIRE(corpus.size() >= 400);
  for (const auto& line : corpus) {
    const router::Verdict verdict = classifier.classify(line.text, knowledge.get());
    INFO("statements.txt:" << line.number << ": " << line.text << "\nreason: " << reason_name(verdict.reason));
    CHECK(test::corpus_class(verdict) == line.expected);
  }
}

TEST_CASE("without knowledge of the catalogue nothing that names anything is a read") {
  router::Classifier classifier;
  for (const auto& line : test::corpus_statements()) {
    const auto known = test::corpus_class(classifier.classify(line.text, test::corpus_knowledge().get()));
    const auto unknown = test::corpus_class(classifier.classify(line.text, nullptr));
    INFO("statements.txt:" << line.number << ": " << line.text);
    if (known != "read") CHECK(unknown != "read");
  }
  CHECK(classifier.classify("SELECT 1", nullptr).cls == router::StatementClass::Read);
  for (const char* text : {"SELECT * FROM users", "SELECT now()", "SELECT 1 + 1", "SELECT 1::int",
                           "SELECT CASE 1 WHEN 2 THEN 3 END", "SELECT a.b", "SELECT 1 IN (SELECT 1)"}) {
    INFO(text);
    CHECK(classifier.classify(text, nullptr).reason == router::ClassReason::NoKnowledge);
  }
}
