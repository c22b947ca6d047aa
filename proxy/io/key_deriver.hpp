// Threads that derive keys from passwords, so that no worker keeps its clients waiting for that: each worker has one
// derivation at a time with them. What is derived when, and who waits for it, is decided in core.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "pool/ids.hpp"
#include "pool/time.hpp"
#include "protocol/crypto.hpp"
#include "proxy/core/key_derivations.hpp"
#include "proxy/io/task_threads.hpp"

namespace pgweir::io {

class KeyDeriver {
 public:
  struct Asker {
    pool::WorkerId worker = 0;
    std::uint64_t number = 0;
  };
  /// On one of the threads, never after stop(); must not block nor call back.
  using Deliver = std::function<void(const Asker&, const protocol::Sha256Digest& key)>;

  KeyDeriver(Deliver deliver, std::size_t threads_max);

  /// Any thread. False: the system gives no thread, or stop() was called; `question` is as it was. The queue needs no
  /// bound of its own, as there are no more questions than workers.
  [[nodiscard]] bool ask(const Asker& asker, core::KeyQuestion& question);
  /// As TaskThreads::stop. (A secret may ask for two billion iterations.)
  bool stop(pool::Duration patience) { return threads_.stop(patience); }

 private:
  struct Task {
    Asker asker;
    core::KeyQuestion question;
  };
  TaskThreads<Task> threads_;
};

}  // namespace pgweir::io
