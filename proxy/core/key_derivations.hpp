// The queue of a worker's key derivations (PBKDF2, the one expensive step of SCRAM). A derivation takes a core some
// half millisecond at 4,096 iterations, and hundreds of users may log in for the first time at once: no event may wait
// for them. Decides which is next and who hears of the outcome; the Host carries out one at a time. Whoever needs the
// same key shares the derivation. The queue is never longer than there are logins: one that is over takes its request
// back.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "pool/ids.hpp"

namespace pgweir::core {

/// What SaltedPassword of RFC 5802 is derived from.
struct KeyQuestion {
  std::string password;  ///< SASLprep has been applied
  std::string salt;      ///< raw
  std::uint32_t iterations = 1;

  friend auto operator<=>(const KeyQuestion&, const KeyQuestion&) = default;
};

/// Whose login waits for a key.
using KeyWaiter = std::variant<pool::ClientId, pool::ServerId>;

/// Worker only.
class KeyDerivations {
  struct Place {
    bool client = false;
    std::uint64_t number = 0;

    friend auto operator<=>(const Place&, const Place&) = default;
  };

 public:
  /// A request in the queue. Destroyed, it is taken back, and nobody is told of its outcome.
  class Request {
   public:
    Request() = default;
    Request(Request&& other) noexcept { *this = std::move(other); }
    Request& operator=(Request&& other) noexcept {
      std::swap(queue_, other.queue_);
      std::swap(place_, other.place_);
      std::swap(waiter_, other.waiter_);
      return *this;
    }
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    ~Request() {
      if (queue_ != nullptr) queue_->leave(place_, waiter_);
    }

   private:
    friend class KeyDerivations;
    Request(KeyDerivations& queue, Place place, const KeyWaiter& waiter)
        : queue_(&queue), place_(place), waiter_(waiter) {}

    KeyDerivations* queue_ = nullptr;
    Place place_;
    KeyWaiter waiter_;
  };

  /// The queue must outlive its requests. Servers come before clients, many of whom may wait for one server; otherwise
  /// the order is that of asking.
  [[nodiscard]] Request ask(const KeyWaiter& waiter, KeyQuestion question);

  /// What the Host is to derive now, and a number to know it by.
  struct Next {
    std::uint64_t number = 0;
    KeyQuestion question;
  };
  /// It is under way from then on. Nothing while one is, and if there is none.
  [[nodiscard]] std::optional<Next> next();

  struct Finished {
    KeyQuestion question;
    std::vector<KeyWaiter> waiters;  ///< in the order of asking; nobody if all have left
  };
  /// The one under way has ended. Any other number is of a process before this one: nobody waits for it.
  [[nodiscard]] Finished finished(std::uint64_t number);

  /// Requests for different keys, with the one under way.
  [[nodiscard]] std::size_t size() const { return jobs_.size(); }

 private:
  struct Job {
    KeyQuestion question;
    std::vector<KeyWaiter> waiters;
  };

  void leave(Place place, const KeyWaiter& waiter);

  std::map<Place, Job> jobs_;
  std::map<KeyQuestion, Place> places_;
  std::optional<Place> under_way_;
  std::uint64_t last_number_ = 0;
};

}  // namespace pgweir::core
