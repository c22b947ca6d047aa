#include "proxy/io/password_checker.hpp"

#include <exception>
#include <utility>

namespace pgweir::io {

namespace {

// These are the business of worker 0; a call into PAM must not be cut short by one. No others: the programs that
// modules of PAM start inherit what is blocked.
sigset_t signals_of_worker_0() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2}) ::sigaddset(&set, number);
  return set;
}

Judgement judged(const PasswordChecker::Judge& judge, const core::PasswordQuestion& question) {
  try {
    return judge(question);
  } catch (const std::exception& e) {
    return {.verdict = {.reason = e.what()}};
  }
}

}  // namespace

PasswordChecker::PasswordChecker(Judge judge, Deliver deliver, const Limits& limits)
    : threads_({.work =
                    [judge = std::move(judge), deliver = std::move(deliver)](Task& task) {
                      return UniqueFunction(
                          [&deliver, asker = task.asker, judgement = judged(judge, task.question)]() mutable {
                            deliver(asker, std::move(judgement));
                          });
                    },
                .threads = limits.threads,
                .waiting = limits.waiting,
                .blocked = signals_of_worker_0()}) {}

bool PasswordChecker::ask(const Asker& asker, core::PasswordQuestion question) {
  Task task{asker, std::move(question)};
  return threads_.add(task);
}

void PasswordChecker::abandon(const Asker& asker) {
  threads_.remove_if([&](const Task& one) { return one.asker == asker; });
}

Judgement judge_password(const core::PasswordQuestion& question) {
  if (const auto* pam = std::get_if<core::PamQuestion>(&question.by)) return judge_by_pam(*pam, question);
  return judge_by_ldap(std::get<core::LdapQuestion>(question.by), question);
}

}  // namespace pgweir::io
