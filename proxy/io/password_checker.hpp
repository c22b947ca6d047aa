// Threads that wait for PAM and for directory servers, so that no worker has to: questions go into a bounded queue, and
// each answer goes back to whoever asked. Who judges a password, and how an answer travels, is the caller's business.
#pragma once

#include <cstddef>
#include <functional>

#include "pool/ids.hpp"
#include "pool/time.hpp"
#include "proxy/core/password_check.hpp"
#include "proxy/io/task_threads.hpp"

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

  /// Any thread. True: there will be one answer, unless abandoned. False: the queue is full, or there are no threads.
  [[nodiscard]] bool ask(const Asker& asker, core::PasswordQuestion question);
  /// Any thread: takes the question of `asker` back if no thread has begun with it. An answer may still come.
  void abandon(const Asker& asker);
  /// As TaskThreads::stop. (Nothing can stop a call of PAM.)
  bool stop(pool::Duration patience) { return threads_.stop(patience); }

 private:
  struct Task {
    Asker asker;
    core::PasswordQuestion question;
  };
  TaskThreads<Task> threads_;
};

/// Asks whom the question names.
[[nodiscard]] Judgement judge_password(const core::PasswordQuestion& question);
[[nodiscard]] Judgement judge_by_pam(const core::PamQuestion& pam, const core::PasswordQuestion& question);
/// No step of it lasts for ever, whatever the directory server does.
[[nodiscard]] Judgement judge_by_ldap(const core::LdapQuestion& ldap, const core::PasswordQuestion& question);

}  // namespace pgweir::io
