// The pipes, what follows from each step, and the checks that hold at any moment.
#include "tests/fuzz/relay_world.hpp"

#include <algorithm>

#include "protocol/frame_header.hpp"
#include "tests/fuzz/fuzz_check.hpp"

namespace pgweir::fuzz {

namespace {

using std::chrono::seconds;

/// No connection may hold more than this in either direction: its limits on unread bytes and on messages that are
/// looked at whole (64 kB each), one read, and what the proxy makes of that read by itself.
constexpr std::size_t kBufferMax = 256 * 1024;
/// Peers and proxy would play on for ever.
constexpr int kRoundsMax = 1'000'000;
constexpr std::string_view kBackendTypes = "123ACDEGHIKNRSTVWZcdnstv";

class WirePort final : public core::Port {
 public:
  WirePort(WirePtr wire, std::size_t room) : wire_(std::move(wire)), room_(room) {}
  ~WirePort() override {
    close();
    wire_->session = nullptr;
  }
  void bind(core::Connection& session) override { wire_->session = &session; }
  std::size_t write(std::span<const core::ByteView> pieces) override {
    check(!wire_->proxy_closed && !wire_->half_closed, "nothing is written behind the end");
    const bool swallows = wire_->peer_closed;
    std::size_t total = 0;
    for (const core::ByteView piece : pieces) {
      const std::size_t free = room_ > wire_->from_proxy.size() ? room_ - wire_->from_proxy.size() : 0;
      const std::size_t n = swallows ? piece.size() : std::min(piece.size(), free);
      if (!swallows) wire_->from_proxy.append(piece.substr(0, n));
      total += n;
      if (n < piece.size()) break;
    }
    return total;
  }
  void set_interest(bool read, bool write, bool hangup) override {
    wire_->read = read;
    wire_->write = write;
    wire_->hangup = hangup;
  }
  void start_tls_server(core::ByteView) override { check(false, "TLS was not offered"); }
  void start_tls_client(const core::ServerTarget&) override { wire_->tls_starting = true; }
  [[nodiscard]] bool is_tls() const override { return wire_->tls; }
  [[nodiscard]] std::string tls_info() const override { return wire_->tls ? "TLSv1.3/fake" : ""; }
  [[nodiscard]] std::string tls_server_end_point() const override { return ""; }
  void shutdown_write() override { wire_->half_closed = true; }
  void close() override { wire_->proxy_closed = true; }

