// A world for one WorkerCore under a fuzz script: byte pipes of limited room in place of sockets, honest backends
// behind the servers' pipes, receivers that check what clients are sent, virtual time. Nothing happens by itself; after
// each step of the script settle_all() carries out what follows from it.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pool/pool_manager.hpp"
#include "proxy/core/admin_data.hpp"
#include "proxy/core/worker_core.hpp"
#include "tests/fake_crypto.hpp"
#include "tests/fuzz/relay_backend.hpp"

namespace pgweir::fuzz {

/// What the first bytes of an input decide.
struct RelayPlan {
  std::shared_ptr<const core::Settings> settings;
  std::size_t pipe_max = 1;   ///< room in each direction of a connection
  std::size_t read_max = 1;   ///< bytes the proxy reads at once
  bool auto_connect = false;  ///< connects succeed at once ...
  bool auto_work = false;     ///< ... and backends answer at once, instead of when the script says so
  bool shared_names = false;  ///< names of statements pass through untouched: clients share them, texts and all
};

/// What a client gets: whole messages of types a server sends, and nothing that bears another client's tag.
class Receiver {
 public:
  explicit Receiver(char client) : foreign_(client == 'A' ? 2U : client == 'B' ? 1U : 3U) {}
  void take(std::string_view bytes);
  /// The connection has ended. Half a message is all right, but nothing may have been put behind it.
  void end() const;
  /// Process and secret for cancel requests; empty before the login is complete.
  [[nodiscard]] const std::string& cancel_key() const { return cancel_key_; }

 private:
  unsigned foreign_;  ///< as from tags_in()
  bool framed_ = false;
  std::string rest_, cancel_key_;
};

/// One connection of the proxy: its Port on one side, a peer on the other. Shared because either side may go first.
struct Wire {
  core::Connection* session = nullptr;
  std::string to_proxy, from_proxy;
  bool read = true, write = false, hangup = false;
  bool proxy_closed = false, half_closed = false;
  bool peer_closed = false, reset = false, end_told = false;
  bool stalled = false;  ///< the peer does not read
  bool tls = false, tls_starting = false;
  std::unique_ptr<Backend> backend;    ///< of a server or of a cancel request
  std::unique_ptr<Receiver> receiver;  ///< of a client

  [[nodiscard]] bool talks() const { return !peer_closed && !proxy_closed; }
  /// The peer says something.
  void peer_send(std::string_view bytes) {
    if (talks()) to_proxy.append(bytes);
  }
  void peer_close(bool with_reset);
};
using WirePtr = std::shared_ptr<Wire>;

class RelayHost final : public core::Host {
 public:
  RelayHost();
  pool::PoolManager& lock_pools() override;
  void unlock_pools() override { locked_ = false; }
  void open_server(pool::ServerId server, const core::ServerTarget& target) override;
  void abandon_server(pool::ServerId server) override { std::erase(connects, server); }
  void open_cancel(std::uint64_t token, const core::ServerTarget&) override { cancel_connects.push_back(token); }
  void abandon_cancel(std::uint64_t token) override { std::erase(cancel_connects, token); }
  [[nodiscard]] bool check_password(pool::ClientId, core::PasswordQuestion) override { return false; }
  void abandon_password(pool::ClientId) override {}
  void derive_key(std::uint64_t, core::KeyQuestion) override {}
  [[nodiscard]] bool find_host_name(pool::ClientId, const std::string&) override { return false; }
  void detach(core::Port&) override;
  void attach(core::Port&) override;
  void post(pool::WorkerId to, core::Task task) override;
  [[nodiscard]] pool::WorkerId worker_count() const override { return 1; }
  [[nodiscard]] std::uint64_t next_number() override { return ++numbers_; }
  void process_command(const core::ProcessCommand& command) override;
  [[nodiscard]] pool::TimePoint clock() override { return {}; }
  void log(core::LogLevel, std::string) override {}
  [[nodiscard]] protocol::Crypto& crypto() override { return crypto_; }
  [[nodiscard]] std::int64_t wall_clock_us() override { return 1'700'000'000'000'000; }
  [[nodiscard]] std::string format_time(std::int64_t us) override { return std::to_string(us); }
  [[nodiscard]] std::int64_t own_uid() const override { return 1000; }
  [[nodiscard]] core::DnsReport dns_report() override { return {}; }
  [[nodiscard]] std::string user_name(std::int64_t) override { return {}; }
  [[nodiscard]] std::string host_name() override { return {}; }
  [[nodiscard]] std::vector<core::FdRow> listening_sockets() override { return {}; }
  [[nodiscard]] bool tls_available() const override { return false; }
  [[nodiscard]] bool locked() const { return locked_; }

  std::deque<pool::ServerId> connects;
  std::deque<std::uint64_t> cancel_connects;
  std::deque<core::Task> tasks;

 private:
  pool::PoolManager pools_;
  test::FakeCrypto crypto_;
  bool locked_ = false;
  std::uint64_t numbers_ = 0;
};

class RelayWorld {
 public:
  explicit RelayWorld(RelayPlan plan);
  ~RelayWorld();
  RelayWorld(const RelayWorld&) = delete;
  RelayWorld& operator=(const RelayWorld&) = delete;

  // ---- what a script does ----
  WirePtr connect_client(char client);
  /// The connect asked for longest ago ends.
  void connect_server(bool succeeds);
  void connect_cancel(bool succeeds);
  /// Number `n` of the servers that are connected, counted around; null if there is none.
  [[nodiscard]] WirePtr server(std::size_t n) const;
  [[nodiscard]] WirePtr cancel(std::size_t n) const;
  /// The backend handles up to `messages`. True if anything came of it.
  bool work(Wire& server, std::size_t messages);
  void advance(pool::Duration by);
  /// Until nothing moves any more.
  void settle_all();
  /// Everybody leaves and time passes: nothing may be left of anything.
  void tear_down();
  [[nodiscard]] const RelayPlan& plan() const { return plan_; }
  /// Events so far: a script that asks for too much is cut short.
  [[nodiscard]] std::size_t events() const { return events_; }

 private:
  /// After each event.
  void settle();
  void check_buffers();
  bool pump(Wire& wire);
  bool pump_to_proxy(Wire& wire);
  bool pump_to_peer(Wire& wire);
  void cancel_backend(std::uint32_t pid);
  [[nodiscard]] std::vector<WirePtr> with_backend(bool of_server) const;

  RelayPlan plan_;
  pool::TimePoint now_{std::chrono::seconds(1000)};
  std::size_t events_ = 0;
  std::uint32_t next_pid_ = 100;
  RelayHost host_;
  std::vector<WirePtr> wires_;
  core::WorkerCore core_;
};

}  // namespace pgweir::fuzz
