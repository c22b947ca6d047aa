#include "proxy/io/worker.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <limits>

#include "proxy/io/clock.hpp"
#include "proxy/io/logger.hpp"
#include "proxy/io/runtime.hpp"

namespace pgweir::io {

namespace {
constexpr std::size_t kAgainReserve = 64;

TcpSettings tcp_settings(const core::Config& config) {
  TcpSettings tcp;
  tcp.keepalive = config.tcp_keepalive;
  tcp.keepcnt = config.tcp_keepcnt;
  tcp.keepidle_s = static_cast<int>(config.tcp_keepidle.count() / 1'000'000);
  tcp.keepintvl_s = static_cast<int>(config.tcp_keepintvl.count() / 1'000'000);
  tcp.user_timeout_ms = static_cast<int>(config.tcp_user_timeout.count() / 1'000);
  tcp.socket_buffer_bytes = config.tcp_socket_buffer;
  return tcp;
}

int reads_per_event(const core::Config& config) {
  return config.sbuf_loopcnt > 0 ? config.sbuf_loopcnt : std::numeric_limits<int>::max();
}
}  // namespace

Worker::Worker(pool::WorkerId id, Runtime& runtime, std::shared_ptr<const core::Settings> settings,
               const core::ProcessKeys& keys)
    : id_(id),
      runtime_(runtime),
      mailbox_(events_),
      connector_(events_,
                 [this](const std::string& name, Resolver::Callback reply) {
                   const auto post_back = [this](UniqueFunction answer) { post_function(std::move(answer)); };
                   runtime_.lookup(name, post_back, std::move(reply));
                 }),
      client_tls_(runtime.client_tls()),
      buffer_(new char[buffer_size()]),
      tls_buffers_(events_),
      timer_(events_),
      tcp_(tcp_settings(*settings->config)),
      reads_per_event_(io::reads_per_event(*settings->config)) {
  again_.reserve(kAgainReserve);
  core_ = std::make_unique<core::WorkerCore>(id, *this, std::move(settings), keys);
  core_->set_now(monotonic_now());
}

Worker::~Worker() = default;

void Worker::start_thread() {
  thread_ = std::thread([this] { run(); });
}

void Worker::run() {
  core_->set_now(monotonic_now());
  events_.set_hooks({.before_batch = [this](int events) { begin_batch(events); },
                     .after_batch = [this] { finish_batch(); },
                     .patience = [this] { return patience(); }});
  arm_timer();
  events_.run();
  mailbox_.stop();
  core_.reset();  // closes all sockets, on the thread that owns them
}

void Worker::stop() {
  post_function([this] { events_.stop(); });
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void Worker::begin_batch(int events) {
  core_->set_now(monotonic_now());
  core_->begin_batch(events);
}

std::chrono::milliseconds Worker::patience() const {
  const pool::TimePoint due = core_->batch_deadline();
  if (due == pool::kNever) return std::chrono::milliseconds(-1);
  if (due <= core_->now()) return std::chrono::milliseconds(0);
  return std::chrono::ceil<std::chrono::milliseconds>(due - core_->now());
}

void Worker::finish_batch() {
  core_->end_batch();
  client_count_.store(static_cast<int>(core_->clients().size()), std::memory_order_relaxed);
  arm_timer();
}

// ---- clients ----

void Worker::accept(const AcceptedSocket& accepted) {
  client_count_.fetch_add(1, std::memory_order_relaxed);
  if (id_ == 0) return adopt_socket(accepted);
  post_function([this, accepted] { adopt_socket(accepted); });
}

core::PeerAddress Worker::address_of(int fd, const sockaddr_storage& peer, bool is_unix,
                                     const sockaddr_storage& known) const {
  core::PeerAddress address;
  address.is_unix = is_unix;
  address.host = address_host(peer);
  address.port = address_port(peer);
  sockaddr_storage local = known;
  socklen_t length = sizeof local;
  if (local.ss_family != AF_UNSPEC || ::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &length) == 0) {
    address.local_host = address_host(local);
    address.local_port = address_port(local);
  }
  if (is_unix) {
    const UnixPeer process = unix_peer(fd);
    address.pid = process.pid;
    address.uid = static_cast<std::int64_t>(static_cast<std::int32_t>(process.uid));
  }
  return address;
}

void Worker::adopt_socket(const AcceptedSocket& accepted) {
  if (accepted.inherited) {
    apply_inherited_options(accepted.fd, tcp_);
  } else if (!accepted.is_unix) {
    apply_socket_options(accepted.fd, tcp_);
  }
  core::PeerAddress address = address_of(accepted.fd, accepted.peer, accepted.is_unix, accepted.local);
  auto port = std::make_unique<SocketPort>(*this, accepted.fd);
  SocketPort& socket = *port;
  core_->client_accepted(std::move(port), std::move(address));
  // Saves a turn of the loop.
  if (accepted.speaks && !core_->frozen()) socket.on_event(EPOLLIN);
}

void Worker::take_over(std::optional<core::FdRow> client, std::optional<core::FdRow> server) {
  if (client) client_count_.fetch_add(1, std::memory_order_relaxed);
  post_function([this, client = std::move(client), server = std::move(server)]() mutable {
    core::Newcomers newcomers;
    if (client) newcomers.client = newcomer(std::move(*client));
    if (server) newcomers.server = newcomer(std::move(*server));
    core_->take_over(std::move(newcomers));
    core_->run_pending();
  });
}

core::Newcomer Worker::newcomer(core::FdRow row) {
  const int fd = ::fcntl(*row.descriptor, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "cannot take over a socket");
  row.descriptor.reset();
  sockaddr_storage peer{};
  socklen_t length = sizeof peer;
  (void)::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length);  // of a broken one: nobody knows any more
  core::PeerAddress address = address_of(fd, peer, peer.ss_family == AF_UNIX);
  return {std::move(row), std::make_unique<SocketPort>(*this, fd), std::move(address)};
}

std::vector<core::FdRow> Worker::listening_sockets() {
  return id_ == 0 ? runtime_.listening_sockets() : std::vector<core::FdRow>();
}

// ---- core::Host ----

pool::PoolManager& Worker::lock_pools() {
  return runtime_.pools().lock();
}

void Worker::unlock_pools() {
  if (runtime_.pools().unlock()) runtime_.pools_deadline_moved();
}

void Worker::open_server(pool::ServerId server, const core::ServerTarget& target) {
  connecting_[server] =
      connector_.connect(target.host.host, target.host.port, tcp_, [this, server](ConnectResult result) {
        connecting_.erase(server);
        if (result.fd < 0) {
          core_->server_connect_failed(server, result.error, result.detail);
        } else {
          core::PeerAddress address = address_of(result.fd, result.address, result.address.ss_family == AF_UNIX);
          core_->server_connected(server, std::make_unique<SocketPort>(*this, result.fd), std::move(address));
        }
        core_->run_pending();
      });
}

void Worker::abandon_server(pool::ServerId server) {
  if (const auto it = connecting_.find(server); it != connecting_.end()) {
    connector_.cancel(it->second);
    connecting_.erase(it);
  }
}

void Worker::open_cancel(std::uint64_t token, const core::ServerTarget& target) {
  canceling_[token] = connector_.connect(target.host.host, target.host.port, tcp_, [this, token](ConnectResult result) {
    canceling_.erase(token);
    if (result.fd < 0) {
      core_->cancel_connect_failed(token, result.error, result.detail);
    } else {
      core_->cancel_connected(token, std::make_unique<SocketPort>(*this, result.fd));
    }
    core_->run_pending();
  });
}

void Worker::abandon_cancel(std::uint64_t token) {
  if (const auto it = canceling_.find(token); it != canceling_.end()) {
    connector_.cancel(it->second);
    canceling_.erase(it);
  }
}

bool Worker::check_password(pool::ClientId client, core::PasswordQuestion question) {
  PasswordChecker& checker = runtime_.password_checker(question);
  return checker.ask({id_, client}, std::move(question));
}

void Worker::abandon_password(pool::ClientId client) {
  runtime_.abandon_password({id_, client});
}

void Worker::password_judged(pool::ClientId client, Judgement judgement) {
  post_function([this, client, judgement = std::move(judgement)]() mutable {
    const auto tell = [this, client](const core::PasswordVerdict& verdict) {
      core_->password_checked(client, verdict);
      core_->run_pending();
    };
    if (judgement.delay <= pool::Duration::zero()) return tell(judgement.verdict);
    const auto place = delayed_.emplace(delayed_.end(), events_);
    place->start_after(judgement.delay, [this, place, tell, verdict = std::move(judgement.verdict)] {
      tell(verdict);
      delayed_.erase(place);
    });
  });
}

void Worker::derive_key(std::uint64_t number, core::KeyQuestion question) {
  if (runtime_.key_deriver().ask({id_, number}, question)) return;
  // There is no other thread: one of these at a time, and everybody else has a turn in between.
  post_function([this, number, question = std::move(question)] {
    key_derived(number, crypto_.pbkdf2_sha256(question.password, question.salt, question.iterations));
  });
}

void Worker::key_derived(std::uint64_t number, const protocol::Sha256Digest& key) {
  post_function([this, number, key] {
    core_->key_derived(number, key);
    core_->run_pending();
  });
}

bool Worker::find_host_name(pool::ClientId client, const std::string& address) {
  return runtime_.lookup_host_name(address, [this, client](std::string name) {
    post_function([this, client, name = std::move(name)] {
      core_->host_name_found(client, name);
      core_->run_pending();
    });
  });
}

void Worker::detach(core::Port& port) {
  static_cast<SocketPort&>(port).leave_worker();
}

void Worker::attach(core::Port& port) {
  static_cast<SocketPort&>(port).enter_worker(*this);
}

void Worker::post(pool::WorkerId to, core::Task task) {
  Worker& worker = runtime_.worker(to);
  worker.post_function([&worker, task = std::move(task)] {
    task(worker.core());
    worker.core().run_pending();
  });
}

void Worker::post_function(UniqueFunction function) {
  mailbox_.post(std::move(function));
}

pool::WorkerId Worker::worker_count() const {
  return runtime_.worker_count();
}

std::uint64_t Worker::next_number() {
  return runtime_.next_number();
}

void Worker::process_command(const core::ProcessCommand& command) {
  runtime_.worker(0).post_function([this, command] { runtime_.process_command(command); });
}

pool::TimePoint Worker::clock() {
  return monotonic_now();
}

void Worker::witness(const std::string& group, router::HostId host, router::Witness witness) {
  runtime_.monitor().witness(group, host, witness);
}

void Worker::positions_wanted(const std::string& group) {
  runtime_.monitor().positions_wanted(group);
}

void Worker::catalog_changed(const std::string& group, const std::string& dbname) {
  runtime_.monitor().catalog_changed(group, dbname);
}

std::shared_ptr<core::SharedWriteToken> Worker::shared_writes(const std::string& database) {
  return runtime_.shared_writes(database);
}

void Worker::wait_over(std::uint64_t token) {
  runtime_.wait_over(token);
}

void Worker::log(core::LogLevel level, std::string text) {
  io::log().write(static_cast<LogLevel>(level), text);
}

std::int64_t Worker::wall_clock_us() {
  timeval now{};
  ::gettimeofday(&now, nullptr);
  return std::int64_t{now.tv_sec} * 1'000'000 + now.tv_usec;
}

std::string Worker::format_time(std::int64_t unix_us) {
  const std::time_t seconds = unix_us / 1'000'000;
  std::tm local{};
  ::localtime_r(&seconds, &local);
  char text[64];
  const std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %Z", &local);
  return std::string(text, length);
}

std::int64_t Worker::own_uid() const {
  return static_cast<std::int64_t>(::getuid());
}

std::string Worker::user_name(std::int64_t uid) {
  if (uid < 0) return {};
  std::array<char, 4096> buffer;
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(static_cast<uid_t>(uid), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) {
    return {};
  }
  return found->pw_name;
}

core::DnsReport Worker::dns_report() {
  return id_ == 0 ? runtime_.dns_report() : core::DnsReport{};
}

std::string Worker::host_name() {
  std::array<char, 256> buffer{};
  if (::gethostname(buffer.data(), buffer.size() - 1) != 0) return "?";
  return buffer.data();
}

TlsContext Worker::server_tls(const core::ServerTarget& target) {
  const std::string key = fmt::format("{}\n{}\n{}\n{}", static_cast<int>(target.sslmode), target.ca_file,
                                      target.cert_file, target.key_file);
  TlsContext& context = server_tls_[key];
  if (!context) {
    const core::Config& config = core_->config();
    TlsSettings settings;
    settings.sslmode = std::string(core::to_string(target.sslmode));
    settings.ca_file = target.ca_file;
    settings.cert_file = target.cert_file;
    settings.key_file = target.key_file;
    settings.protocols = config.server_tls_protocols.text;
    settings.ciphers = config.server_tls_ciphers;
    settings.tls13_ciphers = config.server_tls13_ciphers.value_or("");
    context = make_connector_context(settings);
  }
  return context;
}

void Worker::apply(std::shared_ptr<const core::Settings> settings, TlsContext client_tls) {
  tcp_ = tcp_settings(*settings->config);
  reads_per_event_ = io::reads_per_event(*settings->config);
  client_tls_ = std::move(client_tls);
  server_tls_.clear();
  core_->set_settings(std::move(settings));
}

// ---- ports that must be looked at without an event ----

void Worker::look_again(SocketPort& port) {
  if (std::find(again_.begin(), again_.end(), &port) == again_.end()) again_.push_back(&port);
  if (std::exchange(again_deferred_, true)) return;
  events_.defer([this] { run_again(); });
}

void Worker::forget(SocketPort& port) {
  std::erase(again_, &port);
  std::replace(running_again_.begin(), running_again_.end(), &port, static_cast<SocketPort*>(nullptr));
}

void Worker::run_again() {
  again_deferred_ = false;
  running_again_.swap(again_);
  for (std::size_t i = 0; i < running_again_.size(); ++i) {
    if (running_again_[i] != nullptr) running_again_[i]->again();
  }
  running_again_.clear();
}

// ---- time ----

void Worker::pools_deadline_moved() {
  arm_timer();
}

void Worker::arm_timer() {
  if (core_->frozen()) return;
  pool::TimePoint next = core_->next_deadline();
  if (id_ == 0) next = std::min(next, runtime_.pools().known());
  if (next >= armed_ || next == pool::kNever) return;
  armed_ = next;
  timer_.start(next, [this] { on_timer(); });
}

void Worker::on_timer() {
  armed_ = pool::kNever;
  if (core_->frozen()) return;
  const pool::TimePoint now = monotonic_now();
  core_->on_time(now);
  if (id_ == 0) {
    pool::PoolManager& pools = runtime_.pools().lock();
    runtime_.pools().disarm();
    if (pools.next_deadline() <= now) pools.on_time(now, core_->actions());
    (void)runtime_.pools().unlock();
  }
  core_->run_pending();
}

}  // namespace pgweir::io
