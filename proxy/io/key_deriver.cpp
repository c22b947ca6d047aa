#include "proxy/io/key_deriver.hpp"

#include <signal.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <utility>

#include "proxy/io/openssl_crypto.hpp"

namespace pgweir::io {

struct KeyDeriver::State {
  struct Waiting {
    Asker asker;
    core::KeyQuestion question;
  };

  Deliver deliver;
  std::size_t threads_max = 1;
  OpensslCrypto crypto;
  std::mutex mutex;
  std::condition_variable asked, ended;
  std::deque<Waiting> waiting;  // This and what follows under `mutex`.
  std::size_t idle = 0, alive = 0;
  bool stopped = false;
};

KeyDeriver::KeyDeriver(Deliver deliver, std::size_t threads_max) : state_(std::make_shared<State>()) {
  state_->deliver = std::move(deliver);
  state_->threads_max = threads_max;
}

KeyDeriver::~KeyDeriver() {
  stop({});
}

bool KeyDeriver::ask(const Asker& asker, core::KeyQuestion& question) {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  if (state.stopped) return false;
  if (state.idle <= state.waiting.size() && state.alive < state.threads_max) {
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

bool KeyDeriver::stop(pool::Duration patience) {
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

void KeyDeriver::run(const std::shared_ptr<State>& shared) {
  sigset_t set;
  ::sigfillset(&set);  // signals are the business of worker 0
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
    const protocol::Sha256Digest key =
        state.crypto.pbkdf2_sha256(next.question.password, next.question.salt, next.question.iterations);
    lock.lock();
    if (!state.stopped) state.deliver(next.asker, key);
  }
  --state.alive;
  state.ended.notify_all();
}

}  // namespace pgweir::io
