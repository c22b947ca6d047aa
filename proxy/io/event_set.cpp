#include "proxy/io/event_set.hpp"

#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace pgweir::io {

namespace {

int create_epoll() {
  const int fd = ::epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  return fd;
}

}  // namespace

EventSet::EventSet(boost::asio::io_context& context)
    : epoll_(context, create_epoll()), alive_(std::make_shared<bool>(true)) {}

EventSet::~EventSet() {
  *alive_ = false;
}

bool EventSet::add(int fd, std::uint32_t events, EventHandler* handler) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = handler;
  return ::epoll_ctl(epoll_.native_handle(), EPOLL_CTL_ADD, fd, &event) == 0;
}

bool EventSet::modify(int fd, std::uint32_t events, EventHandler* handler) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = handler;
  return ::epoll_ctl(epoll_.native_handle(), EPOLL_CTL_MOD, fd, &event) == 0;
}

void EventSet::remove(int fd, EventHandler* handler) {
  epoll_event unused{};
  ::epoll_ctl(epoll_.native_handle(), EPOLL_CTL_DEL, fd, &unused);
  for (int i = batch_next_; i < batch_count_; ++i) {
    auto& entry = batch_[static_cast<std::size_t>(i)];
    if (entry.data.ptr == handler) entry.data.ptr = nullptr;
  }
}

void EventSet::start(std::function<void()> before_batch, std::function<void()> after_batch) {
  before_batch_ = std::move(before_batch);
  after_batch_ = std::move(after_batch);
  if (std::exchange(running_, true)) return;
  arm();
}

void EventSet::stop() {
  running_ = false;
  batch_next_ = batch_count_ = 0;
  boost::system::error_code ignored;
  epoll_.cancel(ignored);
}

void EventSet::arm() {
  epoll_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                    [this, alive = alive_](const boost::system::error_code& error) {
                      if (!*alive || !running_ || error) return;
                      drain();
                      if (running_) arm();
                    });
}

// Each turn through Asio costs an epoll_ctl (re-arming) and an outer epoll_wait. Under load further rounds find work
// and spread that cost over several batches; a batch of one means low load, where another look would almost always be
// an empty system call. Nothing is lost by leaving: re-arming reports a set that is still ready. The bound on the
// rounds gives timers and mailboxes of the io_context their turn.
// Measured with strace, echoing over N socket pairs: N=32 takes 0.04 epoll_wait and 0.01 epoll_ctl per event, N=4 0.33
// and 0.07, a lone busy socket 2 and 1.
void EventSet::drain() {
  for (int round = 0; round < kRounds && running_; ++round) {
    const int count = ::epoll_wait(epoll_.native_handle(), batch_.data(), kBatch, 0);
    if (count <= 0) return;
    if (before_batch_) before_batch_();
    dispatch(count);
    if (after_batch_) after_batch_();
    if (count == 1) return;
  }
}

void EventSet::dispatch(int count) {
  batch_count_ = count;
  for (batch_next_ = 0; batch_next_ < batch_count_;) {
    // The index moves on first: remove() looks only at what is still to come.
    const epoll_event entry = batch_[static_cast<std::size_t>(batch_next_++)];
    if (entry.data.ptr != nullptr) static_cast<EventHandler*>(entry.data.ptr)->on_event(entry.events);
  }
  batch_next_ = batch_count_ = 0;
}

}  // namespace pgweir::io
