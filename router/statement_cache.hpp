// Remembers verdicts by the form of the statement (statement_text): the same statement with other literals is not
// parsed again. Holds the whole form, not only its hash, so that two statements are never taken for each other; holds
// no more than its limits say. Also remembers what a standby refused: such a statement counts as a write from then on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "router/statement_class.hpp"

namespace pgweir::router {

struct StatementCacheLimits {
  std::size_t entries = 5000;
  std::size_t bytes = 4U << 20U;   ///< of forms and what goes with them, learned writes included
  std::size_t learned_max = 1000;  ///< learned writes; they are not displaced by others' verdicts
};

struct StatementCacheStats {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;    ///< parsed: new, displaced, or of an older generation of the catalogue
  std::uint64_t unparsed = 0;  ///< too long, not UTF-8, empty, INSERT, …: neither parsed nor kept
  std::size_t entries = 0;
  std::size_t learned = 0;
  std::size_t bytes = 0;
};

/// One per worker thread. A hit costs a pass over the text, a hash and a comparison, and no allocation.
class StatementCache {
 public:
  /// `seed` is random: it keeps clients from choosing statements that fall into one bucket.
  StatementCache(StatementCacheLimits limits, std::uint64_t seed);

  /// As Classifier::classify(). Verdicts belong to `knowledge->generation()`; those of another are not used.
  [[nodiscard]] Verdict classify(std::string_view text, const CatalogKnowledge* knowledge, TextRules rules = {},
                                 std::span<const std::string> temporary_relations = {});

  /// A standby refused `text` with 25006: statements of its form are writes from now on, whatever the parser says. Tell
  /// every worker's cache. Of the learned ones beyond the limit the least recently used is forgotten, and would be
  /// learned again.
  void learn_write(std::string_view text);

  [[nodiscard]] StatementCacheStats stats() const;

 private:
  struct Entry {
    std::string form;
    Verdict verdict;
    std::uint64_t generation = 0;
    bool learned = false;
  };
  using Entries = std::list<Entry>;
  struct Hash {
    std::uint64_t seed;
    std::size_t operator()(std::string_view text) const;
  };

  Entry* find(std::string_view form);
  void insert(Verdict verdict, std::uint64_t generation, bool learned);
  void erase_oldest(Entries& entries);
  static std::size_t cost(const Entry& entry);

  StatementCacheLimits limits_;
  Classifier classifier_;
  TextForm form_;
  // Most recently used first; views of the index point into the entries.
  Entries ordinary_;
  Entries learned_;
  std::unordered_map<std::string_view, Entries::iterator, Hash> index_;
  std::size_t bytes_ = 0;
  StatementCacheStats stats_;
};

}  // namespace pgweir::router