 private:
  WirePtr wire_;
  std::size_t room_;
};

}  // namespace

// ---- Receiver ----

void Receiver::take(std::string_view bytes) {
  rest_.append(bytes);
  std::size_t at = 0;
  // The answer to an SSLRequest is a bare letter; a NoticeResponse starts with the same one, then a length.
  while (!framed_ && rest_.size() - at >= 2 && rest_[at] == 'N' && rest_[at + 1] != 0) ++at;
  protocol::FrameHeader header;
  while (true) {
    const std::string_view rest = std::string_view(rest_).substr(at);
    const protocol::FrameStatus status = read_frame_header(rest, 2147483647, header);
    if (status == protocol::FrameStatus::NeedMore) break;
    check(status == protocol::FrameStatus::Ok, "a length on the way to a client");
    check(kBackendTypes.find(header.type) != std::string_view::npos, "a type on the way to a client");
    framed_ = true;
    if (rest.size() < header.total()) break;
    const std::string_view message = rest.substr(0, header.total());
    check((tags_in(message) & foreign_) == 0, "a message of this client");
    if (header.type == 'K') cancel_key_ = message.substr(protocol::kHeaderSize);
    at += message.size();
  }
  rest_.erase(0, at);
}

// Nobody but the proxy says FATAL: scripts cannot spell it, and the backends say ERROR. A FATAL that itself was cut
// stands at the front.
void Receiver::end() const {
  check((tags_in(rest_) & foreign_) == 0, "half a message of this client");
  check(rest_.find("SFATAL", protocol::kHeaderSize + 1) == std::string::npos, "nothing behind half a message");
}

// ---- Wire ----

void Wire::peer_close(bool with_reset) {
  if (peer_closed) return;
  peer_closed = true;
  reset = with_reset;
  if (with_reset) to_proxy.clear();
  if (receiver && !from_proxy.empty()) receiver->take(from_proxy);
  if (receiver) receiver->end();
  from_proxy.clear();
}

// ---- RelayHost ----

RelayHost::RelayHost() : pools_(pool::ManagerSettings{1, std::chrono::milliseconds(1), 4}) {}

pool::PoolManager& RelayHost::lock_pools() {
  check(!locked_, "the pools are locked once");
  locked_ = true;
  return pools_;
}

void RelayHost::open_server(pool::ServerId server, const core::ServerTarget&) {
  connects.push_back(server);
}

void RelayHost::detach(core::Port&) {
  check(false, "no server leaves the only worker");
}

void RelayHost::attach(core::Port&) {
  check(false, "no server comes to the only worker");
}

void RelayHost::post(pool::WorkerId to, core::Task task) {
  check(to == 0, "the only worker");
  tasks.push_back(std::move(task));
}

void RelayHost::process_command(const core::ProcessCommand& command) {
  tasks.push_back([client = command.client](core::WorkerCore& there) { there.process_command_done(client, ""); });
}

// ---- RelayWorld ----

RelayWorld::RelayWorld(RelayPlan plan)
    : plan_(std::move(plan)), core_(0, host_, plan_.settings, core::ProcessKeys{{1, 2}, "mock key"}) {
  core_.set_now(now_);
}

RelayWorld::~RelayWorld() = default;

void RelayWorld::settle() {
  ++events_;
  core_.run_pending();
  while (!host_.tasks.empty()) {
    const core::Task task = std::move(host_.tasks.front());
    host_.tasks.pop_front();
    task(core_);
    core_.run_pending();
  }
  core_.end_batch();
  check(!host_.locked(), "the pools are unlocked again");
  core::PoolLock(host_)->check_invariants(now_);
  check_buffers();
}

void RelayWorld::check_buffers() {
  for (const WirePtr& wire : wires_) {
    if (wire->session == nullptr) continue;
    check(wire->session->unread_size() <= kBufferMax, "unread bytes are bounded");
    check(wire->session->unsent_size() <= kBufferMax, "unsent bytes are bounded");
  }
}

WirePtr RelayWorld::connect_client(char client) {
  const WirePtr wire = std::make_shared<Wire>();
  wire->receiver = std::make_unique<Receiver>(client);
  wires_.push_back(wire);
  core_.client_accepted(std::make_unique<WirePort>(wire, plan_.pipe_max),
                        {"127.0.0.1", 40000, "127.0.0.1", 6432, false, 1, -1});
  settle();
  return wire;
}

void RelayWorld::connect_server(bool succeeds) {
  if (host_.connects.empty()) return;
  const pool::ServerId id = host_.connects.front();
  host_.connects.pop_front();
  if (succeeds) {
    const WirePtr wire = std::make_shared<Wire>();
    wire->backend = std::make_unique<Backend>(next_pid_++);
    wires_.push_back(wire);
    core_.server_connected(id, std::make_unique<WirePort>(wire, plan_.pipe_max),
                           {"127.0.0.1", 5432, "127.0.0.1", 50000, false, 0, -1});
  } else {
    core_.server_connect_failed(id, "connect failed", {});
  }
  settle();
}

void RelayWorld::connect_cancel(bool succeeds) {
  if (host_.cancel_connects.empty()) return;
  const std::uint64_t token = host_.cancel_connects.front();
  host_.cancel_connects.pop_front();
  if (succeeds) {
    const WirePtr wire = std::make_shared<Wire>();
    wire->backend = std::make_unique<Backend>(0);
    wires_.push_back(wire);
    core_.cancel_connected(token, std::make_unique<WirePort>(wire, plan_.pipe_max));
  } else {
    core_.cancel_connect_failed(token, "connect failed", {});
  }
  settle();
}

std::vector<WirePtr> RelayWorld::with_backend(bool of_server) const {
  std::vector<WirePtr> found;
  for (const WirePtr& wire : wires_) {
    if (wire->backend && (wire->backend->pid() != 0) == of_server && wire->talks()) found.push_back(wire);
  }
  return found;
}

WirePtr RelayWorld::server(std::size_t n) const {
  const std::vector<WirePtr> servers = with_backend(true);
  return servers.empty() ? nullptr : servers[n % servers.size()];
}

WirePtr RelayWorld::cancel(std::size_t n) const {
  const std::vector<WirePtr> cancels = with_backend(false);
  return cancels.empty() ? nullptr : cancels[n % cancels.size()];
}

void RelayWorld::cancel_backend(std::uint32_t pid) {
  for (const WirePtr& wire : wires_) {
    if (wire->backend && wire->backend->pid() == pid) wire->backend->wake(true);
  }
}

bool RelayWorld::work(Wire& server, std::size_t messages) {
  bool moved = false;
  for (; messages > 0 && !server.peer_closed; --messages) {
    const Backend::Step step = server.backend->step();
    const std::string output = server.backend->take_output();
    moved |= step == Backend::Step::Progress || step == Backend::Step::Closed || !output.empty();
    server.peer_send(output);
    if (step == Backend::Step::Closed) {
      if (server.backend->cancels()) cancel_backend(*server.backend->cancels());
      server.peer_close(false);
    }
    if (step != Backend::Step::Progress) break;
  }
  return moved;
}

void RelayWorld::advance(pool::Duration by) {
  now_ += by;
  core_.set_now(now_);
  core::PoolLock(host_)->on_time(now_, core_.actions());
  core_.on_time(now_);
  settle();
  settle_all();
}

void RelayWorld::settle_all() {
  bool moved = true;
  for (int round = 0; moved; ++round) {
    check(round < kRoundsMax, "things come to rest");
    moved = plan_.auto_connect && !(host_.connects.empty() && host_.cancel_connects.empty());
    if (moved) {
      connect_server(true);
      connect_cancel(true);
    }
    for (std::size_t i = 0; i < wires_.size(); ++i) moved |= pump(*WirePtr(wires_[i]));
    std::erase_if(wires_, [](const WirePtr& wire) { return wire->proxy_closed && wire->peer_closed; });
  }
}

bool RelayWorld::pump(Wire& wire) {
  bool moved = pump_to_proxy(wire);
  moved |= pump_to_peer(wire);
  if (wire.backend && plan_.auto_work) moved |= work(wire, 1);
  return moved;
}

bool RelayWorld::pump_to_proxy(Wire& wire) {
  if (wire.session == nullptr || wire.proxy_closed || wire.end_told) return false;
  if (wire.tls_starting) {
    wire.tls_starting = false;
    wire.tls = true;
    wire.session->on_tls_ready();
  } else if (wire.read && !wire.to_proxy.empty()) {
    const std::string chunk = wire.to_proxy.substr(0, plan_.read_max);
    wire.to_proxy.erase(0, chunk.size());
    wire.session->receive(chunk);
  } else if (wire.peer_closed && (wire.read || wire.hangup || wire.reset)) {
    // An orderly end is told to who reads or asks for it, a broken connection to everybody.
    wire.end_told = true;
    wire.session->on_hangup("closed by the peer");
  } else if (wire.write && (wire.peer_closed || wire.from_proxy.size() < plan_.pipe_max)) {
    wire.session->writable();
  } else {
    return false;
  }
  settle();
  return true;
}

bool RelayWorld::pump_to_peer(Wire& wire) {
  if (wire.peer_closed) return false;
  if (!wire.stalled && !wire.from_proxy.empty()) {
    if (wire.receiver) wire.receiver->take(wire.from_proxy);
    if (wire.backend) wire.backend->input(wire.from_proxy);
    wire.from_proxy.clear();
    return true;
  }
  if (!wire.from_proxy.empty() || !(wire.proxy_closed || wire.half_closed)) return false;
  if (wire.backend) (void)work(wire, kBufferMax);
  wire.peer_close(false);
  return true;
}

// Everybody hangs up, what has begun fails, and time passes the longest limit there is.
void RelayWorld::tear_down() {
  settle_all();
  for (const WirePtr& wire : wires_) wire->peer_close(true);
  for (int i = 0; i < 8; ++i) {
    while (!host_.connects.empty()) connect_server(false);
    while (!host_.cancel_connects.empty()) connect_cancel(false);
    advance(seconds(60));
    for (const WirePtr& wire : wires_) wire->peer_close(true);
  }
  check(core_.clients().empty(), "no client session is left");
  check(core_.servers().empty(), "no server session is left");
  const pool::Totals totals = core::PoolLock(host_)->totals();
  check(totals.clients == 0 && totals.login_clients == 0 && totals.waiting_clients == 0, "no client in the pools");
  check(totals.servers == 0 && totals.idle_servers == 0, "no permit is left");
  check(totals.cancels == 0, "no cancel request is left");
}

}  // namespace pgweir::fuzz
