// Threads that derive keys from passwords, so that no worker keeps its clients waiting for that: each worker has one
// derivation at a time with them. What is derived when, and who waits for it, is decided in core.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "pool/ids.hpp"
#include "pool/time.hpp"
#include "protocol/crypto.hpp"
#include "proxy/core/key_derivations.hpp"

namespace pgweir::io {

class KeyDeriver {
 public:
  struct Asker {
    pool::WorkerId worker = 0;
    std::uint64_t number = 0;
  };
  /// On one of the threads, never after stop(); must not block nor call back.
  using Deliver = std::function<void(const Asker&, const protocol::Sha256Digest& key)>;

  /// No thread is started before it is needed; at most `threads_max`.
  KeyDeriver(Deliver deliver, std::size_t threads_max);
  KeyDeriver(const KeyDeriver&) = delete;
  KeyDeriver& operator=(const KeyDeriver&) = delete;
  ~KeyDeriver();

  /// Any thread. False: the system gives no thread, or stop() was called; `question` is as it was. The queue needs no
  /// bound of its own, as there are no more questions than workers.
  [[nodiscard]] bool ask(const Asker& asker, core::KeyQuestion& question);
  /// Owner. No answer is delivered any more. False if after `patience` a thread still computes, which nothing can stop
  /// (a secret may ask for two billion iterations): it goes on alone, and the process should end without it.
  bool stop(pool::Duration patience);

 private:
  struct State;
  static void run(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;      // Shared with the threads, one of which may outlive this object.
  std::vector<std::thread> threads_;  // Under the mutex of the state until stop().
};

}  // namespace pgweir::io
