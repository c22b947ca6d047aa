// A move-only callable without arguments and result, as std::move_only_function<void()> of C++23 will be. Small ones
// live inside the object, so that a message between workers needs no allocation.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace pgweir::io {

class UniqueFunction {
 public:
  UniqueFunction() noexcept = default;

  template <typename F>
  requires(!std::is_same_v<std::decay_t<F>, UniqueFunction> && std::is_invocable_v<std::decay_t<F>&>)
      UniqueFunction(F&& function) {  // NOLINT(google-explicit-constructor): callers pass lambdas.
    using Target = std::decay_t<F>;
    if constexpr (kFits<Target>) {
      ::new (static_cast<void*>(storage_)) Target(std::forward<F>(function));
      operations_ = &kInPlace<Target>;
    } else {
      ::new (static_cast<void*>(storage_)) Target*(new Target(std::forward<F>(function)));
      operations_ = &kOnHeap<Target>;
    }
  }

  UniqueFunction(UniqueFunction&& other) noexcept { take(other); }
  UniqueFunction& operator=(UniqueFunction&& other) noexcept {
    if (this != &other) {
      reset();
      take(other);
    }
    return *this;
  }
  ~UniqueFunction() { reset(); }

  [[nodiscard]] explicit operator bool() const noexcept { return operations_ != nullptr; }
  /// Precondition: not empty.
  void operator()() { operations_->call(storage_); }

 private:
  static constexpr std::size_t kSize = 72;

  struct Operations {
    void (*call)(void* storage);
    void (*move)(void* to, void* from) noexcept;
    void (*destroy)(void* storage) noexcept;
  };

  template <typename T>
  static constexpr bool kFits = sizeof(T) <= kSize &&
                                alignof(T) <= alignof(std::max_align_t) && std::is_nothrow_move_constructible_v<T>;

  template <typename T>
  static T& in_place(void* storage) noexcept {
    return *std::launder(static_cast<T*>(storage));
  }

  template <typename T>
  static constexpr Operations kInPlace{[](void* storage) { in_place<T>(storage)(); },
                                       [](void* to, void* from) noexcept {
                                         ::new (to) T(std::move(in_place<T>(from)));
                                         in_place<T>(from).~T();
                                       },
                                       [](void* storage) noexcept { in_place<T>(storage).~T(); }};

  template <typename T>
  static constexpr Operations kOnHeap{[](void* storage) { (*in_place<T*>(storage))(); },
                                      [](void* to, void* from) noexcept { ::new (to) T*(in_place<T*>(from)); },
                                      [](void* storage) noexcept { delete in_place<T*>(storage); }};

  void take(UniqueFunction& other) noexcept {
    operations_ = std::exchange(other.operations_, nullptr);
    if (operations_ != nullptr) operations_->move(storage_, other.storage_);
  }
  void reset() noexcept {
    if (operations_ != nullptr) std::exchange(operations_, nullptr)->destroy(storage_);
  }

  alignas(std::max_align_t) std::byte storage_[kSize];
  const Operations* operations_ = nullptr;
};

}  // namespace pgweir::io
