// The loop of one worker: an epoll set of all its sockets, its timers, and what its handlers want done after the batch.
// It decides in which order handlers run, and does not read or write the sockets. There is no Asio below it: a turn
// through an io_context costs an epoll_ctl to watch this set again and an epoll_wait around the one in here, which for
// a single client is 10 system calls per transaction instead of 6.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "proxy/io/unique_function.hpp"

namespace pgweir::io {

class TimerQueue;

/// Something that owns a descriptor in an EventSet.
struct EventHandler {
  virtual ~EventHandler() = default;
  /// `epoll_events`: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR… as epoll reported them. May add, modify and remove any
  /// descriptor, and may delete itself or other handlers after removing them. Must not throw.
  virtual void on_event(std::uint32_t epoll_events) = 0;
};

/// Level-triggered epoll set. All calls on the thread that runs it; before it runs, on the one that made it.
class EventSet {
 public:
  /// Throws std::system_error if the kernel gives no descriptor.
  EventSet();
  EventSet(const EventSet&) = delete;
  EventSet& operator=(const EventSet&) = delete;
  /// Not from within a handler. What was deferred is destroyed without being run.
  ~EventSet();

  /// Starts watching. `handler` must live until `remove`. False: errno tells why (no memory, descriptor unknown).
  [[nodiscard]] bool add(int fd, std::uint32_t events, EventHandler* handler);
  /// add() for input on a descriptor that the caller has just made by the system call `maker`. Throws
  /// std::system_error, with `fd` closed, if that or this failed.
  void add_new(int fd, const char* maker, EventHandler* handler);
  /// Replaces events and handler of a watched descriptor. An event of the current batch still goes to the old handler,
  /// so a hand-over to another handler is remove and add.
  [[nodiscard]] bool modify(int fd, std::uint32_t events, EventHandler* handler);
  /// Stops watching `fd`; afterwards no event of the current batch reaches `handler` (events of other descriptors of
  /// the same handler come again with the next batch, the set being level-triggered). Call before closing `fd`.
  void remove(int fd, EventHandler* handler);

  /// Runs `function` after the handlers of the current batch, or soon if there is none; what it defers in turn waits
  /// for the batch after.
  void defer(UniqueFunction function) { deferred_.push_back(std::move(function)); }
  [[nodiscard]] TimerQueue& timers() { return *timers_; }
  /// Number of the current batch, or of the last one.
  [[nodiscard]] std::uint64_t batch() const { return batches_; }

  struct Hooks {
    std::function<void(int events)> before_batch;  ///< once per batch: the place to refresh a cached clock
    std::function<void()> after_batch;             ///< after its last handler
    /// How long run() may wait for the next batch; negative: without end. When that is over there is a batch without
    /// events.
    std::function<std::chrono::milliseconds()> patience;
  };
  /// Any of them may be empty.
  void set_hooks(Hooks hooks);
  /// Serves batches until stop().
  void run();
  /// Serves one batch, waiting for it as long as `patience`; a negative one waits without end. True: there was one.
  bool run_once(std::chrono::milliseconds patience);
  /// Ends run(); from within a handler the rest of the batch is not delivered.
  void stop();

 private:
  static constexpr int kBatch = 256;

  void serve(int count);
  void dispatch(int count);
  void run_deferred();

  int epoll_;
  Hooks hooks_;
  std::array<epoll_event, kBatch> batch_;
  int batch_next_ = 0;
  int batch_count_ = 0;
  std::uint64_t batches_ = 0;
  bool running_ = false;
  std::vector<UniqueFunction> deferred_, running_deferred_;  // Both keep their capacity.
  std::unique_ptr<TimerQueue> timers_;
};

}  // namespace pgweir::io
