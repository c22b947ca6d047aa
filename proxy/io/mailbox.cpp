#include "proxy/io/mailbox.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

namespace pgweir::io {

Mailbox::Mailbox(EventSet& events) : events_(events), wake_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  events_.add_new(wake_fd_, "eventfd", this);
}

Mailbox::~Mailbox() {
  stop();
  ::close(wake_fd_);
}

void Mailbox::post(UniqueFunction message) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;  // `message` is destroyed by the caller, after the lock is gone.
    waiting_.push_back(std::move(message));
    if (waiting_.size() > 1) return;  // Whoever found the box empty wakes the owner.
  }
  // Fails only when the counter is full, and then the owner is awake anyway.
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
}

void Mailbox::stop() {
  std::vector<UniqueFunction> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stopped_, true)) return;
    dropped.swap(waiting_);
  }
  delivering_ = false;
  events_.remove(wake_fd_, this);
  // `dropped` dies here, outside the lock: destructors of messages may post.
}

void Mailbox::on_event(std::uint32_t) {
  // First the counter, then the messages: a wake-up written after this read belongs to a message which the swap below
  // takes too, or which finds the box empty again. Never the other way round, which would lose one.
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_fd_, &count, sizeof count);
  {
    const std::lock_guard lock(mutex_);
    running_.swap(waiting_);
  }
  for (auto& message : running_) {
    if (!delivering_) break;
    message();
    message = UniqueFunction();  // What it captured must not outlive it until the end of the batch.
  }
  running_.clear();
}

}  // namespace pgweir::io
