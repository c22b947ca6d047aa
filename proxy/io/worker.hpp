// One worker: a thread with an epoll set, a mailbox, and the session machines of its clients and servers. It carries
// out what core asks of its Host and gives core its events. Everything but post() and accept() runs on the worker's own
// thread.
#pragma once

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "proxy/core/admin_data.hpp"
#include "proxy/core/worker_core.hpp"
#include "proxy/io/connector.hpp"
#include "proxy/io/event_set.hpp"
#include "proxy/io/mailbox.hpp"
#include "proxy/io/openssl_crypto.hpp"
#include "proxy/io/password_checker.hpp"
#include "proxy/io/shared_pools.hpp"
#include "proxy/io/socket_options.hpp"
#include "proxy/io/socket_port.hpp"
#include "proxy/io/timer.hpp"
#include "proxy/io/tls_buffers.hpp"
#include "proxy/io/tls_context.hpp"

namespace pgweir::io {

class Runtime;

/// A client's socket that nobody has yet.
struct AcceptedSocket {
  int fd = -1;
  sockaddr_storage peer{};
  bool is_unix = false;
  sockaddr_storage local{};  ///< AF_UNSPEC: to be asked for
  bool inherited = false;    ///< it has the options of set_listener_options
  bool speaks = false;       ///< it was not given to us before there was something to read
};

class Worker final : public core::Host {
 public:
  Worker(pool::WorkerId id, Runtime& runtime, std::shared_ptr<const core::Settings> settings,
         const core::ProcessKeys& keys);
  ~Worker() override;

  /// Starts the thread; worker 0 runs on the main thread through run().
  void start_thread();
  void run();
  /// Any thread.
  void stop();
  void join();
  /// Thread of worker 0, who accepts for all: takes over an accepted socket.
  void accept(const AcceptedSocket& accepted);
  [[nodiscard]] int client_count() const { return client_count_.load(std::memory_order_relaxed); }

  // core::Host
  pool::PoolManager& lock_pools() override;
  void unlock_pools() override;
  void open_server(pool::ServerId server, const core::ServerTarget& target) override;
  void abandon_server(pool::ServerId server) override;
  void open_cancel(std::uint64_t token, const core::ServerTarget& target) override;
  void abandon_cancel(std::uint64_t token) override;
  [[nodiscard]] bool check_password(pool::ClientId client, core::PasswordQuestion question) override;
  void abandon_password(pool::ClientId client) override;
  void derive_key(std::uint64_t number, core::KeyQuestion question) override;
  [[nodiscard]] bool find_host_name(pool::ClientId client, const std::string& address) override;
  void detach(core::Port& port) override;
  void attach(core::Port& port) override;
  void post(pool::WorkerId to, core::Task task) override;
  [[nodiscard]] pool::WorkerId worker_count() const override;
  [[nodiscard]] std::uint64_t next_number() override;
  void process_command(const core::ProcessCommand& command) override;
  [[nodiscard]] pool::TimePoint clock() override;
  void witness(const std::string& group, router::HostId host, router::Witness witness) override;
  void positions_wanted(const std::string& group) override;
  void catalog_changed(const std::string& group, const std::string& dbname) override;
  [[nodiscard]] std::shared_ptr<core::SharedWriteToken> shared_writes(const std::string& database) override;
  void wait_over(std::uint64_t token) override;
  void log(core::LogLevel level, std::string text) override;
  [[nodiscard]] protocol::Crypto& crypto() override { return crypto_; }
  [[nodiscard]] std::int64_t wall_clock_us() override;
  [[nodiscard]] std::string format_time(std::int64_t unix_us) override;
  [[nodiscard]] std::int64_t own_uid() const override;
  [[nodiscard]] std::string user_name(std::int64_t uid) override;
  [[nodiscard]] core::DnsReport dns_report() override;
  [[nodiscard]] std::string host_name() override;
  [[nodiscard]] std::vector<core::FdRow> listening_sockets() override;
  [[nodiscard]] bool tls_available() const override { return client_tls_ != nullptr; }

  // for SocketPort and Runtime
  [[nodiscard]] EventSet& events() { return events_; }
  [[nodiscard]] core::WorkerCore& core() { return *core_; }
  [[nodiscard]] char* buffer() { return buffer_.get(); }
  [[nodiscard]] static constexpr std::size_t buffer_size() { return 65536; }
  /// How many buffers one connection may fill before the others have their turn (sbuf_loopcnt).
  [[nodiscard]] int reads_per_event() const { return reads_per_event_; }
  /// Calls port.again() soon, though its socket is silent.
  void look_again(SocketPort& port);
  void forget(SocketPort& port);
  [[nodiscard]] TlsBuffers& tls_buffers() { return tls_buffers_; }
  [[nodiscard]] const TlsContext& client_tls() const { return client_tls_; }
  /// The context for a server connection, made on first use after a change of settings. Throws std::runtime_error.
  [[nodiscard]] TlsContext server_tls(const core::ServerTarget& target);
  /// New settings from a reload, on this worker's thread.
  void apply(std::shared_ptr<const core::Settings> settings, TlsContext client_tls);
  /// Any thread: takes over sockets from another process. The descriptors are copied.
  void take_over(std::optional<core::FdRow> client, std::optional<core::FdRow> server);
  /// Runs `function` on this worker, which need not be the calling one.
  void post_function(UniqueFunction function);
  /// Any thread: the answer to check_password.
  void password_judged(pool::ClientId client, Judgement judgement);
  /// Any thread: the answer to derive_key.
  void key_derived(std::uint64_t number, const protocol::Sha256Digest& key);
  /// The pools' earliest deadline has moved (worker 0 serves them).
  void pools_deadline_moved();

 private:
  void begin_batch(int events);
  [[nodiscard]] std::chrono::milliseconds patience() const;
  void finish_batch();
  [[nodiscard]] core::Newcomer newcomer(core::FdRow row);
  void adopt_socket(const AcceptedSocket& accepted);
  void arm_timer();
  void on_timer();
  void run_again();
  /// `known`: the local address of the socket if it is known already.
  [[nodiscard]] core::PeerAddress address_of(int fd, const sockaddr_storage& peer, bool is_unix,
                                             const sockaddr_storage& known = {}) const;

  pool::WorkerId id_;
  Runtime& runtime_;
  EventSet events_;
  Mailbox mailbox_;
  Connector connector_;
  OpensslCrypto crypto_;
  TlsContext client_tls_;
  std::map<std::string, TlsContext> server_tls_;
  std::unique_ptr<char[]> buffer_;
  TlsBuffers tls_buffers_;
  std::unique_ptr<core::WorkerCore> core_;
  Timer timer_;
  pool::TimePoint armed_ = pool::kNever;
  std::map<pool::ServerId, std::uint64_t> connecting_;
  std::map<std::uint64_t, std::uint64_t> canceling_;
  std::list<Timer> delayed_;  ///< judgements of passwords that are told late
  std::vector<SocketPort*> again_, running_again_;
  bool again_deferred_ = false;
  std::atomic<int> client_count_{0};
  std::thread thread_;
  TcpSettings tcp_;
  int reads_per_event_;
};

}  // namespace pgweir::io
