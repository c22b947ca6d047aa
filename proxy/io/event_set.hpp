// The epoll set of one worker: which sockets are watched and in which order their handlers run. It does not read or
// write the sockets. Asio watches only the set's own descriptor, because its cost per operation is more than a pooler's
// work per message; a batch of ready sockets costs one epoll_wait here, however many they are.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace pgweir::io {

/// Something that owns a socket in an EventSet.
struct EventHandler {
  virtual ~EventHandler() = default;
  /// `epoll_events`: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR… as epoll reported them. May add, modify and remove any
  /// descriptor, and may delete itself or other handlers after removing them. Must not throw.
  virtual void on_event(std::uint32_t epoll_events) = 0;
};

/// Level-triggered epoll set inside an io_context. Worker thread only; must not be destroyed from within a handler.
class EventSet {
 public:
  /// Throws std::system_error if the kernel gives no descriptor.
  explicit EventSet(boost::asio::io_context& context);
  EventSet(const EventSet&) = delete;
  EventSet& operator=(const EventSet&) = delete;
  ~EventSet();

  /// Starts watching. `handler` must live until `remove`. False: errno tells why (no memory, descriptor unknown).
  [[nodiscard]] bool add(int fd, std::uint32_t events, EventHandler* handler);
  /// Replaces events and handler of a watched descriptor. An event of the current batch still goes to the old handler,
  /// so a hand-over to another handler is remove and add.
  [[nodiscard]] bool modify(int fd, std::uint32_t events, EventHandler* handler);
  /// Stops watching `fd`; afterwards no event of the current batch reaches `handler` (events of other descriptors of
  /// the same handler come again with the next batch, the set being level-triggered). Call before closing `fd`.
  void remove(int fd, EventHandler* handler);

  /// Begins dispatching. `before_batch` runs once per batch (the place to refresh a cached clock), `after_batch` after
  /// its last handler. Either may be empty.
  void start(std::function<void()> before_batch, std::function<void()> after_batch);
  /// Ends dispatching, also from within a handler: the rest of the batch is not delivered.
  void stop();

 private:
  static constexpr int kBatch = 256;
  static constexpr int kRounds = 4;

  void arm();
  void drain();
  void dispatch(int count);

  boost::asio::posix::stream_descriptor epoll_;
  std::function<void()> before_batch_;
  std::function<void()> after_batch_;
  std::array<epoll_event, kBatch> batch_;
  int batch_next_ = 0;
  int batch_count_ = 0;
  bool running_ = false;
  std::shared_ptr<bool> alive_;  // A completion queued in the io_context may outlive the set.
};

}  // namespace pgweir::io
