#include "tests/sim/link.hpp"

#include <algorithm>

#include "tests/sim/sim_worker.hpp"

namespace pgweir::sim {

namespace {
constexpr Duration kStall{2'000'000};
}

Link::Link(World& world, LinkTraits traits, std::string name) : world_(world), traits_(traits), name_(std::move(name)) {
  to_port_.toward_port = true;
}

std::size_t Link::write(Pipe& pipe, std::string_view bytes) {
  if (reset_ || pipe.ended) return bytes.size();
  const std::size_t n = std::min(bytes.size(), room(pipe));
  pipe.bytes.append(bytes.substr(0, n));
  if (n > 0) deliver_later(pipe);
  return n;
}

std::string Link::read(Pipe& pipe, std::size_t most) {
  const std::size_t n = std::min(most, pipe.arrived);
  std::string result = pipe.bytes.substr(0, n);
  pipe.bytes.erase(0, n);
  pipe.arrived -= n;
  return result;
}

void Link::deliver_later(Pipe& pipe) {
  if (pipe.delivering) return;
  pipe.delivering = true;
  const Duration delay = world_.random.chance(traits_.stall) ? world_.random.delay(kStall) * 5
                                                             : world_.random.delay(traits_.latency);
  world_.after(delay, [self = shared_from_this(), &pipe] { self->deliver(pipe); });
}

void Link::deliver(Pipe& pipe) {
  pipe.delivering = false;
  if (reset_) return;
  const std::size_t under_way = pipe.bytes.size() - pipe.arrived;
  if (under_way > 0) {
    pipe.arrived += world_.random.chance(0.6) ? under_way : world_.random.between(1, under_way);
  }
  if (pipe.arrived < pipe.bytes.size()) {
    deliver_later(pipe);
  } else if (pipe.ended && !pipe.end_arrived) {
    pipe.end_arrived = true;
  }
  if (pipe.toward_port) {
    if (port_ == nullptr) {
      pipe.bytes.clear();
      pipe.arrived = 0;
      if (under_way > 0) {
        // Bytes for a closed socket are answered by a reset; what was sent before the close has priority.
        notify_peer_later();
      }
    } else {
      notify_port();
    }
  } else if (peer_ == nullptr) {
    const bool had = !pipe.bytes.empty();
    pipe.bytes.clear();
    pipe.arrived = 0;
    if (had) reset();
  } else {
    notify_peer();
  }
}

void Link::notify_port() {
  if (port_ != nullptr) port_->poke();
}

void Link::notify_peer() {
  if (peer_ != nullptr) peer_->on_link();
}

void Link::notify_peer_later() {
  if (notice_pending_) return;
  notice_pending_ = true;
  world_.after(world_.random.delay(traits_.latency), [self = shared_from_this()] {
    self->notice_pending_ = false;
    self->notify_peer();
  });
}

std::size_t Link::peer_write(std::string_view bytes) {
  return write(to_port_, bytes);
}

std::string Link::peer_read(std::size_t most) {
  std::string result = read(to_peer_, most);
  if (!result.empty()) notify_port();
  return result;
}

void Link::peer_close() {
  peer_ = nullptr;
  to_port_.ended = true;
  deliver_later(to_port_);
}

void Link::reset() {
  if (reset_) return;
  reset_ = true;
  world_.trace(name_ + " reset");
  to_peer_.bytes.clear();
  to_port_.bytes.clear();
  to_peer_.arrived = to_port_.arrived = 0;
  notify_port();
  notify_peer_later();
}

std::size_t Link::port_write(std::string_view bytes) {
  return write(to_peer_, bytes);
}

std::string Link::port_read(std::size_t most) {
  std::string result = read(to_port_, most);
  if (!result.empty()) notify_peer_later();
  return result;
}

void Link::port_close() {
  port_ = nullptr;
  to_peer_.ended = true;
  if (!reset_) deliver_later(to_peer_);
}

}  // namespace pgweir::sim
