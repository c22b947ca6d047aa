// Threads that wait for PAM and for directory servers, so that no worker has to: questions go into a bounded queue, and
// each answer goes back to whoever asked. Who judges a password, and how an answer travels, is the caller's business.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "pool/ids.hpp"
#include "pool/time.hpp"
#include "proxy/core/password_check.hpp"

namespace pgweir::io {

struct Judgement {
  core::PasswordVerdict verdict;
  /// How long a refusal is to be kept from the client. No thread is held for as long: a few wrong passwords would
  /// otherwise keep everybody else out.
  pool::Duration delay{};
};

class PasswordChecker {
 public:
  struct Asker {
    pool::WorkerId worker = 0;
    pool::ClientId client{};
    friend bool operator==(const Asker&, const Asker&) = default;
  };
  struct Limits {
    std::size_t threads = 1;
    std::size_t waiting = 1000;  ///< questions that no thread has begun with
  };
  /// On one of the threads; may block. What it throws counts as a refusal.
  using Judge = std::function<Judgement(const core::PasswordQuestion&)>;
  /// On one of the threads, never after stop(); must not block nor call back.
  using Deliver = std::function<void(const Asker&, Judgement)>;

  PasswordChecker(Judge judge, Deliver deliver, const Limits& limits);
  PasswordChecker(const PasswordChecker&) = delete;
  PasswordChecker& operator=(const PasswordChecker&) = delete;
  ~PasswordChecker();

  /// Any thread. True: there will be one answer, unless abandoned. False: the queue is full, or there are no threads.
  [[nodiscard]] bool ask(const Asker& asker, core::PasswordQuestion question);
  /// Any thread: takes the question of `asker` back if no thread has begun with it. An answer may still come.
  void abandon(const Asker& asker);
  /// Owner. No answer is delivered any more. False if after `patience` a thread still waits for a judge, which nothing
  /// can stop: it goes on alone, and the process should end without calling what it may be using.
  bool stop(pool::Duration patience);

 private:
  struct State;
  static void run(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;      // Shared with the threads, one of which may outlive this object.
  std::vector<std::thread> threads_;  // Under the mutex of the state until stop().
};

/// Asks whom the question names.
[[nodiscard]] Judgement judge_password(const core::PasswordQuestion& question);
[[nodiscard]] Judgement judge_by_pam(const core::PamQuestion& pam, const core::PasswordQuestion& question);
/// No step of it lasts for ever, whatever the directory server does.
[[nodiscard]] Judgement judge_by_ldap(const core::LdapQuestion& ldap, const core::PasswordQuestion& question);

}  // namespace pgweir::io
