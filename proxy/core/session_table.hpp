// The clients of one worker by their id. An id's index is its place, so that finding, adding and removing one takes
// neither a hash nor memory of its own. The pools give the index of a client that has left to the next one, while the
// session of the first may have a last word to send: then both are in one place, the newer one first. Places are never
// given up; there are as many as the process has had clients at once.
#pragma once

#include <cstddef>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "pool/ids.hpp"

namespace pgweir::core {

/// Session has id(), and a std::unique_ptr<Session> next_in_place that is the table's. Nothing may be added or removed
/// during a walk.
template <class Session>
class SessionTable {
 public:
  using Places = std::vector<std::unique_ptr<Session>>;

  struct Entry {
    pool::ClientId first;
    Session* second;
    const Entry* operator->() const { return this; }
  };

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Entry;
    using difference_type = std::ptrdiff_t;
    using pointer = Entry;
    using reference = Entry;

    Iterator(typename Places::const_iterator place, typename Places::const_iterator end) : place_(place), end_(end) {
      find_occupied();
    }
    Entry operator*() const { return {session_->id(), session_}; }
    Entry operator->() const { return **this; }
    Iterator& operator++() {
      session_ = session_->next_in_place.get();
      if (session_ == nullptr) {
        ++place_;
        find_occupied();
      }
      return *this;
    }
    friend bool operator==(const Iterator& a, const Iterator& b) { return a.session_ == b.session_; }

   private:
    void find_occupied() {
      while (place_ != end_ && *place_ == nullptr) ++place_;
      session_ = place_ == end_ ? nullptr : place_->get();
    }
    typename Places::const_iterator place_, end_;
    Session* session_ = nullptr;
  };

  SessionTable() = default;
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;

  [[nodiscard]] Iterator begin() const { return {places_.begin(), places_.end()}; }
  [[nodiscard]] Iterator end() const { return {places_.end(), places_.end()}; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }

  /// Null if there is no such client.
  [[nodiscard]] Session* find(pool::ClientId id) const {
    if (id.index >= places_.size()) return nullptr;
    Session* session = places_[id.index].get();
    while (session != nullptr && session->id() != id) session = session->next_in_place.get();
    return session;
  }
  void add(std::unique_ptr<Session> session) {
    const std::size_t index = session->id().index;
    if (index >= places_.size()) places_.resize(index + 1);
    session->next_in_place = std::move(places_[index]);
    places_[index] = std::move(session);
    ++size_;
  }
  /// Null if there is no such client.
  std::unique_ptr<Session> take(pool::ClientId id) {
    if (id.index >= places_.size()) return nullptr;
    std::unique_ptr<Session>* at = &places_[id.index];
    while (*at != nullptr && (*at)->id() != id) at = &(*at)->next_in_place;
    if (*at == nullptr) return nullptr;
    std::unique_ptr<Session> session = std::move(*at);
    *at = std::move(session->next_in_place);
    --size_;
    return session;
  }

 private:
  Places places_;
  std::size_t size_ = 0;
};

}  // namespace pgweir::core
