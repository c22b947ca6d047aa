#include "proxy/io/password_checker.hpp"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <utility>

namespace pgweir::io {

struct PasswordChecker::State {
  struct Waiting {
    Asker asker;
    core::PasswordQuestion question;
  };

  Judge judge;
  Deliver deliver;
  Limits limits;
  std::mutex mutex;
  std::condition_variable asked, ended;
  std::deque<Waiting> waiting;  // This and what follows under `mutex`.
  std::size_t idle = 0, alive = 0;
  bool stopped = false;
};

PasswordChecker::PasswordChecker(Judge judge, Deliver deliver, const Limits& limits)
    : state_(std::make_shared<State>()) {
  state_->judge = std::move(judge);
  state_->deliver = std::move(deliver);
  state_->limits = limits;
}

PasswordChecker::~PasswordChecker() {
  stop({});
}

bool PasswordChecker::ask(const Asker& asker, core::PasswordQuestion question) {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  if (state.stopped || state.waiting.size() >= state.limits.waiting) return false;
  // Most processes never need a thread.
  if (state.idle <= state.waiting.size() && state.alive < state.limits.threads) {
    try {
      threads_.emplace_back([shared = state_] { run(shared); });
      ++state.alive;
    } catch (const std::system_error&) {
      if (state.alive == 0) return false;
    }
  }
  state.waiting.push_back({asker, std::move(question)});
  state.asked.notify_one();
  return true;
}

void PasswordChecker::abandon(const Asker& asker) {
  const std::lock_guard lock(state_->mutex);
  std::erase_if(state_->waiting, [&](const State::Waiting& one) { return one.asker == asker; });
}

bool PasswordChecker::stop(pool::Duration patience) {
  State& state = *state_;
  bool all_ended;
  {
    std::unique_lock lock(state.mutex);
    state.stopped = true;
    state.waiting.clear();
    state.asked.notify_all();
    if (threads_.empty()) return state.alive == 0;
    all_ended = state.ended.wait_for(lock, patience, [&] { return state.alive == 0; });
  }
  for (std::thread& thread : threads_) {
    if (all_ended) {
      thread.join();
    } else {
      thread.detach();
    }
  }
  threads_.clear();
  return all_ended;
}

void PasswordChecker::run(const std::shared_ptr<State>& shared) {
  // These are the business of worker 0; a call into PAM must not be cut short by one. No others: the programs that
  // modules of PAM start inherit what is blocked.
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2}) ::sigaddset(&set, number);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  State& state = *shared;
  std::unique_lock lock(state.mutex);
  for (;;) {
    ++state.idle;
    state.asked.wait(lock, [&] { return state.stopped || !state.waiting.empty(); });
    --state.idle;
    if (state.stopped) break;
    const State::Waiting next = std::move(state.waiting.front());
    state.waiting.pop_front();
    lock.unlock();
    Judgement judgement;
    try {
      judgement = state.judge(next.question);
    } catch (const std::exception& e) {
      judgement.verdict.reason = e.what();
    }
    lock.lock();
    if (!state.stopped) state.deliver(next.asker, std::move(judgement));
  }
  --state.alive;
  state.ended.notify_all();
}

Judgement judge_password(const core::PasswordQuestion& question) {
  if (const auto* pam = std::get_if<core::PamQuestion>(&question.by)) return judge_by_pam(*pam, question);
  return judge_by_ldap(std::get<core::LdapQuestion>(question.by), question);
}

}  // namespace pgweir::io
