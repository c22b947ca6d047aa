// The simulated world: virtual time, byte pipes with delays and limits, the workers with their Host, and a PostgreSQL
// cluster that counts who is connected. Everything that happens is an event in one queue, ordered by time and, among
// equals, by the seed; so a seed replays exactly.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "pool/pool_manager.hpp"
#include "protocol/auth_scram.hpp"
#include "proxy/core/admin_data.hpp"
#include "proxy/core/worker_core.hpp"
#include "tests/sim/cluster.hpp"
#include "tests/sim/pg_session.hpp"
#include "tests/sim/rng.hpp"
#include "tests/sim/schema.hpp"

namespace pgweir::sim {

/// Of the hosts of a cluster, which differ by their ports.
inline constexpr int kFirstPort = 5432;

using pool::Duration;
using pool::TimePoint;

/// What a client is told whose database is killed.
inline constexpr const char* kKilled = "database killed";
/// Longer than connects, logins and messages between workers take.
inline constexpr Duration kReloadTakes{20'000'000};

/// The password of a user, where users have one.
[[nodiscard]] inline std::string password_of(const std::string& user) {
  return user + "'s";
}

/// A checker found something wrong.
struct Failed {
  std::string what;
};

class World;

/// The far end of a connection of the proxy: a client or a backend.
class Far {
 public:
  virtual ~Far() = default;
  virtual void on_bytes(const std::string& bytes) = 0;
  virtual void on_end() = 0;
  /// The proxy has written this; it is under way.
  virtual void on_written(std::string_view bytes) { (void)bytes; }
};

/// One connection: the proxy's Port on one side, a Far on the other. Shared because either side may go first.
class Link : public std::enable_shared_from_this<Link> {
 public:
  Link(World& world, pool::WorkerId worker);

  // the far side
  void far_send(std::string bytes);
  void far_close(bool reset);  ///< reset: what is under way is lost
  void attach_far(Far* far) { far_ = far; }
  void detach_far() { far_ = nullptr; }
  /// The far end is on this host of the cluster.
  void set_host(int host) { host_ = host; }
  /// How often the proxy has got only the first part of what was there.
  [[nodiscard]] std::uint64_t split_deliveries() const { return split_deliveries_; }
  /// The proxy would take more, and there is more to come.
  [[nodiscard]] bool still_arrives() const { return read_ && !to_proxy_.empty(); }
  /// Whatever held up the bytes is over.
  void resume();

  // the proxy's side
  std::size_t write(std::span<const core::ByteView> pieces);
  void set_interest(bool read, bool write, bool hangup);
  void close();
  void shutdown_write();
  void bind(core::Connection& session) { session_ = &session; }
  void set_worker(pool::WorkerId worker);
  void leave() { attached_ = false; }
  /// What the process knows it by.
  [[nodiscard]] int number() const { return number_; }
  [[nodiscard]] bool closed_by_proxy() const { return proxy_closed_; }
  [[nodiscard]] pool::WorkerId worker() const { return worker_; }

 private:
  void deliver_to_proxy();
  void deliver_to_far();
  void tell_writable();
  void plan_to_proxy();
  void plan_to_far();
  void plan_writable();
  void tell_end();
  [[nodiscard]] bool is_cut() const;
  void note_begun(std::span<const core::ByteView> pieces);

  World& world_;
  int number_;
  std::optional<int> host_;
  pool::WorkerId worker_;
  core::Connection* session_ = nullptr;
  Far* far_ = nullptr;
  std::string to_proxy_, to_far_;
  std::uint64_t split_deliveries_ = 0;
  std::size_t capacity_;
  bool read_ = true, write_ = false, hangup_ = false, attached_ = true;
  bool far_closed_ = false, reset_ = false, proxy_closed_ = false, half_closed_ = false, end_told_ = false,
       far_told_ = false;
  bool planned_to_proxy_ = false, planned_to_far_ = false, planned_writable_ = false;
};

class SimPort final : public core::Port {
 public:
  explicit SimPort(std::shared_ptr<Link> link) : link_(std::move(link)) {}
  ~SimPort() override {
    if (!given_away_) link_->close();
  }
  void bind(core::Connection& session) override { link_->bind(session); }
  std::size_t write(std::span<const core::ByteView> pieces) override { return link_->write(pieces); }
  void set_interest(bool read, bool write, bool hangup) override { link_->set_interest(read, write, hangup); }
  void start_tls_server(core::ByteView) override {}
  void start_tls_client(const core::ServerTarget&) override {}
  [[nodiscard]] bool is_tls() const override { return false; }
  [[nodiscard]] std::string tls_info() const override { return {}; }
  [[nodiscard]] std::string tls_server_end_point() const override { return {}; }
  void shutdown_write() override { link_->shutdown_write(); }
  void close() override { link_->close(); }
  [[nodiscard]] int descriptor() const override { return link_->number(); }
  void give_away() override { given_away_ = true; }
  [[nodiscard]] Link& link() { return *link_; }
  [[nodiscard]] const std::shared_ptr<Link>& shared_link() const { return link_; }

