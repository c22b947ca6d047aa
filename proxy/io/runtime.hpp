// The process: configuration files, workers, listeners, signals, reload, shutdown, the statistics line. Runs on worker
// 0's thread except where a function says otherwise.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "proxy/core/config.hpp"
#include "proxy/core/report.hpp"
#include "proxy/core/worker_core.hpp"
#include "proxy/io/host_monitor.hpp"
#include "proxy/io/key_deriver.hpp"
#include "proxy/io/listener.hpp"
#include "proxy/io/password_checker.hpp"
#include "proxy/io/process.hpp"
#include "proxy/io/resolver.hpp"
#include "proxy/io/shared_pools.hpp"
#include "proxy/io/signal_watcher.hpp"
#include "proxy/io/tls_context.hpp"
#include "proxy/io/worker.hpp"

namespace pgweir::io {

struct Options {
  std::string config_file;
  std::string user;
  bool daemon = false;
  bool quiet = false;
  bool reboot = false;  ///< takes over from the process that runs already
  int verbose = 0;
};

/// What the files say, read and checked.
struct LoadedConfig {
  std::shared_ptr<const core::Settings> settings;  ///< null: there are problems
  TlsContext client_tls;
  std::vector<std::string> problems;  ///< one text each, with file and line where there is one
  std::vector<std::string> warnings;
};

/// Reads the configuration and every file that it names. `running` is null at the start; `verbose` as in load_config.
[[nodiscard]] LoadedConfig load_settings(const std::string& path, const core::Settings* running, int verbose = 0);

/// What follows from `config`, which differs from the running one by a SET. Reads only the files that the change
/// concerns: another one that is just being edited must not refuse it.
[[nodiscard]] LoadedConfig change_settings(std::shared_ptr<const core::Config> config, const core::Settings& running,
                                           const TlsContext& client_tls);

/// `settings` with the hosts that Patroni has told, or the same object.
[[nodiscard]] std::shared_ptr<const core::Settings> with_patroni_hosts(
    const std::shared_ptr<const core::Settings>& settings, const core::PatroniHosts& hosts);

class Runtime {
 public:
  Runtime(Options options, LoadedConfig loaded);
  ~Runtime();

  /// Opens the listeners, becomes a daemon if asked to, and serves until shutdown. Returns the exit code.
  int run();
  /// After run(). False: a thread still derives a key or is inside PAM or a directory server's library, and only the
  /// end of the process ends it.
  [[nodiscard]] bool finish();

  // for the workers (any thread)
  [[nodiscard]] SharedPools& pools() { return pools_; }
  [[nodiscard]] Worker& worker(pool::WorkerId id) { return *workers_[id]; }
  [[nodiscard]] pool::WorkerId worker_count() const { return worker_count_; }
  [[nodiscard]] std::uint64_t next_number() { return numbers_.fetch_add(1, std::memory_order_relaxed) + 1; }
  [[nodiscard]] const TlsContext& client_tls() const { return client_tls_; }
  void pools_deadline_moved();
  void wait_over(std::uint64_t token);

  /// Runs a function on the thread of whoever gave it.
  using PostBack = std::function<void(UniqueFunction)>;
  /// Any thread: an address of `name`, told to `reply` by way of `post_back`.
  void lookup(const std::string& name, PostBack post_back, Resolver::Callback reply);
  /// Any thread: the confirmed name of a client's address, or an empty one, told to `reply` on some worker's thread.
  /// False: too many are being looked up, and there will be no answer.
  [[nodiscard]] bool lookup_host_name(const std::string& address, std::function<void(std::string)> reply);
  /// Any thread: whoever has questions of this kind judged.
  [[nodiscard]] PasswordChecker& password_checker(const core::PasswordQuestion& question);
  void abandon_password(const PasswordChecker::Asker& asker);
  /// Any thread.
  [[nodiscard]] KeyDeriver& key_deriver() { return *key_deriver_; }
  /// Worker 0: what lookup() has found out.
  [[nodiscard]] core::DnsReport dns_report() const;

  /// Any thread: who watches the hosts.
  [[nodiscard]] HostMonitor& monitor() { return *monitor_; }
  [[nodiscard]] std::shared_ptr<core::SharedWriteToken> shared_writes(const std::string& database);

