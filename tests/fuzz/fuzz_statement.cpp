// Statements and parse trees: whatever the bytes, the classifier, its cache and the hints come back, the cache says
// what the classifier says, and a parse tree that is none proves nothing by accident of its bytes.
#include <iterator>
#include <memory>
#include <vector>

#include "router/catalog_knowledge.hpp"
#include "router/hints.hpp"
#include "router/lsn.hpp"
#include "router/sql_lexer.hpp"
#include "router/statement_cache.hpp"
#include "router/tree_walk.hpp"
#include "tests/fuzz/fuzz_check.hpp"

namespace pgweir::router {
namespace {

using fuzz::check;
using fuzz::within;

std::shared_ptr<const CatalogKnowledge> small_catalogue() {
  std::vector<CatalogRow> rows{{"implicit", "", false, true, false, ""}};
  for (const char* name : {"=", "+", "-", "<", ">", "||"}) rows.push_back({"operator", name, true, true, false, ""});
  for (const char* name : {"lower", "now", "count"}) rows.push_back({"function", name, true, true, false, ""});
  for (const char* name : {"int4", "text"}) rows.push_back({"type", name, true, true, false, ""});
  rows.push_back({"relation", "t", false, true, false, ""});
  Classifier classifier;
  return CatalogKnowledge::build(rows, 1, classifier);
}

void check_statement(std::string_view text) {
  static const auto knowledge = small_catalogue();
  static Classifier classifier;
  static StatementCache cache({.entries = 500, .bytes = 100000, .learned_max = 10}, 1);
  const Verdict verdict = classifier.classify(text, knowledge.get());
  check(cache.classify(text, knowledge.get()) == verdict, "the cache says what the classifier says");
  check(cache.classify(text, knowledge.get()) == verdict, "and says it again");
  check(cache.stats().bytes <= 100000, "the cache keeps to its bytes");
  if (verdict.cls == StatementClass::Read) {
    check(text.find('\0') == std::string_view::npos, "no read after a NUL");
    check(classifier.classify(text, nullptr).cls != StatementClass::Write, "knowledge takes nothing back");
  }
}

void check_hints(std::string_view text) {
  (void)find_hint(text);
  if (const auto command = find_route_command(text)) check(within(text, command->value), "the value within the text");
  if (const auto lsn = parse_lsn(text)) check(parse_lsn(to_string(*lsn)) == lsn, "a position written and read");
}

void check_tree(std::string_view bytes) {
  for (std::size_t type = 0; type < std::size(kMessageNames); ++type) {
    MessageReader reader(bytes, static_cast<MessageType>(type));
    FieldValue field;
    while (reader.next(field)) check(within(bytes, field.bytes), "fields within the message");
  }
  (void)TreeWalk(nullptr, {}).prove(bytes, ClassReason::Select);
}

}  // namespace
}  // namespace pgweir::router

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = pgweir::fuzz::as_view(data, size);
  pgweir::router::check_statement(bytes);
  pgweir::router::check_hints(bytes);
  pgweir::router::check_tree(bytes);
  return 0;
}
