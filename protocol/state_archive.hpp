// The state of a connection as bytes, for a process that takes it over from another one of this program (online
// restart). One function names the fields for writing and for reading alike, so that the two cannot differ. The bytes
// come from a process of the same user; still, reading never goes beyond their end and never makes more things than
// there are bytes: afterwards failed() says whether all was there.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "protocol/wire.hpp"

namespace pgweir::protocol {

class StateArchive {
 public:
  /// One that writes.
  StateArchive() = default;
  /// One that reads; `in` must outlive it.
  explicit StateArchive(ByteView in) : in_(in), reading_(true) {}

  [[nodiscard]] bool reading() const { return reading_; }
  /// What was read was cut short or makes no sense; fields read since then are zero or empty.
  [[nodiscard]] bool failed() const { return failed_; }
  void fail() { failed_ = true; }
  /// Everything was read, and nothing is left.
  [[nodiscard]] bool complete() const { return !failed_ && in_.empty(); }
  /// What was written.
  [[nodiscard]] std::string take() { return std::move(out_); }

  /// Writes the fields, or fills them.
  template <class... T>
  void operator()(T&... fields) {
    (field(fields), ...);
  }

  /// Writes `n`, or reads how many things follow: no more than there are bytes left.
  [[nodiscard]] std::size_t count(std::size_t n);

 private:
  void number(std::uint64_t& value);

  template <class T>
  requires(std::integral<T> || std::is_enum_v<T>) void field(T& value) {
    auto wide = static_cast<std::uint64_t>(value);
    number(wide);
    if (reading_) value = static_cast<T>(wide);
  }
  template <class Clock, class Duration>
  void field(std::chrono::time_point<Clock, Duration>& value) {
    auto ticks = value.time_since_epoch().count();
    field(ticks);
    if (reading_) value = std::chrono::time_point<Clock, Duration>(Duration(ticks));
  }
  void field(std::string& value);
  template <class T>
  void field(std::optional<T>& value) {
    bool there = value.has_value();
    field(there);
    if (reading_) value = there ? std::optional<T>(std::in_place) : std::nullopt;
    if (value) field(*value);
  }

  std::string out_;
  ByteView in_;
  bool reading_ = false;
  bool failed_ = false;
};

}  // namespace pgweir::protocol
