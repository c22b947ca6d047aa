// The heap operations; see the header.
#include "pool/deadline_heap.hpp"

namespace pgweir::pool {

void DeadlineHeap::sift_up(std::size_t at) {
  DeadlineEntry* entry = heap_[at];
  while (at > 0) {
    const std::size_t parent = (at - 1) / 2;
    if (heap_[parent]->deadline <= entry->deadline) break;
    put(at, heap_[parent]);
    at = parent;
  }
  put(at, entry);
}

void DeadlineHeap::sift_down(std::size_t at) {
  DeadlineEntry* entry = heap_[at];
  for (;;) {
    std::size_t child = 2 * at + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->deadline < heap_[child]->deadline) ++child;
    if (entry->deadline <= heap_[child]->deadline) break;
    put(at, heap_[child]);
    at = child;
  }
  put(at, entry);
}

void DeadlineHeap::remove(DeadlineEntry& entry) {
  if (entry.heap_at == DeadlineEntry::kNowhere) return;
  DeadlineEntry* last = heap_.back();
  heap_.pop_back();
  if (last != &entry) {
    put(entry.heap_at, last);
    sift_up(last->heap_at);
    sift_down(last->heap_at);
  }
  entry.heap_at = DeadlineEntry::kNowhere;
  entry.deadline = kNever;
}

DeadlineEntry& DeadlineHeap::pop() {
  DeadlineEntry& first = *heap_.front();
  remove(first);
  return first;
}

bool DeadlineHeap::consistent() const {
  for (std::size_t i = 0; i < heap_.size(); ++i) {
    if (heap_[i]->heap_at != i) return false;
    if (i > 0 && heap_[(i - 1) / 2]->deadline > heap_[i]->deadline) return false;
  }
  return true;
}

}  // namespace pgweir::pool