 private:
  std::shared_ptr<Link> link_;
  bool given_away_ = false;
};

class SimHost final : public core::Host {
 public:
  SimHost(World& world, pool::WorkerId id) : world_(world), id_(id) {}
  pool::PoolManager& lock_pools() override;
  void unlock_pools() override;
  void open_server(pool::ServerId server, const core::ServerTarget& target) override;
  void abandon_server(pool::ServerId server) override { abandoned_servers_.push_back(server); }
  void open_cancel(std::uint64_t token, const core::ServerTarget& target) override;
  void abandon_cancel(std::uint64_t token) override { abandoned_cancels_.push_back(token); }
  [[nodiscard]] bool check_password(pool::ClientId, core::PasswordQuestion) override { return false; }
  void abandon_password(pool::ClientId) override {}
  void derive_key(std::uint64_t number, core::KeyQuestion question) override;
  [[nodiscard]] bool find_host_name(pool::ClientId, const std::string&) override { return false; }
  void detach(core::Port& port) override { static_cast<SimPort&>(port).link().leave(); }
  void attach(core::Port& port) override { static_cast<SimPort&>(port).link().set_worker(id_); }
  void post(pool::WorkerId to, core::Task task) override;
  [[nodiscard]] pool::WorkerId worker_count() const override;
  [[nodiscard]] std::uint64_t next_number() override;
  void process_command(const core::ProcessCommand&) override {}
  [[nodiscard]] TimePoint clock() override;
  void log(core::LogLevel, std::string text) override;
  [[nodiscard]] protocol::Crypto& crypto() override;
  [[nodiscard]] std::int64_t wall_clock_us() override { return 0; }
  [[nodiscard]] std::string format_time(std::int64_t) override { return {}; }
  [[nodiscard]] std::int64_t own_uid() const override { return 1; }
  [[nodiscard]] core::DnsReport dns_report() override { return {}; }
  [[nodiscard]] std::string user_name(std::int64_t) override { return {}; }
  [[nodiscard]] std::string host_name() override { return {}; }
  [[nodiscard]] std::vector<core::FdRow> listening_sockets() override { return {}; }
  [[nodiscard]] bool tls_available() const override { return false; }
  void witness(const std::string& group, router::HostId host, router::Witness witness) override;
  void positions_wanted(const std::string& group) override;
  void catalog_changed(const std::string& group, const std::string& dbname) override;
  [[nodiscard]] std::shared_ptr<core::SharedWriteToken> shared_writes(const std::string& database) override;

 private:
  void connect_server(pool::ServerId server, std::optional<int> host);
  void connect_cancel(std::uint64_t token, std::optional<int> host);
  [[nodiscard]] std::optional<int> host_of(const core::ServerTarget& target) const;

  World& world_;
  pool::WorkerId id_;
  bool locked_ = false, deriving_ = false;
  std::vector<pool::ServerId> abandoned_servers_;
  std::vector<std::uint64_t> abandoned_cancels_;
};

/// A server process behind the proxy.
class Backend final : public Far {
 public:
  /// `host`: of the cluster; none if there is no cluster.
  Backend(World& world, std::shared_ptr<Link> link, std::optional<int> host);
  ~Backend() override;
  void on_bytes(const std::string& bytes) override;
  void on_end() override;
  void on_written(std::string_view bytes) override;
  void cancel();
  void die();    ///< as an administrator's termination
  void crash();  ///< with its host
  /// Its host stood still and goes on.
  void thaw() { go_on(); }
  void set_hot_standby(bool on) { session_.set_hot_standby(on); }
  void commit_done();
  [[nodiscard]] std::uint32_t pid() const { return pid_; }
  /// Of a server for replication: whose it is, as the start-up packet says. Empty: of a pool.
  [[nodiscard]] const std::string& owner() const { return owner_; }
  [[nodiscard]] const std::string& database() const { return database_; }

