#include "tests/sim/sim_worker.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/simulation.hpp"

namespace pgweir::sim {

namespace {
constexpr Duration kWakeUp{50};
}

// ---- SimPort ----

SimPort::SimPort(SimWorker& worker, std::shared_ptr<Link> link)
    : world_(worker.world()), worker_(&worker), link_(std::move(link)) {
  link_->attach(this);
}

SimPort::~SimPort() {
  close();
  *alive_ = false;
}

std::size_t SimPort::write(std::span<const core::ByteView> pieces) {
  if (worker_ != nullptr) worker_->expect_unlocked("write");
  if (closed_) world_.fail("port", link_->name() + ": write after close");
  std::size_t accepted = 0;
  for (const core::ByteView piece : pieces) {
    const std::size_t n = link_->port_write(piece);
    accepted += n;
    if (n < piece.size()) break;
  }
  return accepted;
}

void SimPort::set_interest(bool read, bool write, bool hangup) {
  want_read_ = read;
  want_write_ = write;
  want_hangup_ = hangup;
  poke();
}

void SimPort::close() {
  if (closed_) return;
  closed_ = true;
  link_->port_close();
}

void SimPort::set_worker(SimWorker* worker) {
  worker_ = worker;
  poke();
}

bool SimPort::due() const {
  if (closed_ || worker_ == nullptr || session_ == nullptr) return false;
  if (link_->broken()) return true;
  if (want_read_ && (link_->port_readable() > 0 || link_->port_at_end())) return true;
  if (want_write_ && link_->port_room() > 0) return true;
  return want_hangup_ && link_->port_end_arrived();
}

void SimPort::poke() {
  if (pending_ || !due()) return;
  pending_ = true;
  world_.after(world_.random.delay(kWakeUp), [this, alive = alive_] {
    if (*alive) fire();
  });
}

void SimPort::fire() {
  pending_ = false;
  if (!due()) return;
  const auto alive = alive_;
  worker_->run([&] {
    if (want_write_ && link_->port_room() > 0 && !link_->broken()) session_->writable();
    if (session_->closed()) return;
    if (link_->broken()) return session_->on_hangup("Connection reset by peer");
    if (want_read_) {
      read();
    } else if (want_hangup_ && link_->port_end_arrived()) {
      session_->on_hangup("client unexpected eof");
    }
  });
  if (*alive) poke();
}

// Up to four buffers at once, as the real port reads.
void SimPort::read() {
  for (int round = 0; round < 4 && want_read_ && !session_->closed(); ++round) {
    const std::string chunk = link_->port_read(worker_->read_size());
    if (!chunk.empty()) {
      session_->receive(chunk);
    } else if (link_->port_at_end()) {
      return session_->on_hangup("client unexpected eof");
    } else {
      return;
    }
    if (world_.random.chance(0.5)) return;
  }
}

// ---- SimWorker ----

SimWorker::SimWorker(Simulation& simulation, pool::WorkerId id)
    : simulation_(simulation),
      id_(id),
      crypto_(simulation.world().random),
      core_(std::make_unique<core::WorkerCore>(id, *this, simulation.scenario().settings, simulation.keys())) {
  core_->set_now(now());
}

SimWorker::~SimWorker() = default;

World& SimWorker::world() {
  return simulation_.world();
}

TimePoint SimWorker::now() const {
  return simulation_.world().now();
}

std::size_t SimWorker::read_size() {
  return world().random.between(1, simulation_.scenario().read_max);
}

void SimWorker::expect_unlocked(const char* what) const {
  if (simulation_.locked()) simulation_.world().fail("lock", std::string(what) + " while the pools are locked");
}

pool::PoolManager& SimWorker::lock_pools() {
  expect_unlocked("second lock");
  simulation_.set_locked(true);
  return simulation_.pools();
}

void SimWorker::unlock_pools() {
  simulation_.set_locked(false);
}

void SimWorker::open_server(pool::ServerId server, const core::ServerTarget&) {
  connecting_[server] = true;
  simulation_.postgres().connect([this, server](std::shared_ptr<Link> link) {
    if (connecting_.erase(server) == 0) {
      if (link) SimPort abandoned(*this, link);  // closes at once
      return;
    }
    run([&] {
      if (link) {
        core_->server_connected(server, std::make_unique<SimPort>(*this, link), {"127.0.0.1", 5432, "127.0.0.1", 1, false, 0, -1});
      } else {
        core_->server_connect_failed(server, "connect failed");
      }
    });
  });
}

void SimWorker::open_cancel(std::uint64_t token, const core::ServerTarget&) {
  canceling_[token] = true;
  simulation_.postgres().connect([this, token](std::shared_ptr<Link> link) {
    if (canceling_.erase(token) == 0) {
      if (link) SimPort abandoned(*this, link);
      return;
    }
    run([&] {
      if (link) {
        core_->cancel_connected(token, std::make_unique<SimPort>(*this, link));
      } else {
        core_->cancel_connect_failed(token);
      }
    });
  });
}

void SimWorker::detach(core::Port& port) {
  static_cast<SimPort&>(port).set_worker(nullptr);
}

void SimWorker::attach(core::Port& port) {
  static_cast<SimPort&>(port).set_worker(this);
}

void SimWorker::post(pool::WorkerId to, core::Task task) {
  expect_unlocked("post");
  TimePoint& last = last_post_[to];
  last = std::max(last + Duration(1), now() + world().random.delay(simulation_.scenario().mailbox));
  SimWorker& there = simulation_.worker(to);
  world().at(last, [&there, task = std::move(task)] { there.run([&] { task(there.core()); }); });
}

pool::WorkerId SimWorker::worker_count() const {
  return simulation_.scenario().workers;
}

void SimWorker::log(core::LogLevel, std::string text) {
  world().trace(fmt::format("w{} {}", id_, text));
}

std::int64_t SimWorker::wall_clock_us() {
  return now().time_since_epoch().count();
}

void SimWorker::accept_client(std::shared_ptr<Link> link) {
  run([&] { core_->client_accepted(std::make_unique<SimPort>(*this, std::move(link)), {"127.0.0.1", 9, "127.0.0.1", 6432, false, 0, -1}); });
}

void SimWorker::end_event() {
  core_->run_pending();
  if (world().random.chance(0.5)) core_->end_batch();
  simulation_.after_event();
}

void SimWorker::arm_timer() {
  TimePoint next = core_->next_deadline();
  if (id_ == 0) next = std::min(next, simulation_.pools().next_deadline());
  if (next == pool::kNever || next >= armed_) return;
  armed_ = next;
  world().at(next + world().random.delay(kWakeUp * 10), [this] { on_timer(); });
}

void SimWorker::on_timer() {
  armed_ = pool::kNever;
  run([&] {
    core_->on_time(now());
    if (id_ != 0) return;
    core::PoolLock pools(*this);
    pools->on_time(now(), core_->actions());
  });
}

}  // namespace pgweir::sim
