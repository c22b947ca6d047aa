#include "proxy/io/runtime.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>

#include "pgweir_version.hpp"
#include "proxy/core/gather.hpp"
#include "proxy/core/report.hpp"
#include "proxy/io/clock.hpp"
#include "proxy/io/logger.hpp"
#include "proxy/io/service_manager.hpp"
#include "proxy/io/takeover.hpp"

namespace pgweir::io {

namespace {

/// Marks the waits of a shutdown among those of consoles, whose tokens are small numbers.
constexpr std::uint64_t kShutdownToken = ~std::uint64_t{0};
const std::vector<int> kSignals = {SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2};

bool is_tls_setting(std::string_view key) {
  return key.find("_tls_") != std::string_view::npos;
}

/// A certificate, or its key.
bool is_half_of_pair(std::string_view key) {
  return is_tls_setting(key) && (key.ends_with("_cert_file") || key.ends_with("_key_file"));
}

pool::WorkerId count_workers(const core::Config& config) {
  if (config.worker_threads > 0) return static_cast<pool::WorkerId>(config.worker_threads);
  return static_cast<pool::WorkerId>(std::clamp(std::thread::hardware_concurrency(), 1U, 8U));
}

pool::ManagerSettings manager_settings(const core::Config& config) {
  pool::ManagerSettings settings;
  settings.workers = count_workers(config);
  settings.max_client_conn = static_cast<std::uint32_t>(config.max_client_conn);
  return settings;
}

ListenSpec listen_spec(const core::Config& config) {
  ListenSpec spec;
  spec.listen_addr = config.listen_addr.text;
  spec.port = config.listen_port;
  spec.backlog = config.listen_backlog;
  spec.reuse_port = config.so_reuseport;
  spec.defer_accept = config.tcp_defer_accept;
  spec.keepalive = config.tcp_keepalive;
  spec.unix_socket_dir = config.unix_socket_dir;
  spec.unix_socket_mode = static_cast<unsigned>(config.unix_socket_mode);
  spec.unix_socket_group = config.unix_socket_group;
  return spec;
}

core::ProcessKeys draw_keys() {
  OpensslCrypto crypto;
  core::ProcessKeys keys;
  unsigned char bytes[56];
  crypto.random_bytes(bytes);
  std::memcpy(keys.statement_hash.data(), bytes, 16);
  keys.mock_auth_key.assign(reinterpret_cast<const char*>(bytes + 16), 32);
  std::memcpy(&keys.schema, bytes + 48, sizeof keys.schema);
  return keys;
}

LogSettings log_settings(const core::Config& config, const Options& options) {
  LogSettings settings;
  settings.to_stderr = !options.quiet && !options.daemon;
  settings.logfile = config.logfile;
  settings.syslog = config.syslog;
  settings.syslog_facility = config.syslog_facility;
  settings.syslog_ident = config.syslog_ident;
  settings.verbosity = config.verbose;
  return settings;
}

}  // namespace

void configure_log(const core::Config& config, const Options& options) {
  log().configure(log_settings(config, options));
}

Runtime::Runtime(Options options, LoadedConfig loaded)
    : options_(std::move(options)),
      settings_(std::move(loaded.settings)),
      client_tls_(std::move(loaded.client_tls)),
      worker_count_(count_workers(*settings_->config)),
      pools_(manager_settings(*settings_->config)) {}

Runtime::~Runtime() {
  (void)finish();
  for (const auto& worker : workers_) worker->stop();
  for (const auto& worker : workers_) worker->join();
  monitor_.reset();
  listeners_.clear();
  resolver_.reset();
  stats_timer_.reset();
  signals_.reset();
}

int Runtime::run() {
  // A signal that comes before there is anyone to act on it waits.
  block_signals(kSignals);
  const ListenSpec spec = listen_spec(config());
  const int wanted = config().max_client_conn + 1000;
  const FdLimit limit = raise_fd_limit(static_cast<std::size_t>(wanted));
  keys_ = draw_keys();
  std::unique_ptr<Takeover> before;
  if (options_.reboot) before = Takeover::begin(spec, config().suspend_timeout);
  if (!config().pidfile.empty() && !before) PidFile::check(config().pidfile);
  std::vector<ListenSocket> sockets = take_systemd_listeners();
  if (!sockets.empty()) {
    log().warning("sockets passed from service manager, listen_addr and unix_socket_dir are ignored");
  } else if (before) {
    sockets = take_listeners(before->rows(), spec);
  } else {
    check_unix_socket_unused(spec);
    sockets = open_listeners(spec, [](const std::string& problem) { log().warning("{}", problem); });
  }
  if (options_.daemon) daemonise();
  block_sigpipe();
  if (before) before->finish(config().pidfile);
  log().info("kernel file descriptor limit: {} (hard: {}); max_client_conn: {}, max expected fd use: {}", limit.soft,
             limit.hard, config().max_client_conn, wanted);
  for (const ListenSocket& socket : sockets) log().info("listening on {}", socket.text());
  if (!config().pidfile.empty()) pidfile_ = PidFile::create(config().pidfile);
  start_workers(keys_);
  make_listeners(std::move(sockets));
  if (before) {
    take_over_sessions(before->rows());
  } else {
    accept_clients();
  }
  before.reset();
  log().info("process up: PgWeir {}, {} workers (epoll), tls: {}", PGWEIR_VERSION, worker_count_,
             OpenSSL_version(OPENSSL_VERSION));
  notify_service_manager("READY=1");
  workers_[0]->run();
  return 0;
}

void Runtime::start_workers(const core::ProcessKeys& keys) {
  for (pool::WorkerId id = 0; id < worker_count_; ++id) {
    workers_.push_back(std::make_unique<Worker>(id, *this, settings_, keys));
  }
  {
    pool::PoolManager& pools = pools_.lock();
    pool::Actions actions;
    pools.set_peers(static_cast<std::uint16_t>(config().peer_id), core::peer_limits(config()), actions);
    for (const auto& [name, entry] : config().databases) {
      pools.add_database(name);
      pools.set_database_limits(name, database_limits(config(), entry));
    }
    (void)pools_.unlock();
  }
  start_resolver();
  start_password_checkers();
  start_monitor();
  signals_ =
      std::make_unique<SignalWatcher>(workers_[0]->events(), kSignals, [this](int number) { on_signal(number); });
  stats_timer_ = std::make_unique<Timer>(workers_[0]->events());
  arm_stats();
  for (pool::WorkerId id = 1; id < worker_count_; ++id) workers_[id]->start_thread();
  workers_[0]->post_function([this] {
    make_forced_pools(config());
    workers_[0]->core().run_pending();
  });
}

// ---- start ----

// Pools of forced users keep min_pool_size without any client.
void Runtime::make_forced_pools(const core::Config& config) {
  for (const auto& [name, entry] : config.databases) {
    if (entry.user) (void)workers_[0]->core().context_for(name, *entry.user);
  }
}

void Runtime::make_listeners(std::vector<ListenSocket> sockets) {
  for (ListenSocket& socket : sockets) {
    AcceptedSocket client;
    if (socket.address() != nullptr) client.local = *socket.address();
    client.inherited = socket.hands_down_options();
    listeners_.push_back(
        std::make_unique<Listener>(workers_[0]->events(), std::move(socket),
                                   [this, client](int fd, const sockaddr_storage& peer, bool is_unix) mutable {
                                     client.fd = fd;
                                     client.peer = peer;
                                     client.is_unix = is_unix;
                                     client.speaks = !is_unix && config().tcp_defer_accept > 0;
                                     place(client);
                                   }));
    listeners_.back()->on_failure([](int error) { log().warning("accept() failed: {}", std::strerror(error)); });
  }
}

void Runtime::accept_clients() {
  for (const auto& listener : listeners_) listener->start();
}

// The worker with the fewest clients gets the next: connections are long-lived, an imbalance would last.
void Runtime::place(const AcceptedSocket& accepted) {
  const auto fewest = std::min_element(workers_.begin(), workers_.end(), [](const auto& a, const auto& b) {
    return a->client_count() < b->client_count();
  });
  (*fewest)->accept(accepted);
}

void Runtime::pools_deadline_moved() {
  if (workers_.empty() || !workers_[0]) return;
  workers_[0]->post_function([this] { workers_[0]->pools_deadline_moved(); });
}

// ---- signals and commands ----

void Runtime::on_signal(int number) {
  core::WorkerCore& core = workers_[0]->core();
  switch (number) {
    case SIGHUP:
      if (suspend_ != Suspend::No) {
        log().warning("got SIGHUP while suspended, only the log is reopened");
        reopen_log();
        break;
      }
      log().info("got SIGHUP, re-reading config");
      (void)reload();
      break;
    case SIGTERM:
      if (exits_fast("SIGTERM")) break;
      log().info("got SIGTERM, shutting down, waiting for all clients disconnect");
      shut_down(core::ShutdownMode::WaitForClients);
      break;
    case SIGINT:
      if (exits_fast("SIGINT")) break;
      log().info("got SIGINT, shutting down, waiting for all servers connections to be released");
      shut_down(core::ShutdownMode::WaitForServers);
      break;
    case SIGQUIT:
      log().info("got SIGQUIT, fast exit");
      stop();
      break;
    case SIGUSR1:
      pause_by_signal();
      break;
    case SIGUSR2:
      resume_by_signal();
      break;
    default:
      break;
  }
  core.run_pending();
}

// The second signal that ends the process does so at once.
bool Runtime::exits_fast(const char* signal) {
  if (shutdown_ == core::ShutdownMode::None) return false;
  log().info("got {} while shutting down, fast exit", signal);
  stop();
  return true;
}

void Runtime::pause_by_signal() {
  core::WorkerCore& core = workers_[0]->core();
  core::PoolLock pools(*workers_[0]);
  if (suspend_ != Suspend::No || pools->all_paused()) {
    log().info("got SIGUSR1, but already paused/suspended");
    return;
  }
  log().info("got SIGUSR1, pausing all activity");
  (void)pools->pause_all(core.now(), core.actions());
}

void Runtime::resume_by_signal() {
  core::WorkerCore& core = workers_[0]->core();
  if (shutdown_ != core::ShutdownMode::None) {
    log().info("got SIGUSR2 while shutting down, ignoring");
  } else if (suspend_ != Suspend::No) {
    log().info("got SIGUSR2, continuing from SUSPEND");
    go_on();
  } else {
    core::PoolLock pools(*workers_[0]);
    const bool paused = pools->all_paused();
    log().info("{}", paused ? "got SIGUSR2, continuing from PAUSE" : "got SIGUSR2, but not paused/suspended");
    if (paused) (void)pools->resume_all(core.now(), core.actions());
  }
}

void Runtime::process_command(const core::ProcessCommand& command) {
  using Kind = core::ProcessCommand::Kind;
  switch (command.kind) {
    // These are answered when they have taken effect.
    case Kind::Reload:
      return after_all_workers([this, command, error = reload()] { answer(command, error); });
    case Kind::Set:
      return after_all_workers(
          [this, command, result = set(command.key, command.value)] { answer(command, result.error, result.notice); });
    case Kind::Suspend:
      return suspend(command);
    case Kind::Resume:
      go_on();
      return answer(command, {});
    case Kind::AbandonSuspend:
      if (suspend_ == Suspend::No) return;
      log().info("admin disappeared when suspended, doing RESUME");
      return go_on();
    case Kind::DescriptorsSent:
      descriptors_sent_ = suspend_ == Suspend::Yes;
      return;
    case Kind::ShutdownNow:
      if (descriptors_sent_) return leave_to_successor(command);
      return stop();
    case Kind::ShutdownWaitForServers:
      return shut_down(core::ShutdownMode::WaitForServers);
    case Kind::ShutdownWaitForClients:
      return shut_down(core::ShutdownMode::WaitForClients);
  }
}

void Runtime::answer(const core::ProcessCommand& command, const std::string& error, const std::string& notice) {
  workers_[0]->post(command.worker, [client = command.client, error, notice](core::WorkerCore& there) {
    there.process_command_done(client, error, notice);
  });
}

// ---- reload ----

// Empty, or the console's error text.
std::string Runtime::reload() {
  notify_reloading();
  std::string error = reload_files();
  // Refused or not, it goes on serving.
  notify_service_manager("READY=1");
  return error;
}

std::string Runtime::reload_files() {
  const std::string path = config().conffile.value_or(options_.config_file);
  held_tls_.clear();
  patroni_hosts_.forget();
  if (!take_over(load_settings(path, settings_.get()), true)) {
    log().warning("config file loading failed, the running configuration stays in force");
    reopen_log();
    return "RELOAD failed, see logs for additional details";
  }
  return {};
}

// Whatever becomes of the reload, the log must not go on in a file that has been rotated away.
void Runtime::reopen_log() {
  try {
    configure_log(config(), options_);
  } catch (const std::exception& e) {
    log().error("{}", e.what());
  }
}

// All or nothing: false, with the reasons in the log, leaves everything as it was.
bool Runtime::take_over(LoadedConfig loaded, bool reopen_log) {
  for (const std::string& warning : loaded.warnings) log().warning("{}", warning);
  for (const std::string& problem : loaded.problems) log().error("{}", problem);
  if (!loaded.settings) return false;
  loaded.settings = with_patroni_hosts(loaded.settings, patroni_hosts_);
  const LogSettings log_now = log_settings(*loaded.settings->config, options_);
  try {
    if (reopen_log || log_now != log_settings(config(), options_)) log().configure(log_now);
  } catch (const std::exception& e) {
    log().error("{}", e.what());
    return false;
  }
  apply(std::move(loaded));
  return true;
}

void Runtime::apply(LoadedConfig loaded) {
  const std::shared_ptr<const core::Settings> before = settings_;
  const bool other_period = before->config->stats_period != loaded.settings->config->stats_period;
  if (other_period) end_stats_period();
  settings_ = loaded.settings;
  client_tls_ = loaded.client_tls;
  if (other_period) arm_stats();
  for (const auto& listener : listeners_) {
    if (!listener->socket().set_keepalive(config().tcp_keepalive)) {
      log().warning("could not set tcp_keepalive of {}: {}", listener->socket().text(), std::strerror(errno));
    }
    if (before->config->tcp_defer_accept != config().tcp_defer_accept) {
      if (!listener->socket().set_defer_accept(config().tcp_defer_accept)) {
        log().warning("could not set tcp_defer_accept of {}: {}", listener->socket().text(), std::strerror(errno));
      }
    }
  }
  apply_to_resolver();
  // The workers first: whoever the pools' actions reach must see the new entries.
  for (pool::WorkerId id = 0; id < worker_count_; ++id) {
    Worker& worker = *workers_[id];
    worker.post_function([&worker, settings = settings_, tls = client_tls_]() mutable {
      worker.apply(std::move(settings), std::move(tls));
      worker.core().run_pending();
    });
  }
  monitor_->apply(*settings_);
  after_all_workers([this, before, now = settings_] { apply_to_pools(*before->config, *now->config); });
}

// On worker 0, when every worker has carried out what it was told before this call. Calls keep their order.
void Runtime::after_all_workers(std::function<void()> then) {
  core::gather<bool>(
      workers_[0]->core(), [](core::WorkerCore&) { return true; },
      [then = std::move(then)](core::WorkerCore&, const std::vector<bool>&) { then(); });
}

void Runtime::apply_to_pools(const core::Config& before, const core::Config& now) {
  core::WorkerCore& core = workers_[0]->core();
  std::vector<std::string> recycled;
  {
    core::PoolLock pools(*workers_[0]);
    recycled = core::apply_to_pools(*pools, before, now, core.now(), core.actions());
  }
  make_forced_pools(now);
  for (const std::string& name : recycled) {
    for (pool::WorkerId id = 0; id < worker_count_; ++id) {
      workers_[0]->post(id, [name](core::WorkerCore& there) { there.forget_reports(name); });
    }
  }
}

// A certificate and its key are set by two commands: after the first they do not fit each other, so that it waits for
// the second.
Runtime::SetResult Runtime::set(const std::string& key, const std::string& value) {
  std::map<std::string, std::string> values{{key, value}};
  if (is_tls_setting(key) && !held_tls_.empty()) {
    values.insert(held_tls_.begin(), held_tls_.end());
    if (set_all(values)) {
      held_tls_.clear();
      return {};
    }
  }
  if (set_all({{key, value}})) {
    held_tls_.erase(key);
    return {};
  }
  if (is_half_of_pair(key) && std::ifstream(value).good()) {
    held_tls_[key] = value;
    log().warning("SET {} waits for the setting that goes with it, the TLS settings in force stay", key);
    return {{}, fmt::format("{} does not fit the other TLS settings yet, those in force stay", key)};
  }
  log().error("SET {} failed, the running configuration stays in force", key);
  return {"SET failed", {}};
}

bool Runtime::set_all(const std::map<std::string, std::string>& values) {
  auto changed = std::make_shared<const core::Config>(config());
  for (const auto& [key, value] : values) {
    auto result = core::with_setting(*changed, key, value);
    if (const auto* reason = std::get_if<std::string>(&result)) {
      log().error("SET {} failed: {}", key, *reason);
      return false;
    }
    changed = std::get<std::shared_ptr<const core::Config>>(std::move(result));
  }
  return take_over(change_settings(std::move(changed), *settings_, client_tls_), false);
}

// ---- shutdown ----

void Runtime::shut_down(core::ShutdownMode mode) {
  if (suspend_ != Suspend::No) {
    log().info("suspend was in progress, going down immediately");
    return stop();
  }
  // A console may change its mind about whom to wait for.
  shutdown_ = mode;
  notify_service_manager("STOPPING=1");
  std::erase_if(listeners_, [](const auto& listener) { return !listener->socket().is_unix(); });
  for (pool::WorkerId id = 0; id < worker_count_; ++id) {
    workers_[0]->post(id, [mode](core::WorkerCore& there) { there.set_shutdown(mode); });
  }
  core::WorkerCore& core = workers_[0]->core();
  core.set_now(monotonic_now());
  {
    core::PoolLock pools(*workers_[0]);
    const bool servers = mode == core::ShutdownMode::WaitForServers;
    pools->stop_wait(kShutdownToken);
    if (servers) {
      (void)pools->pause_all(core.now(), core.actions());
      pools->reject_waiting(core::kServerShutdown, core.now(), core.actions());
    }
    pools->wait_for(servers ? pool::PoolManager::WaitFor::NoServers : pool::PoolManager::WaitFor::NoClients, "", 0,
                    kShutdownToken, core.now(), core.actions());
  }
  core.run_pending();
}

void Runtime::wait_over(std::uint64_t token) {
  if (token == kShutdownToken) stop();
}

void Runtime::stop() {
  log().info("shutting down");
  notify_service_manager("STOPPING=1");
  listeners_.clear();
  for (const auto& worker : workers_) worker->stop();
}

// ---- statistics ----

void Runtime::arm_stats() {
  const auto period = std::chrono::duration_cast<std::chrono::microseconds>(config().stats_period);
  stats_period_began_ = monotonic_now();
  // Ends the wait of a period that is under way.
  stats_timer_->start_after(std::max(period, std::chrono::microseconds(1'000'000)), [this] {
    end_stats_period();
    arm_stats();
  });
}

void Runtime::end_stats_period() {
  // As long as it was: the timer may be late, and a changed stats_period ends the period at once.
  const pool::Duration length = monotonic_now() - stats_period_began_;
  for (pool::WorkerId id = 0; id < worker_count_; ++id) {
    workers_[0]->post(id, [length](core::WorkerCore& there) { there.end_stats_period(length); });
  }
  if (!config().log_stats && !has_service_manager()) return;
  core::collect_reports(workers_[0]->core(), core::ReportExtra::None,
                        [this](core::WorkerCore&, const core::WorkerReport& report) { log_stats(report); });
}

void Runtime::log_stats(const core::WorkerReport& report) {
  core::StatsPeriod period;
  for (const auto& [database, row] : report.stats) {
    period.begin += row.period.begin;
    period.end += row.period.end;
    period.length_us = std::max(period.length_us, row.period.length_us);
  }
  const core::PoolStats average = core::averages(period);
  const std::string text = fmt::format(
      "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, {} client logins/s, in {} "
      "B/s, out {} B/s, xact {} us, query {} us, wait {} us",
      average.xact_count, average.query_count, average.client_parse_count, average.server_parse_count,
      average.bind_count, average.client_login_count, average.client_bytes, average.server_bytes, average.xact_time,
      average.query_time, average.wait_time);
  if (config().log_stats) log().info("{}", text);
  notify_service_manager("STATUS=" + text);
}

}  // namespace pgweir::io
