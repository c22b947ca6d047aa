// A binary heap of pools, or of databases, by the time at which they next want to be looked at. It decides nothing.
// Moving a deadline is O(log n), and callers avoid even that by only ever moving one earlier.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pool/time.hpp"

namespace pgweir::pool {

struct DeadlineEntry {
  static constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);
  TimePoint deadline = kNever;
  std::size_t heap_at = kNowhere;
};

class DeadlineHeap {
 public:
  /// Makes sure that `entry` is due at `when` or earlier.
  void not_later_than(DeadlineEntry& entry, TimePoint when) {
    if (when >= entry.deadline) return;
    entry.deadline = when;
    if (entry.heap_at == DeadlineEntry::kNowhere) {
      entry.heap_at = heap_.size();
      heap_.push_back(&entry);
    }
    sift_up(entry.heap_at);
  }

  [[nodiscard]] TimePoint next() const { return heap_.empty() ? kNever : heap_.front()->deadline; }

  /// Takes out the entry that is due first. The heap must not be empty.
  DeadlineEntry& pop();

  /// Takes `entry` out wherever it is.
  void remove(DeadlineEntry& entry);

  /// For check_invariants.
  [[nodiscard]] bool consistent() const;

 private:
  void sift_up(std::size_t at);
  void sift_down(std::size_t at);
  void put(std::size_t at, DeadlineEntry* entry) {
    heap_[at] = entry;
    entry->heap_at = at;
  }

  std::vector<DeadlineEntry*> heap_;
};

}  // namespace pgweir::pool