  /// Worker 0.
  void process_command(const core::ProcessCommand& command);
  /// Worker 0: rows of SHOW FDS.
  [[nodiscard]] std::vector<core::FdRow> listening_sockets() const;

 private:
  void start_workers(const core::ProcessKeys& keys);
  void start_resolver();
  void apply_to_resolver();
  void start_password_checkers();
  void start_monitor();
  void take_patroni_hosts(const std::vector<core::PatroniMember>& members);
  void use_patroni_hosts();
  void make_listeners(std::vector<ListenSocket> sockets);
  void accept_clients();
  void place(const AcceptedSocket& accepted);
  void on_signal(int number);
  [[nodiscard]] bool exits_fast(const char* signal);
  void pause_by_signal();
  void resume_by_signal();
  [[nodiscard]] std::string reload();
  [[nodiscard]] std::string reload_files();
  [[nodiscard]] bool take_over(LoadedConfig loaded, bool reopen_log);
  void reopen_log();
  void apply(LoadedConfig loaded);
  void make_forced_pools(const core::Config& config);
  void apply_to_pools(const core::Config& before, const core::Config& now);
  void after_all_workers(std::function<void()> then);
  struct SetResult {
    std::string error, notice;  ///< for the console; empty: none
  };
  [[nodiscard]] SetResult set(const std::string& key, const std::string& value);
  /// All of them, or none: false with the reasons in the log.
  [[nodiscard]] bool set_all(const std::map<std::string, std::string>& values);
  void answer(const core::ProcessCommand& command, const std::string& error, const std::string& notice = {});
  // runtime_restart.cpp
  void ask_workers(std::function<bool(core::WorkerCore&)> question, std::function<void(bool)> done);
  void suspend(const core::ProcessCommand& command);
  void try_to_freeze();
  void frozen(bool at_rest);
  void try_to_freeze_later();
  void suspended();
  void go_on();
  void leave_to_successor(const core::ProcessCommand& command);
  void serve_what_is_left(const core::ProcessCommand& command);
  [[nodiscard]] std::vector<ListenSocket> take_listeners(const std::vector<core::FdRow>& rows, const ListenSpec& spec);
  void take_over_sessions(const std::vector<core::FdRow>& rows);
  void serve_newcomers();
  void set_opening(bool on);
  void shut_down(core::ShutdownMode mode);
  void stop();
  void arm_stats();
  void end_stats_period();
  void log_stats(const core::WorkerReport& report);
  [[nodiscard]] const core::Config& config() const { return *settings_->config; }

  Options options_;
  std::shared_ptr<const core::Settings> settings_;
  TlsContext client_tls_;
  pool::WorkerId worker_count_;
  SharedPools pools_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<Resolver> resolver_;  // on worker 0, as what follows
  std::unique_ptr<PasswordChecker> pam_, ldap_;
  std::unique_ptr<KeyDeriver> key_deriver_;
  std::atomic<int> names_asked_{0};
  core::KnownClusters known_clusters_;           // those of the process before
  std::map<std::string, std::string> held_tls_;  ///< set by SET, in force with those that go with them
  std::atomic<std::uint64_t> numbers_{0};        ///< of connections, given so far
  std::unique_ptr<HostMonitor> monitor_;
  core::PatroniHosts patroni_hosts_;  // on worker 0
  std::mutex shared_writes_mutex_;
  std::map<std::string, std::shared_ptr<core::SharedWriteToken>> shared_writes_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::unique_ptr<SignalWatcher> signals_;
  std::unique_ptr<Timer> stats_timer_;
  pool::TimePoint stats_period_began_{};
  PidFile pidfile_;
  core::ShutdownMode shutdown_ = core::ShutdownMode::None;
  core::ProcessKeys keys_;

  enum class Suspend : std::uint8_t { No, Coming, Yes };
  Suspend suspend_ = Suspend::No;
  core::ProcessCommand suspend_command_;
  std::unique_ptr<Timer> suspend_timer_;
  std::chrono::steady_clock::time_point suspend_until_{}, drop_logins_at_{};
  std::uint64_t suspend_round_ = 0;  ///< answers to earlier questions do not count
  bool dropped_restless_ = false;
  bool descriptors_sent_ = false;
};

/// Settings of the log as the configuration and the command line say.
void configure_log(const core::Config& config, const Options& options);

}  // namespace pgweir::io
