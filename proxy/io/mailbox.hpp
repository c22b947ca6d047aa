// How threads give a worker something to do. Messages are collected under a short mutex and run as one batch on the
// owner; only the message that finds the box empty pays a system call to wake the owner. What the messages do is the
// callers' business.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "proxy/io/event_set.hpp"
#include "proxy/io/unique_function.hpp"

namespace pgweir::io {

/// Many senders, one owner: the thread of the EventSet. Must outlive all senders; the EventSet must outlive it.
class Mailbox : private EventHandler {
 public:
  /// Owner thread. Throws std::system_error if the kernel gives no descriptor.
  explicit Mailbox(EventSet& events);
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;
  ~Mailbox() override;

  /// Any thread, never blocks for long. `message` runs on the owner, in the order of the posts of one sender. After
  /// stop() it is destroyed at once instead, on the calling thread.
  void post(UniqueFunction message);
  /// Owner thread, also from within a message: waiting messages are destroyed without being run. Idempotent.
  void stop();

 private:
  void on_event(std::uint32_t epoll_events) override;

  EventSet& events_;
  int wake_fd_ = -1;
  bool delivering_ = true;               // Owner's copy of !stopped_: ends a running batch.
  std::vector<UniqueFunction> running_;  // Owner only; keeps its capacity between batches.
  std::mutex mutex_;
  std::vector<UniqueFunction> waiting_;  // Under mutex_.
  bool stopped_ = false;                 // Under mutex_.
};

}  // namespace pgweir::io
