// Signals as events of an EventSet (signalfd): they are acted on between two messages and interrupt nothing.
#pragma once

#include <functional>
#include <vector>

#include "proxy/io/event_set.hpp"

namespace pgweir::io {

/// Blocks `numbers` in this thread and all that it starts from now on, so that only a SignalWatcher takes them.
void block_signals(const std::vector<int>& numbers);

/// On the thread of its EventSet. The signals must be blocked in every thread.
class SignalWatcher final : private EventHandler {
 public:
  /// Throws std::system_error if the kernel gives no descriptor.
  SignalWatcher(EventSet& events, const std::vector<int>& numbers, std::function<void(int number)> on_signal);
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;
  ~SignalWatcher() override;

 private:
  void on_event(std::uint32_t epoll_events) override;

  EventSet& events_;
  std::function<void(int)> on_signal_;
  int fd_;
};

}  // namespace pgweir::io
