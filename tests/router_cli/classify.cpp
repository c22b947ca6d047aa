// Prints what the classifier says of statements: one line `line class reason` for each line of a corpus on standard
// input. With the argument `query` it prints the query whose rows, as a file, are the argument of the other form; with
// `probe` the one that the prober asks every host.
#include <fstream>
#include <iostream>

#include "router/host_tracker.hpp"
#include "tests/unit/router/corpus.hpp"

int main(int argc, char** argv) {
  using namespace pgweir;
  if (argc != 2) {
    std::cerr << "usage: classify query | classify probe | classify CATALOG < CORPUS\n";
    return 2;
  }
  if (std::string_view(argv[1]) == "query") {
    std::cout << router::catalog_query();
    return 0;
  }
  if (std::string_view(argv[1]) == "probe") {
    std::cout << router::probe_query();
    return 0;
  }
  std::ifstream catalog(argv[1]);
  if (!catalog) {
    std::cerr << "cannot read " << argv[1] << "\n";
    return 1;
  }
  router::Classifier classifier;
  const auto knowledge = router::CatalogKnowledge::build(test::read_catalog(catalog), 1, classifier);
  for (const auto& line : test::read_corpus(std::cin)) {
    const router::Verdict verdict = classifier.classify(line.text, knowledge.get());
    std::cout << line.number << ' ' << test::corpus_class(verdict) << ' ' << reason_name(verdict.reason) << '\n';
  }
}
