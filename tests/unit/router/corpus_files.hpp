// The files of tests/corpus in the source tree.
#pragma once

#include <catch2/catch.hpp>

#include <fstream>
#include <memory>
#include <vector>

#include "tests/unit/router/corpus.hpp"

namespace pgweir::test {

inline std::ifstream open_corpus_file(const std::string& name) {
  std::ifstream file(std::string(PGWEIR_CORPUS_DIR) + "/" + name);
  REQUIRE(file);
  return file;
}

inline std::vector<CorpusLine> corpus_statements() {
  auto file = open_corpus_file("statements.txt");
  return read_corpus(file);
}

/// What the catalogue of a PostgreSQL 15 with the objects of schema.sql says.
inline std::shared_ptr<const router::CatalogKnowledge> corpus_knowledge() {
  static const auto knowledge = [] {
    auto file = open_corpus_file("catalog.tsv");
    router::Classifier classifier;
    return router::CatalogKnowledge::build(read_catalog(file), 1, classifier);
  }();
  return knowledge;
}

}  // namespace pgweir::test