 private:
  void take_startup();
  bool begin_replication(const Parameters& startup);
  void ask_for_password();
  void take_proof(const std::string& bytes);
  void welcome();
  void check_received(const std::string& bytes);
  void go_on();
  void take_step();
  void finish(bool reset = false);
  void refuse(std::string_view sqlstate, std::string_view message);
  [[nodiscard]] std::string counted_as() const;

  World& world_;
  std::shared_ptr<Link> link_;
  std::optional<int> host_;
  std::unique_ptr<BackendData> data_;
  std::string written_;           ///< what on_written has not looked at yet
  bool written_startup_ = false;  ///< it has seen the start-up packet
  PgSession session_;
  std::string startup_, database_, owner_, received_;
  std::uint32_t pid_ = 0, secret_ = 0;
  std::unique_ptr<protocol::ScramServer> scram_;  ///< while it asks for the password
  bool started_ = false, over_ = false, counted_ = false, planned_ = false, sleeping_ = false;
  bool discarding_ = false;  ///< a DISCARD ALL takes its time and may be canceled
  std::uint64_t sleep_ = 0;

  friend class World;
};

/// What the seed decides about the proxy and its surroundings.
struct Plan {
  std::shared_ptr<const core::Settings> settings;
  pool::WorkerId workers = 1;
  Duration fifo_slack{1000};
  Duration batch_max{50};                ///< how long a worker may take for the events at hand
  std::size_t pipe_max = 65536;          ///< room in each direction of a connection
  std::size_t read_max = 65536;          ///< bytes the proxy reads at once
  Duration network_max{500};             ///< longest delay of a chunk
  Duration mailbox_max{200};             ///< longest delay between workers
  unsigned connect_failure = 0;          ///< per cent
  unsigned backend_death = 0;            ///< per mille of backend steps
  int operations = 0;                    ///< how often somebody pauses, resumes or reconnects a database
  int reloads = 0;                       ///< how often the settings change
  bool kills = false;                    ///< an operator also kills clients and databases
  unsigned notices = 0;                  ///< per cent of a server's answers that begin with a notice
  int restarts = 0;                      ///< how often another process takes over
  bool scram = false;                    ///< clients and servers log in by SCRAM
  std::optional<ClusterPlan> cluster;    ///< none: one server that never changes
  std::vector<std::string> databases{};  ///< that are spread over the hosts of the cluster: names on the servers
  bool schema = false;                   ///< there are tables whose columns change
};

class World {
 public:
  World(std::uint64_t seed, Plan plan);
  ~World();

  void at(Duration delay, std::function<void()> event);
  /// Runs one event; false if there is none.
  bool run_one();
  /// Something happened on a worker: carries out what follows from it.
  void settle(pool::WorkerId worker);
  void end_batch(pool::WorkerId worker);
  [[nodiscard]] TimePoint now() const { return now_; }
  Rng& rng() { return rng_; }
  [[nodiscard]] protocol::Crypto& crypto() { return *crypto_; }
  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] bool faults() const { return faults_; }
  void stop_faults() { faults_ = false; }
  /// An operator at work: PAUSE, RESUME and RECONNECT by chance, `times` times and then RESUME.
  void operate(int times);
  /// Reloads with other limits and timeouts by chance, `times` times (reload.cpp).
  void reload(int times);
  [[nodiscard]] const core::Config& config() const { return *settings_->config; }
  /// A message that a backend sends without being asked, now and then; else nothing.
  [[nodiscard]] std::string notice();
  /// Online restarts by chance, `times` times (restart.cpp).
  void restart(int times);
  [[nodiscard]] bool disturbed() const { return plan_.connect_failure > 0 || plan_.backend_death > 0; }

  /// A client connects to the proxy.
  std::shared_ptr<Link> connect_client();
  void connect_server(pool::WorkerId worker, pool::ServerId server, std::optional<int> host);
  void connect_cancel(pool::WorkerId worker, std::uint64_t token, std::optional<int> host);
  void deliver(int from, pool::WorkerId to, core::Task task);
  /// From a thread that is no worker.
  void tell(pool::WorkerId to, core::Task task) { deliver(-1, to, std::move(task)); }
  /// Null: there is none.
  [[nodiscard]] Cluster* cluster() { return cluster_.get(); }
  /// Null: there is none.
  [[nodiscard]] Schema* schema() { return schema_ ? &*schema_ : nullptr; }
  /// What the worker knows of the hosts of the cluster; null: nothing.
  [[nodiscard]] std::shared_ptr<const router::HostTable> known_hosts(pool::WorkerId worker) const;

