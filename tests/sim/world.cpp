#include "tests/sim/world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <limits>

#include "protocol/message_builder.hpp"
#include "tests/sim/prober.hpp"

namespace pgweir::sim {

namespace {

/// How often a connect looks whether it can go on.
constexpr Duration kTryAgain{5'000};

/// Reproducible stand-in: what matters here is who talks to whom, not secrecy.
class SimCrypto final : public protocol::Crypto {
 public:
  explicit SimCrypto(std::uint64_t seed) : rng_(seed ^ 0x5eedULL) {}
  [[nodiscard]] protocol::Sha256Digest sha256(std::string_view data) const override { return mix(data, {}); }
  [[nodiscard]] protocol::Sha256Digest hmac_sha256(std::string_view key, std::string_view data) const override {
    return mix(key, data);
  }
  [[nodiscard]] protocol::Sha256Digest pbkdf2_sha256(std::string_view password, std::string_view salt,
                                                     std::uint32_t) const override {
    return mix(password, salt);
  }
  [[nodiscard]] std::string md5_hex(std::string_view data) const override {
    const protocol::Sha256Digest digest = mix(data, {});
    std::string text;
    for (std::size_t i = 0; i < 16; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
  }
  void random_bytes(std::span<unsigned char> out) override {
    for (unsigned char& byte : out) byte = static_cast<unsigned char>(rng_.next());
  }

 private:
  static protocol::Sha256Digest mix(std::string_view a, std::string_view b) {
    std::uint64_t state = 1469598103934665603ULL;
    const auto add = [&](std::string_view text) {
      for (const char c : text) state = (state ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
      state = (state ^ 0xff) * 1099511628211ULL;
    };
    add(a);
    add(b);
    Rng rng(state);
    protocol::Sha256Digest digest;
    for (unsigned char& byte : digest) byte = static_cast<unsigned char>(rng.next());
    return digest;
  }
  Rng rng_;
};

template <class Id>
bool take(std::vector<Id>& list, const Id& id) {
  const auto it = std::find(list.begin(), list.end(), id);
  if (it == list.end()) return false;
  list.erase(it);
  return true;
}

}  // namespace

// ---- SimHost ----

pool::PoolManager& SimHost::lock_pools() {
  if (locked_) world_.fail("the pool lock is taken twice");
  locked_ = true;
  return *world_.pools_;
}

void SimHost::unlock_pools() {
  locked_ = false;
  world_.arm_pools();
}

void SimHost::open_server(pool::ServerId server, const core::ServerTarget& target) {
  world_.check_in_charge("opens one");
  ++world_.under_way_;
  world_.at(Duration(world_.rng().between(1, world_.plan().network_max.count() * 4)),
            [this, server, host = host_of(target)] { connect_server(server, host); });
}

void SimHost::connect_server(pool::ServerId server, std::optional<int> host) {
  if (std::find(abandoned_servers_.begin(), abandoned_servers_.end(), server) == abandoned_servers_.end() && host &&
      world_.cluster_->connect(*host) == Cluster::Connect::Hangs) {
    return world_.at(kTryAgain, [this, server, host] { connect_server(server, host); });
  }
  --world_.under_way_;
  if (!take(abandoned_servers_, server)) world_.connect_server(id_, server, host);
}

void SimHost::open_cancel(std::uint64_t token, const core::ServerTarget& target) {
  ++world_.under_way_;
  world_.at(Duration(world_.rng().between(1, world_.plan().network_max.count() * 4)),
            [this, token, host = host_of(target)] { connect_cancel(token, host); });
}

void SimHost::connect_cancel(std::uint64_t token, std::optional<int> host) {
  if (std::find(abandoned_cancels_.begin(), abandoned_cancels_.end(), token) == abandoned_cancels_.end() && host &&
      world_.cluster_->connect(*host) == Cluster::Connect::Hangs) {
    return world_.at(kTryAgain, [this, token, host] { connect_cancel(token, host); });
  }
  --world_.under_way_;
  if (!take(abandoned_cancels_, token)) world_.connect_cancel(id_, token, host);
}

// The hosts of the cluster differ by their ports.
std::optional<int> SimHost::host_of(const core::ServerTarget& target) const {
  if (!world_.cluster_) return std::nullopt;
  const int host = target.host.port - kFirstPort;
  if (host < 0 || host >= world_.cluster_->size()) world_.fail("a connect to a host that is not there");
  return host;
}

void SimHost::witness(const std::string& group, router::HostId host, router::Witness witness) {
  if (world_.cluster_) world_.cluster_->prober().witness(group, host, witness);
}

void SimHost::positions_wanted(const std::string& group) {
  if (world_.cluster_) world_.cluster_->prober().positions_wanted(group);
}

void SimHost::catalog_changed(const std::string& group, const std::string& dbname) {
  if (world_.cluster_) world_.cluster_->prober().catalog_changed(group, dbname);
}

std::shared_ptr<core::SharedWriteToken> SimHost::shared_writes(const std::string& database) {
  auto& token = world_.shared_writes_[database];
  if (!token) {
    token = std::make_shared<core::SharedWriteToken>();
    token->write_acknowledged(core::router_time(world_.now()));
  }
  return token;
}

void SimHost::post(pool::WorkerId to, core::Task task) {
  world_.deliver(id_, to, std::move(task));
}
pool::WorkerId SimHost::worker_count() const {
  return world_.plan().workers;
}

// Takes far longer than any event, as it would on a machine that is busy.
void SimHost::derive_key(std::uint64_t number, core::KeyQuestion question) {
  if (std::exchange(deriving_, true)) world_.fail("a worker has two keys derived at once");
  ++world_.under_way_;
  world_.at(Duration(world_.rng().between(1, 20'000)), [this, number, question = std::move(question)] {
    --world_.under_way_;
    deriving_ = false;
    core::WorkerCore& core = *world_.cores_[id_];
    core.key_derived(number, crypto().pbkdf2_sha256(question.password, question.salt, question.iterations));
    world_.settle(id_);
  });
}

std::uint64_t SimHost::next_number() {
  return ++world_.numbers_;
}

TimePoint SimHost::clock() {
  return world_.now();
}

void SimHost::log(core::LogLevel, std::string text) {
  world_.trace(fmt::format("w{} log: {}", id_, text));
}
protocol::Crypto& SimHost::crypto() {
  return *world_.crypto_;
}

// ---- World ----

World::World(std::uint64_t seed, Plan plan)
    : rng_(seed),
      batch_rng_(seed ^ 0xba7c4ULL),
      extra_rng_(seed ^ 0x65787472ULL),
      plan_(std::move(plan)),
      settings_(plan_.settings) {
  crypto_ = std::make_unique<SimCrypto>(seed);
  keys_.statement_hash = {rng_.next(), rng_.next()};
  keys_.mock_auth_key = "mock";
  // In the order of the pool modes of the plans without a cluster.
  names_ = {"tx", "se", "st"};
  if (plan_.cluster) {
    names_.clear();
    for (const auto& [name, entry] : plan_.settings->config->databases) names_.push_back(name);
  }
  start_process();
  if (plan_.schema) schema_.emplace(plan_.network_max * 40 + plan_.mailbox_max * 4);
  if (plan_.cluster) {
    cluster_ = std::make_unique<Cluster>(*this, *plan_.cluster, plan_.databases);
    cluster_->begin();
  }
}

void World::start_process() {
  pool::ManagerSettings manager;
  manager.workers = plan_.workers;
  manager.fifo_slack = plan_.fifo_slack;
  manager.max_client_conn = 1000;
  cores_.clear();
  hosts_.clear();
  shared_writes_.clear();
  pools_ = std::make_unique<pool::PoolManager>(manager);
  pools_armed_ = pool::kNever;
  armed_.assign(plan_.workers, pool::kNever);
  batches_.assign(plan_.workers, 0);
  keys_.schema += 0x9e3779b97f4a7c15;  // other than that of any process before
  for (pool::WorkerId id = 0; id < plan_.workers; ++id) {
    hosts_.push_back(std::make_unique<SimHost>(*this, id));
    cores_.push_back(std::make_unique<core::WorkerCore>(id, *hosts_.back(), settings_, keys_));
    cores_.back()->set_now(now_);
  }
}

World::~World() {
  handed_over_ = false;
  while (!events_.empty()) events_.pop();
  cores_.clear();
}

void World::at(Duration delay, std::function<void()> event) {
  events_.push({now_ + delay, rng_.next(), std::move(event)});
}

bool World::run_one() {
  if (events_.empty()) return false;
  const Event event = events_.top();
  events_.pop();
  now_ = std::max(now_, event.at);
  for (const auto& core : cores_) core->set_now(now_);
  event.run();
  return true;
}

void World::settle(pool::WorkerId worker) {
  core::WorkerCore& core = *cores_[worker];
  core.run_pending();
  if (rng_.chance(50)) {
    end_batch(worker);
  } else {
    at(Duration(rng_.below(plan_.batch_max.count())), [this, worker] {
      end_batch(worker);
      arm(worker);
    });
  }
  arm(worker);
}

void World::end_batch(pool::WorkerId worker) {
  core::WorkerCore& core = *cores_[worker];
  core.end_batch();
  // As if the next batch had so many events; how many that are is told only now and then.
  core.begin_batch(static_cast<int>(batch_rng_.below(16)));
  const TimePoint due = core.batch_deadline();
  if (due == pool::kNever) return;
  const std::uint64_t number = ++batches_[worker];
  at(std::max(Duration(0), due - now_) + Duration(batch_rng_.below(plan_.batch_max.count())), [this, worker, number] {
    if (batches_[worker] != number) return;  // others came first
    cores_[worker]->begin_batch(0);
    end_batch(worker);
    arm(worker);
  });
}

void World::arm(pool::WorkerId worker) {
  const TimePoint next = cores_[worker]->next_deadline();
  if (next >= armed_[worker] || next == pool::kNever) return;
  armed_[worker] = next;
  at(std::max(Duration(0), next - now_), [this, worker] {
    armed_[worker] = pool::kNever;
    cores_[worker]->on_time(now_);
    settle(worker);
  });
}

void World::arm_pools() {
  const TimePoint next = pools_->next_deadline();
  if (next >= pools_armed_ || next == pool::kNever) return;
  pools_armed_ = next;
  at(std::max(Duration(0), next - now_), [this] {
    pools_armed_ = pool::kNever;
    if (cores_[0]->frozen()) return;
    pools_->on_time(now_, cores_[0]->actions());
    arm_pools();
    settle(0);
  });
}

void World::deliver(int from, pool::WorkerId to, core::Task task) {
  TimePoint& last = last_delivery_[{from, to}];
  last = std::max(last + Duration(1), now_ + Duration(rng_.between(1, plan_.mailbox_max.count())));
  ++under_way_;
  at(last - now_, [this, to, task = std::move(task)] {
    --under_way_;
    task(*cores_[to]);
    settle(to);
  });
}

std::shared_ptr<Link> World::connect_client() {
  const pool::WorkerId worker = next_worker_;
  next_worker_ = static_cast<pool::WorkerId>((next_worker_ + 1) % plan_.workers);
  auto link = std::make_shared<Link>(*this, worker);
  if (suspended_) {
    link->leave();
    pending_.push_back(link);
  } else {
    accept(link);
  }
  return link;
}

// Like a listener, which tells the worker: that may have stopped by then.
void World::accept(const std::shared_ptr<Link>& link) {
  ++under_way_;
  at(Duration(rng_.below(plan_.restarts > 0 ? 1'000 : 1)), [this, link] {
    --under_way_;
    const pool::WorkerId worker = link->worker();
    link->set_worker(worker);
    core::PeerAddress address;
    address.host = "127.0.0.1";
    cores_[worker]->client_accepted(std::make_unique<SimPort>(link), address);
    settle(worker);
  });
  link->leave();
}

void World::connect_server(pool::WorkerId worker, pool::ServerId server, std::optional<int> host) {
  const bool refused = host && cluster_->connect(*host) == Cluster::Connect::Refused;
  if (refused || (faults_ && rng_.chance(plan_.connect_failure))) {
    cores_[worker]->server_connect_failed(server, "connect failed", "refused");
  } else {
    auto link = std::make_shared<Link>(*this, worker);
    backends_.push_back(std::make_unique<Backend>(*this, link, host));
    core::PeerAddress address;
    address.host = "127.0.0.1";
    cores_[worker]->server_connected(server, std::make_unique<SimPort>(link), address);
  }
  settle(worker);
}

void World::connect_cancel(pool::WorkerId worker, std::uint64_t token, std::optional<int> host) {
  if (host && cluster_->connect(*host) == Cluster::Connect::Refused) {
    cores_[worker]->cancel_connect_failed(token, "connect failed", "refused");
  } else {
    auto link = std::make_shared<Link>(*this, worker);
    backends_.push_back(std::make_unique<Backend>(*this, link, host));
    cores_[worker]->cancel_connected(token, std::make_unique<SimPort>(link));
  }
  settle(worker);
}

std::shared_ptr<const router::HostTable> World::known_hosts(pool::WorkerId worker) const {
  return cores_[worker]->host_table(cluster_->prober().group());
}

// ---- the operator ----

void World::operate(int times) {
  at(Duration(rng_.between(1, 200'000)), [this, times] {
    if (times == 0) return resume_everything();
    operator_step();
    operate(times - 1);
  });
}

void World::operator_step() {
  if (suspended_) return;  // refused then, as what would close a connection
  const std::string& database = names_[rng_.below(names_.size())];
  const auto worker = static_cast<pool::WorkerId>(rng_.below(plan_.workers));
  if (plan_.kills && extra_rng_.chance(20)) return kill_somebody(worker);
  pool::Actions& actions = cores_[worker]->actions();
  switch (rng_.below(5)) {
    case 0:
      trace(fmt::format("PAUSE {}", database));
      (void)pools_->pause(database, now_, actions);
      break;
    case 1:
      trace("PAUSE");
      (void)pools_->pause_all(now_, actions);
      break;
    case 2:
      trace(fmt::format("RECONNECT {}", database));
      pools_->reconnect(database, now_, actions);
      break;
    default:
      return resume_everything();
  }
  arm_pools();
  settle(worker);
}

// As the console does it: the first is told by the pools, the second by its worker.
void World::kill_somebody(pool::WorkerId worker) {
  core::WorkerCore& core = *cores_[worker];
  if (extra_rng_.chance(30)) {
    const std::string& database = names_[extra_rng_.below(names_.size())];
    trace(fmt::format("KILL {}", database));
    core::PoolLock pools(*hosts_[worker]);
    pools->kill(database, kKilled, now_, core.actions());
  } else if (!core.clients().empty()) {
    std::vector<std::uint64_t> numbers;
    for (const auto& [id, client] : core.clients()) {
      // Who has sent a cancel request takes its end for the end of the cancel.
      if (!client->cancel_request()) numbers.push_back(client->number());
    }
    if (numbers.empty()) return;
    std::sort(numbers.begin(), numbers.end());
    const std::uint64_t number = numbers[extra_rng_.below(numbers.size())];
    trace(fmt::format("KILL_CLIENT {:#x}", number));
    (void)core.kill_client(number);
  }
  arm_pools();
  settle(worker);
}

std::string World::notice() {
  std::string text;
  if (faults_ && extra_rng_.chance(plan_.notices)) protocol::append_notice(text, "NOTICE", "00000", "by the way");
  return text;
}

void World::resume_everything() {
  if (suspended_) return at(Duration(1'000), [this] { resume_everything(); });
  trace("RESUME");
  pool::Actions& actions = cores_[0]->actions();
  (void)pools_->resume_all(now_, actions);
  for (const std::string& name : names_) (void)pools_->resume(name, now_, actions);
  arm_pools();
  settle(0);
}

// ---- the cluster ----

// Of all entries that lead to this name on the servers.
std::uint32_t World::limit_of(const std::string& dbname) const {
  return limit_in_force([&](const core::Config& config) {
    int limit = 0;
    for (const auto& [name, entry] : config.databases) {
      if (effective_dbname(entry, name) != dbname) continue;
      const int of_pool =
          effective_pool_size(config, entry, "user") + effective_reserve_pool_size(config, entry, "user");
      const int of_database = effective_max_db_connections(config, entry);
      limit += of_database > 0 ? std::min(of_database, of_pool) : of_pool;
    }
    return static_cast<std::uint32_t>(limit);
  });
}

// What was asked for before a reload may take a while to be there.
std::uint32_t World::limit_in_force(const std::function<std::uint32_t(const core::Config&)>& limit) const {
  std::uint32_t most = limit(*settings_->config);
  for (const auto& [until, settings] : settings_before_) {
    if (now_ - until < kReloadTakes) most = std::max(most, limit(*settings->config));
  }
  return most;
}

void World::backend_started(Backend& backend, std::uint32_t pid) {
  by_pid_[pid] = &backend;
  std::uint32_t count = ++open_[backend.counted_as()];
  const std::uint32_t all = ++open_[""];
  if (cluster_) {
    // A host that stands still does not notice that the proxy has gone.
    count = static_cast<std::uint32_t>(std::count_if(by_pid_.begin(), by_pid_.end(), [&](const auto& one) {
      return one.second->counted_as() == backend.counted_as() && !one.second->link_->closed_by_proxy();
    }));
  }
  if (count > limit_of(backend.database())) {
    fail(fmt::format("{} connections to {}, {} allowed", count, backend.counted_as(), limit_of(backend.database())));
  }
  const std::uint32_t user_limit = limit_in_force([](const core::Config& config) {
    const auto limit = effective_max_user_connections(config, "user");
    return limit > 0 ? static_cast<std::uint32_t>(limit) : std::numeric_limits<std::uint32_t>::max();
  });
  if (all > user_limit) {
    fail(fmt::format("{} connections of the user, {} allowed", all, user_limit));
  }
}

void World::backend_ended(std::uint32_t pid) {
  const auto it = by_pid_.find(pid);
  if (it == by_pid_.end()) return;
  --open_[it->second->counted_as()];
  --open_[""];
  by_pid_.erase(it);
}

void World::backend_used(const std::string& owner, std::uint32_t pid) {
  if (used_backend_.emplace(owner, pid).first->second != pid) fail(owner + " is served by two servers");
}

Backend* World::find_backend(std::uint32_t pid, std::uint32_t secret) {
  const auto it = by_pid_.find(pid);
  return it == by_pid_.end() || it->second->secret_ != secret ? nullptr : it->second;
}

// ---- looking on ----

void World::trace(const std::string& line) {
  std::string text = fmt::format("{:>12} {}", now_.time_since_epoch().count(), line);
  if (trace_) std::puts(text.c_str());
  tail_.push_back(std::move(text));
  if (tail_.size() > 200) tail_.pop_front();
}

void World::print_tail() const {
  for (const std::string& line : tail_) std::fprintf(stderr, "%s\n", line.c_str());
}

void World::print_sessions() const {
  for (const auto& core : cores_) {
    for (const auto& [id, client] : core->clients()) {
      fmt::print(stderr, "{}state {} waiting {} server {} unread {} unsent {}\n", client->log_name(),
                 static_cast<int>(client->state()), client->waiting(),
                 client->server() == nullptr ? "-" : client->server()->log_name(), client->unread_size(),
                 client->has_unsent());
    }
    for (const auto& [id, server] : core->servers()) {
      fmt::print(stderr, "{}logged in {} linked {} status {} replies owed {} ending {} unread {} unsent {}\n",
                 server->log_name(), server->logged_in(), server->client() != nullptr, server->transaction_status(),
                 !server->ledger().idle(), server->ending(), server->unread_size(), server->has_unsent());
    }
  }
}

void World::check() {
  pools_->check_invariants(now_);
  for (const auto& core : cores_) {
    for (const auto& [id, server] : core->servers()) {
      const bool idle = server->logged_in() && server->client() == nullptr && !server->testing() && !server->closed() &&
                        !server->ending();
      if (idle && (!server->ledger().idle() || server->transaction_status() != 'I')) {
        fail("a server is idle that owes replies or is in a transaction");
      }
      if (idle && server->replication() != core::Replication::None) fail("a server for replication is idle");
      const core::ClientSession* client = server->client();
      if (client != nullptr && client->state() == core::ClientSession::State::Ready &&
          client->replication() != server->replication()) {
        fail("client and server are not of one kind");
      }
    }
  }
}

void World::check_end() {
  for (const auto& core : cores_) {
    for (const auto& [id, client] : core->clients()) {
      trace(fmt::format("left: {} state {}", client->log_name(), static_cast<int>(client->state())));
    }
  }
  const pool::Totals totals = pools_->totals();
  if (totals.clients != 0 || totals.waiting_clients != 0 || totals.cancels != 0) {
    fail(fmt::format("at the end: {} clients, {} waiting, {} cancels in the pools", totals.clients,
                     totals.waiting_clients, totals.cancels));
  }
  std::size_t sessions = 0;
  for (const auto& core : cores_) {
    core->end_batch();
    if (!core->clients().empty()) fail("at the end: client sessions are left");
    if (core->statement_table().size() != 0) fail("at the end: prepared statements are left in the table");
    sessions += core->servers().size();
  }
  if (sessions != totals.servers) {
    fail(fmt::format("at the end: {} server sessions, {} permits", sessions, totals.servers));
  }
  for (const auto& [pid, backend] : by_pid_) {
    if (!backend->owner().empty()) fail("at the end: a server for replication is left of " + backend->owner());
  }
  const bool forgets = plan_.settings->config->pool_idle_timeout > Duration::zero() && sessions == 0;
  for (const auto& core : cores_) {
    if (forgets && !core->contexts().empty()) fail("at the end: a worker has not forgotten a pool");
  }
  if (forgets && totals.pools != 0) fail(fmt::format("at the end: {} pools are not forgotten", totals.pools));
  if (totals.servers != open_[""]) {
    fail(fmt::format("at the end: {} permits, {} backends", totals.servers, open_[""]));
  }
}

}  // namespace pgweir::sim
