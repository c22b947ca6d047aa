// A few threads for what takes too long for a worker: tasks go into a queue, and what comes of each is delivered. No
// thread is started before it is needed. What a task is, how it is done and who hears of it is the caller's business.
#pragma once

#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "pool/time.hpp"
#include "proxy/io/unique_function.hpp"

namespace pgweir::io {

template <class Task>
class TaskThreads {
 public:
  struct Settings {
    /// On one of the threads; may block, must not throw. Answers what is to be done with the outcome, also there: never
    /// after stop(), and it must not block nor call back.
    std::function<UniqueFunction(Task&)> work;
    std::size_t threads = 1;                             ///< at most
    std::size_t waiting = static_cast<std::size_t>(-1);  ///< tasks that no thread has begun with
    sigset_t blocked{};                                  ///< signals that the threads do not take
  };

  explicit TaskThreads(Settings settings) : state_(std::make_shared<State>(std::move(settings))) {}
  TaskThreads(const TaskThreads&) = delete;
  TaskThreads& operator=(const TaskThreads&) = delete;
  ~TaskThreads() { stop({}); }

  /// Any thread. False, and `task` is as it was: too many wait, the system gives no thread, or stop() was called.
  [[nodiscard]] bool add(Task& task) {
    State& state = *state_;
    const std::lock_guard lock(state.mutex);
    if (state.stopped || state.waiting.size() >= state.settings.waiting) return false;
    if (state.idle <= state.waiting.size() && state.alive < state.settings.threads) {
      try {
        threads_.emplace_back([shared = state_] { run(shared); });
        ++state.alive;
      } catch (const std::system_error&) {
        if (state.alive == 0) return false;
      }
    }
    state.waiting.push_back(std::move(task));
    state.asked.notify_one();
    return true;
  }

  /// Any thread: takes back those that no thread has begun with.
  template <class Predicate>
  void remove_if(Predicate predicate) {
    const std::lock_guard lock(state_->mutex);
    std::erase_if(state_->waiting, predicate);
  }

  /// Owner. Nothing is delivered any more. False if after `patience` a thread is still at work, which nothing can stop:
  /// it goes on alone, and the process should end without what it may be using.
  bool stop(pool::Duration patience) {
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

 private:
  struct State {
    explicit State(Settings with) : settings(std::move(with)) {}
    Settings settings;
    std::mutex mutex;
    std::condition_variable asked, ended;
    std::deque<Task> waiting;  // This and what follows under `mutex`.
    std::size_t idle = 0, alive = 0;
    bool stopped = false;
  };

  static void run(const std::shared_ptr<State>& shared) {
    State& state = *shared;
    ::pthread_sigmask(SIG_BLOCK, &state.settings.blocked, nullptr);
    std::unique_lock lock(state.mutex);
    for (;;) {
      ++state.idle;
      state.asked.wait(lock, [&] { return state.stopped || !state.waiting.empty(); });
      --state.idle;
      if (state.stopped) break;
      Task task = std::move(state.waiting.front());
      state.waiting.pop_front();
      lock.unlock();
      UniqueFunction deliver = state.settings.work(task);
      lock.lock();
      if (!state.stopped) deliver();
    }
    --state.alive;
    state.ended.notify_all();
  }

  std::shared_ptr<State> state_;      // Shared with the threads, one of which may outlive this object.
  std::vector<std::thread> threads_;  // Under the mutex of the state until stop().
};

}  // namespace pgweir::io
