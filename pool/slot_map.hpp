// Storage with stable addresses and ids that go stale: a slot is an index plus a generation, and erasing moves the
// slot to its next generation. It decides nothing. Freed slots are reused first, so that after warm-up nothing is
// allocated.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "pool/invariant.hpp"

namespace pgweir::pool {

/// T must have a member `id` of type Id.
template <class T, class Id>
class SlotMap {
 public:
  /// A value-initialised T whose `id` is set. The reference lasts until erase().
  T& add() {
    if (free_.empty()) grow();
    const std::uint32_t index = free_.back();
    free_.pop_back();
    Slot& slot = slot_at(index);
    T& value = slot.value.emplace();
    value.id = Id{index, slot.generation};
    ++size_;
    return value;
  }

  /// nullptr for an id that names nothing or no longer names anything.
  [[nodiscard]] T* find(Id id) {
    if (id.index >= capacity()) return nullptr;
    Slot& slot = slot_at(id.index);
    return slot.value && slot.generation == id.generation ? &*slot.value : nullptr;
  }
  [[nodiscard]] const T* find(Id id) const { return const_cast<SlotMap*>(this)->find(id); }

  void erase(T& value) {
    const std::uint32_t index = value.id.index;
    Slot& slot = slot_at(index);
    PROXY_INVARIANT(slot.value && &*slot.value == &value);
    slot.value.reset();
    if (++slot.generation == 0) slot.generation = 1;
    free_.push_back(index);
    --size_;
  }

  [[nodiscard]] std::uint32_t size() const { return size_; }

  template <class F>
  void for_each(F&& visit) const {
    for (const auto& chunk : chunks_) {
      for (Slot& slot : *chunk) {
        if (slot.value) visit(*slot.value);
      }
    }
  }

 private:
  static constexpr std::uint32_t kChunk = 64;
  struct Slot {
    std::uint32_t generation = 1;
    std::optional<T> value;
  };

  [[nodiscard]] std::uint32_t capacity() const { return static_cast<std::uint32_t>(chunks_.size()) * kChunk; }
  [[nodiscard]] Slot& slot_at(std::uint32_t index) { return (*chunks_[index / kChunk])[index % kChunk]; }

  void grow() {
    const std::uint32_t first = capacity();
    chunks_.push_back(std::make_unique<std::array<Slot, kChunk>>());
    free_.reserve(capacity());
    for (std::uint32_t i = kChunk; i-- > 0;) free_.push_back(first + i);
  }

  std::vector<std::unique_ptr<std::array<Slot, kChunk>>> chunks_;
  std::vector<std::uint32_t> free_;
  std::uint32_t size_ = 0;
};

}  // namespace pgweir::pool
