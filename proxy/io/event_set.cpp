#include "proxy/io/event_set.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "proxy/io/socket_calls.hpp"
#include "proxy/io/timer.hpp"

namespace pgweir::io {

namespace {

int create_epoll() {
  const int fd = ::epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  return fd;
}

}  // namespace

EventSet::EventSet() : epoll_(create_epoll()) {
  try {
    timers_ = std::make_unique<TimerQueue>(*this);
  } catch (...) {
    ::close(epoll_);
    throw;
  }
}

EventSet::~EventSet() {
  deferred_.clear();
  timers_.reset();
  ::close(epoll_);
}

bool EventSet::add(int fd, std::uint32_t events, EventHandler* handler) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = handler;
  return ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0;
}

void EventSet::add_new(int fd, const char* maker, EventHandler* handler) {
  if (fd < 0) throw std::system_error(errno, std::generic_category(), maker);
  if (add(fd, EPOLLIN, handler)) return;
  const int error = errno;
  ::close(fd);
  throw std::system_error(error, std::generic_category(), "epoll_ctl");
}

bool EventSet::modify(int fd, std::uint32_t events, EventHandler* handler) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = handler;
  return ::epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == 0;
}

void EventSet::remove(int fd, EventHandler* handler) {
  epoll_event unused{};
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, &unused);
  for (int i = batch_next_; i < batch_count_; ++i) {
    auto& entry = batch_[static_cast<std::size_t>(i)];
    if (entry.data.ptr == handler) entry.data.ptr = nullptr;
  }
}

void EventSet::set_hooks(Hooks hooks) {
  hooks_ = std::move(hooks);
}

void EventSet::run() {
  running_ = true;
  while (running_) {
    const auto patience = hooks_.patience ? hooks_.patience() : std::chrono::milliseconds(-1);
    if (!run_once(patience) && patience.count() >= 0) serve(0);
  }
}

void EventSet::stop() {
  running_ = false;
  batch_next_ = batch_count_ = 0;
}

bool EventSet::run_once(std::chrono::milliseconds patience) {
  const int timeout = deferred_.empty() ? static_cast<int>(patience.count()) : 0;
  const int count = wait_for_events(epoll_, batch_.data(), kBatch, timeout);
  if (count < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "epoll_pwait");
  if (count <= 0 && deferred_.empty()) return false;
  serve(std::max(count, 0));
  return true;
}

void EventSet::serve(int count) {
  ++batches_;
  if (hooks_.before_batch) hooks_.before_batch(count);
  dispatch(count);
  if (!deferred_.empty()) run_deferred();
  if (hooks_.after_batch) hooks_.after_batch();
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

void EventSet::run_deferred() {
  running_deferred_.swap(deferred_);
  for (UniqueFunction& function : running_deferred_) {
    function();
    function = UniqueFunction();  // What it captured must not outlive it until the end of the batch.
  }
  running_deferred_.clear();
}

}  // namespace pgweir::io
