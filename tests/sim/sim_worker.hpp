// The pooler's surroundings in the simulator: SimPort carries out core::Port on a Link, SimWorker carries out core::Host
// on the event queue. The one PoolManager is shared by all workers and must never be locked twice.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proxy/core/worker_core.hpp"
#include "tests/sim/link.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

class Simulation;
class SimWorker;

class SimPort final : public core::Port {
 public:
  SimPort(SimWorker& worker, std::shared_ptr<Link> link);
  ~SimPort() override;

  void bind(core::Connection& session) override { session_ = &session; }
  std::size_t write(std::span<const core::ByteView> pieces) override;
  void set_interest(bool read, bool write, bool hangup) override;
  void start_tls_server(core::ByteView) override {}
  void start_tls_client(const core::ServerTarget&) override {}
  [[nodiscard]] bool is_tls() const override { return false; }
  [[nodiscard]] std::string tls_info() const override { return {}; }
  [[nodiscard]] std::string tls_server_end_point() const override { return {}; }
  void close() override;

  /// Something may have happened: an event follows if the session wants to hear of it.
  void poke();
  void set_worker(SimWorker* worker);

 private:
  [[nodiscard]] bool due() const;
  void fire();
  void read();

  World& world_;
  SimWorker* worker_;
  std::shared_ptr<Link> link_;
  core::Connection* session_ = nullptr;
  bool want_read_ = true, want_write_ = false, want_hangup_ = false;
  bool closed_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  bool pending_ = false;
};

/// Randomness from the seed. The hashes are none; the simulated clients need no passwords.
class SimCrypto final : public protocol::Crypto {
 public:
  explicit SimCrypto(Random& random) : random_(random) {}
  [[nodiscard]] protocol::Sha256Digest sha256(std::string_view) const override { return {}; }
  [[nodiscard]] protocol::Sha256Digest hmac_sha256(std::string_view, std::string_view) const override { return {}; }
  [[nodiscard]] protocol::Sha256Digest pbkdf2_sha256(std::string_view, std::string_view, std::uint32_t) const override {
    return {};
  }
  [[nodiscard]] std::string md5_hex(std::string_view) const override { return std::string(32, '0'); }
  void random_bytes(std::span<unsigned char> out) override {
    for (unsigned char& byte : out) byte = static_cast<unsigned char>(random_.next());
  }

 private:
  Random& random_;
};

class SimWorker final : public core::Host {
 public:
  SimWorker(Simulation& simulation, pool::WorkerId id);
  ~SimWorker() override;

  pool::PoolManager& lock_pools() override;
  void unlock_pools() override;
  void open_server(pool::ServerId server, const core::ServerTarget& target) override;
  void abandon_server(pool::ServerId server) override { connecting_.erase(server); }
  void open_cancel(std::uint64_t token, const core::ServerTarget& target) override;
  void abandon_cancel(std::uint64_t token) override { canceling_.erase(token); }
  void detach(core::Port& port) override;
  void attach(core::Port& port) override;
  void post(pool::WorkerId to, core::Task task) override;
  [[nodiscard]] pool::WorkerId worker_count() const override;
  void process_command(const core::ProcessCommand&) override {}
  void log(core::LogLevel level, std::string text) override;
  [[nodiscard]] protocol::Crypto& crypto() override { return crypto_; }
  [[nodiscard]] std::int64_t wall_clock_us() override;
  [[nodiscard]] std::string format_time(std::int64_t) override { return "now"; }
  [[nodiscard]] std::int64_t own_uid() const override { return 0; }
  [[nodiscard]] bool tls_available() const override { return false; }

  /// Runs one event of the worker, as the loop of a real one does, and the checkers after it.
  template <class Event>
  void run(Event event) {
    core_->set_now(now());
    event();
    end_event();
  }
  void accept_client(std::shared_ptr<Link> link);
  void arm_timer();
  [[nodiscard]] core::WorkerCore& core() { return *core_; }
  [[nodiscard]] pool::WorkerId id() const { return id_; }
  [[nodiscard]] std::size_t read_size();
  void expect_unlocked(const char* what) const;
  [[nodiscard]] World& world();

 private:
  [[nodiscard]] TimePoint now() const;
  void end_event();
  void on_timer();

  Simulation& simulation_;
  pool::WorkerId id_;
  SimCrypto crypto_;
  std::unique_ptr<core::WorkerCore> core_;
  TimePoint armed_ = pool::kNever;
  std::map<pool::WorkerId, TimePoint> last_post_;
  std::map<pool::ServerId, bool> connecting_;
  std::map<std::uint64_t, bool> canceling_;
};

}  // namespace pgweir::sim
