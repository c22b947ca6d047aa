#include "proxy/io/signal_watcher.hpp"

#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <utility>

namespace pgweir::io {

namespace {

sigset_t set_of(const std::vector<int>& numbers) {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : numbers) sigaddset(&set, number);
  return set;
}

}  // namespace

void block_signals(const std::vector<int>& numbers) {
  const sigset_t set = set_of(numbers);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

SignalWatcher::SignalWatcher(EventSet& events, const std::vector<int>& numbers, std::function<void(int)> on_signal)
    : events_(events), on_signal_(std::move(on_signal)), fd_(-1) {
  const sigset_t set = set_of(numbers);
  fd_ = ::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  events_.add_new(fd_, "signalfd", this);
}

SignalWatcher::~SignalWatcher() {
  events_.remove(fd_, this);
  ::close(fd_);
}

void SignalWatcher::on_event(std::uint32_t) {
  signalfd_siginfo info{};
  if (::read(fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    on_signal_(static_cast<int>(info.ssi_signo));
  }
}

}  // namespace pgweir::io