  void trace(const std::string& line);
  void set_trace(bool on) { trace_ = on; }
  void print_tail() const;
  /// Who is connected, linked and waiting, for a failure report.
  void print_sessions() const;
  /// Throws Failed. Looks at everything that must hold at any moment.
  void check();
  /// After all clients have left and things have settled.
  void check_end();
  [[noreturn]] void fail(const std::string& what) const { throw Failed{what}; }

  // the cluster
  void backend_started(Backend& backend, std::uint32_t pid);
  void backend_ended(std::uint32_t pid);
  Backend* find_backend(std::uint32_t pid, std::uint32_t secret);
  std::uint32_t next_pid() { return ++last_pid_; }
  /// All that a replicating client has sent behind its start-up packet.
  std::string& sent_by(const std::string& owner) { return sent_[owner]; }
  /// The one backend that may get it.
  void backend_used(const std::string& owner, std::uint32_t pid);

 private:
  struct Event {
    TimePoint at;
    std::uint64_t tie;
    std::function<void()> run;
    friend bool operator>(const Event& a, const Event& b) { return a.at != b.at ? a.at > b.at : a.tie > b.tie; }
  };
  void arm(pool::WorkerId worker);
  void arm_pools();
  void start_process();
  void settle_all();
  void set_suspending(bool on);
  [[nodiscard]] bool at_rest();
  void freeze(TimePoint give_up, std::function<void()> then);
  /// What another process has been told, and the connections.
  struct Handed {
    core::KnownClusters clusters;
    std::map<int, std::shared_ptr<Link>> links;
    std::vector<core::FdRow> rows;
  };
  void change_over(std::function<void()> then);
  void check_in_charge(const char* what) const;
  void take_over(Handed& handed);
  void accept(const std::shared_ptr<Link>& link);
  void accept_pending();
  void operator_step();
  void kill_somebody(pool::WorkerId worker);
  void reload_step();
  void resume_everything();
  [[nodiscard]] std::uint32_t limit_of(const std::string& dbname) const;
  [[nodiscard]] std::uint32_t limit_in_force(const std::function<std::uint32_t(const core::Config&)>& limit) const;

  Rng rng_;
  Rng batch_rng_, extra_rng_;  ///< of their own, so that the other choices of a seed stay what they were
  Plan plan_;
  std::shared_ptr<const core::Settings> settings_;  ///< in force, or about to be on all workers
  /// Those before, and until when they were.
  std::vector<std::pair<TimePoint, std::shared_ptr<const core::Settings>>> settings_before_;
  std::vector<std::string> names_;  ///< of the databases, for the operator
  TimePoint now_{Duration(1'000'000)};
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::unique_ptr<protocol::Crypto> crypto_;
  std::unique_ptr<pool::PoolManager> pools_;
  std::vector<std::unique_ptr<SimHost>> hosts_;
  std::vector<std::unique_ptr<core::WorkerCore>> cores_;
  std::vector<TimePoint> armed_;
  std::vector<std::uint64_t> batches_;  ///< how often each worker has gone to wait for events
  TimePoint pools_armed_ = pool::kNever;
  std::map<std::pair<int, int>, TimePoint> last_delivery_;
  std::unique_ptr<Cluster> cluster_;
  std::optional<Schema> schema_;
  std::map<std::string, std::shared_ptr<core::SharedWriteToken>> shared_writes_;
  std::uint64_t numbers_ = 0;  ///< of connections, given so far
  std::vector<std::unique_ptr<Backend>> backends_;
  std::map<std::uint32_t, Backend*> by_pid_;
  std::map<std::string, std::uint32_t> open_;  ///< backends by database and in all ("")
  std::uint32_t last_pid_ = 100;
  int last_link_ = 0;
  core::ProcessKeys keys_;
  bool handed_over_ = false;                      ///< this process may not touch anything any more
  bool suspended_ = false;                        ///< new connections wait
  std::vector<std::shared_ptr<Link>> pending_{};  ///< those that do
  std::size_t under_way_ = 0;  ///< tasks between workers, and connects, also those that nobody waits for any more
  std::map<std::string, std::string> sent_;            ///< by owner
  std::map<std::string, std::uint32_t> used_backend_;  ///< by owner
  std::deque<std::string> tail_;
  bool trace_ = false;
  bool faults_ = true;
  pool::WorkerId next_worker_ = 0;

  friend class SimHost;
  friend class Link;
};

}  // namespace pgweir::sim
