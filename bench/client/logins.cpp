// Logins at full speed, by one thread: the proxy under test has the other core to itself. So many are under way at
// once, and each is looked at in its turn, waiting for its answer if it must: the proxy serves them in the order in
// which they came, or nearly so, and nobody has to be told which socket has something to say. Over TLS, where the steps
// of one login are many, an epoll set tells.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/client/loads.hpp"

namespace pgweir::bench {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point moment) {
  return std::chrono::duration<double, std::milli>(Clock::now() - moment).count();
}

class Logins {
 public:
  explicit Logins(const LoadOptions& options) : options_(options), epoll_fd_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_fd_ < 0) throw std::runtime_error("epoll_create1 fails");
  }
  ~Logins() { ::close(epoll_fd_); }
  Logins(const Logins&) = delete;
  Logins& operator=(const Logins&) = delete;

  void run() {
    began_ = Clock::now();
    places_.resize(static_cast<std::size_t>(options_.clients));
    for (std::size_t place = 0; place < places_.size(); ++place) begin(place);
    while (busy_ > 0) {
      if (options_.target.tls) {
        serve_readable();
      } else {
        serve_all();
      }
    }
    print(milliseconds_since(began_) / 1000);
  }

 private:
  void serve_readable() {
    std::array<epoll_event, 64> events;
    const int count = ::epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) on_readable(events[static_cast<std::size_t>(i)].data.u64);
  }
  void serve_all() {
    for (std::size_t place = 0; place < places_.size(); ++place) {
      if (places_[place].session != nullptr) on_readable(place);
    }
  }

  struct Place {
    std::unique_ptr<Session> session;
    Clock::time_point began;
  };

  [[nodiscard]] bool over() const {
    if (options_.users > 0) return next_user_ == options_.users;
    return milliseconds_since(began_) >= options_.seconds * 1000;
  }

  void begin(std::size_t number) {
    if (over()) return;
    Place& place = places_[number];
    const std::string user =
        options_.users > 0 ? fmt::format("{}{:03}", options_.target.user, next_user_++) : options_.target.user;
    place.began = Clock::now();
    place.session = std::make_unique<Session>(options_.target, shared_, user);
    ++busy_;
    if (!options_.target.tls) return place.session->wait_for_input();
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = number;
    if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, place.session->fd(), &event) != 0) {
      throw std::runtime_error("epoll_ctl fails");
    }
  }

  void on_readable(std::size_t number) {
    Place& place = places_[number];
    if (!place.session->go_on()) return;
    took_ms_.push_back(milliseconds_since(place.began));
    place.session->leave();
    place.session.reset();
    --busy_;
    begin(number);
  }

  void print(double seconds) {
    if (took_ms_.empty()) throw std::runtime_error("no login was completed");
    std::sort(took_ms_.begin(), took_ms_.end());
    const auto at = [&](double share) {
      const auto index = static_cast<std::size_t>(static_cast<double>(took_ms_.size()) * share);
      return took_ms_[std::min(took_ms_.size() - 1, index)];
    };
    fmt::print(R"({{"count": {}, "seconds": {:.3f}, "p50": {:.3f}, "p99": {:.3f}, "p999": {:.3f}, "max": {:.3f}}})"
               "\n",
               took_ms_.size(), seconds, at(0.5), at(0.99), at(0.999), took_ms_.back());
  }

  const LoadOptions& options_;
  Shared shared_;
  int epoll_fd_;
  std::vector<Place> places_;
  std::vector<double> took_ms_;
  Clock::time_point began_{};
  int next_user_ = 0;
  int busy_ = 0;
};

}  // namespace

void run_logins(const LoadOptions& options) {
  Logins(options).run();
}

void run_idle(const LoadOptions& options) {
  Shared shared;
  std::vector<std::unique_ptr<Session>> crowd;
  for (int i = 0; i < options.clients; ++i) {
    crowd.push_back(std::make_unique<Session>(options.target, shared));
    crowd.back()->finish_login();
  }
  std::puts("ready");
  std::fflush(stdout);
  char ignored = 0;
  while (::read(STDIN_FILENO, &ignored, 1) > 0) {
  }
  for (const auto& session : crowd) session->leave();
}

}  // namespace pgweir::bench
