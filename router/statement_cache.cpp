#include "router/statement_cache.hpp"

#include <cstring>

#include "router/catalog_knowledge.hpp"

namespace pgweir::router {

namespace {
// An entry's list node and its place in the index, about.
constexpr std::size_t kEntryOverhead = 160;
constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15U;

std::uint64_t mix(std::uint64_t hash, std::uint64_t word) {
  hash = (hash ^ word) * kMultiplier;
  return hash ^ (hash >> 29U);
}
}  // namespace

// Only spreads entries over buckets: equality is decided by the form.
std::size_t StatementCache::Hash::operator()(std::string_view text) const {
  std::uint64_t hash = mix(seed, text.size());
  while (text.size() >= sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data(), sizeof word);
    hash = mix(hash, word);
    text.remove_prefix(sizeof word);
  }
  std::uint64_t word = 0;
  std::memcpy(&word, text.data(), text.size());
  return static_cast<std::size_t>(mix(mix(hash, word), seed));
}

StatementCache::StatementCache(StatementCacheLimits limits, std::uint64_t seed)
    : limits_(limits), index_(0, Hash{seed}) {}

std::size_t StatementCache::cost(const Entry& entry) {
  return entry.form.size() + kEntryOverhead;
}

StatementCache::Entry* StatementCache::find(std::string_view form) {
  const auto found = index_.find(form);
  if (found == index_.end()) return nullptr;
  Entries& entries = found->second->learned ? learned_ : ordinary_;
  entries.splice(entries.begin(), entries, found->second);
  return &*found->second;
}

void StatementCache::erase_oldest(Entries& entries) {
  bytes_ -= cost(entries.back());
  index_.erase(entries.back().form);
  entries.pop_back();
}

// Ordinary verdicts make room first: a learned one has cost a client a second run.
void StatementCache::insert(Verdict verdict, std::uint64_t generation, bool learned) {
  Entry entry{form_.key, verdict, generation, learned};
  if (cost(entry) > limits_.bytes || (learned ? limits_.learned_max : limits_.entries) == 0) return;
  while (bytes_ + cost(entry) > limits_.bytes) erase_oldest(ordinary_.empty() ? learned_ : ordinary_);
  if (learned && learned_.size() >= limits_.learned_max) erase_oldest(learned_);
  if (!learned && ordinary_.size() >= limits_.entries) erase_oldest(ordinary_);
  bytes_ += cost(entry);
  Entries& entries = learned ? learned_ : ordinary_;
  entries.push_front(std::move(entry));
  index_.emplace(entries.front().form, entries.begin());
}

Verdict StatementCache::classify(std::string_view text, const CatalogKnowledge* knowledge, TextRules rules,
                                 std::span<const std::string> temporary_relations) {
  read_text_form(text, form_);
  if (const auto refused = refuse_text(form_, rules)) {
    ++stats_.unparsed;
    return *refused;
  }
  const std::uint64_t generation = knowledge == nullptr ? 0 : knowledge->generation();
  Entry* entry = find(form_.key);
  Verdict verdict;
  if (entry != nullptr && (entry->learned || entry->generation == generation)) {
    ++stats_.hits;
    verdict = entry->verdict;
  } else {
    ++stats_.misses;
    verdict = classifier_.parse(text, knowledge);
    if (entry != nullptr) {
      entry->verdict = verdict;
      entry->generation = generation;
    } else {
      insert(verdict, generation, false);
    }
  }
  // What is true for all sessions is kept; what one session's temporary tables make of it is not.
  if (temporary_relations.empty() || verdict.cls != StatementClass::Read) return verdict;
  return classifier_.parse(text, knowledge, temporary_relations);
}

void StatementCache::learn_write(std::string_view text) {
  read_text_form(text, form_);
  if (form_.problem != TextProblem::None || form_.empty || form_.modifies) return;  // never went to a standby
  if (const auto found = index_.find(form_.key); found != index_.end()) {
    if (found->second->learned) return;
    bytes_ -= cost(*found->second);
    const Entries::iterator entry = found->second;
    index_.erase(found);
    ordinary_.erase(entry);
  }
  insert({StatementClass::Write, ClassReason::Learned, TransactionKind::None, AccessMode::Default}, 0, true);
}

StatementCacheStats StatementCache::stats() const {
  StatementCacheStats stats = stats_;
  stats.entries = ordinary_.size() + learned_.size();
  stats.learned = learned_.size();
  stats.bytes = bytes_;
  return stats;
}

}  // namespace pgweir::router
