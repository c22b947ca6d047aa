#include "tests/sim/cluster_plan.hpp"

#include <algorithm>

namespace pgweir::sim {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

core::DatabaseConfig database(const std::string& name, Rng& rng, int hosts) {
  core::DatabaseConfig entry;
  entry.name = name;
  for (int i = 0; i < hosts; ++i) entry.hosts.push_back({"127.0.0.1", kFirstPort + i});
  entry.pool_mode = core::PoolMode::Transaction;
  entry.pool_size = static_cast<int>(rng.between(1, 4));
  if (rng.chance(30)) entry.reserve_pool_size = static_cast<int>(rng.between(1, 2));
  return entry;
}

ClusterPlan draw_hosts(Rng& rng) {
  ClusterPlan plan;
  plan.hosts = rng.chance(60) ? 2 : 3;
  plan.synchronous = rng.chance(70);
  plan.ship_max = rng.between(10, 20'000);
  plan.replay_max = rng.chance(50) ? rng.between(10, 2'000) : rng.between(10, 200'000);
  plan.conflicts = rng.chance(40) ? static_cast<unsigned>(rng.between(1, 100)) : 0;
  plan.probe_loss = rng.chance(40) ? static_cast<unsigned>(rng.between(1, 20)) : 0;
  plan.probe_max = rng.between(10, 20'000);
  plan.incidents = rng.chance(15) ? 0 : static_cast<int>(rng.between(1, 8));
  plan.calm_max = rng.between(10'000, 500'000);
  plan.incident_max = rng.chance(70) ? rng.between(50'000, 1'000'000) : rng.between(1'000'000, 10'000'000);
  return plan;
}

void draw_settings(core::Config& config, Rng& rng) {
  config.auth_type = core::AuthType::Trust;
  config.admin_users = {"admin", {"admin"}};
  config.server_tls_sslmode = core::SslMode::Disable;
  config.max_prepared_statements = rng.chance(15) ? 0 : static_cast<int>(rng.between(1, 5));
  config.reserve_pool_timeout = milliseconds(rng.between(1, 200));
  config.server_lifetime = rng.chance(20) ? milliseconds(rng.between(50, 2000)) : seconds(3600);
  config.server_idle_timeout = rng.chance(20) ? milliseconds(rng.between(50, 500)) : seconds(3600);
  config.server_check_delay = rng.chance(30) ? seconds(0) : seconds(30);
  config.server_login_retry = milliseconds(rng.between(10, 1000));
  config.server_connect_timeout = milliseconds(rng.between(100, 2000));
  config.server_round_robin = rng.chance(50);
  config.max_pool_logins = static_cast<int>(rng.between(1, 4));
  config.query_wait_timeout = rng.chance(20) ? seconds(rng.between(1, 5)) : seconds(60);
  config.client_login_timeout = seconds(120);
  config.role_check_interval = milliseconds(rng.between(10, 500));
  config.role_check_timeout = milliseconds(rng.between(50, 1000));
  config.max_replica_lag_bytes = rng.chance(30) ? rng.between(1'000, 100'000) : 10'485'760;
  config.max_replica_lag_ms = milliseconds(rng.chance(30) ? rng.between(10, 1000) : 5000);
  config.failover_wait_timeout = rng.chance(35) ? seconds(rng.between(1, 3)) : seconds(30);
  config.retry_reads = rng.chance(85);
  const std::uint64_t mode = rng.below(5);
  config.read_your_writes = mode == 0   ? core::ReadYourWrites::Off
                            : mode <= 2 ? core::ReadYourWrites::Session
                                        : core::ReadYourWrites::Database;
}

Freshness freshness_of(const core::Config& config) {
  switch (config.read_your_writes) {
    case core::ReadYourWrites::Off:
      return Freshness::Any;
    case core::ReadYourWrites::Session:
      return Freshness::Session;
    case core::ReadYourWrites::Database:
      return Freshness::Database;
  }
  return Freshness::Any;
}

RegisterPlan draw_client(const core::Config& config, Rng& rng) {
  RegisterPlan client;
  const std::uint64_t where = rng.below(20);
  client.database = where < 13   ? "app"
                    : where < 16 ? "app_rw"
                    : where < 18 ? "app_ro"
                    : where < 19 ? "app_st"
                                 : "app_se";
  client.server_database = client.database;
  client.freshness = client.database == "app_st" ? Freshness::Any : freshness_of(config);
  client.writes = client.database != "app_ro" && client.database != "app_st";
  client.follows = !client.writes;
  client.split = client.database == "app";
  client.pinned = client.database == "app_se";
  client.prepared = client.pinned || config.max_prepared_statements > 0;
  client.retries = config.retry_reads && client.split;
  client.requests = static_cast<int>(rng.between(10, 80));
  client.abrupt = rng.chance(30) ? 3 : 0;
  client.host_wait = config.failover_wait_timeout;
  client.server_wait = config.query_wait_timeout;
  return client;
}

void draw_network(Plan& plan, Rng& rng) {
  plan.workers = static_cast<pool::WorkerId>(rng.between(1, 3));
  plan.fifo_slack = pool::Duration(rng.chance(30) ? 0 : 1000);
  plan.pipe_max = static_cast<std::size_t>(rng.chance(20) ? 16 + rng.below(100) : 1000 + rng.below(64000));
  plan.read_max = static_cast<std::size_t>(rng.chance(20) ? 1 + rng.below(40) : 65536);
  plan.network_max = pool::Duration(rng.between(2, 2000));
  plan.mailbox_max = pool::Duration(rng.between(2, 1000));
  if (!rng.chance(25)) return;
  plan.connect_failure = static_cast<unsigned>(rng.below(10));
  plan.backend_death = static_cast<unsigned>(rng.below(10));
}

}  // namespace

std::shared_ptr<const core::Settings> settings_of(std::shared_ptr<core::Config> config) {
  auto settings = std::make_shared<core::Settings>();
  auto users = std::make_shared<std::map<std::string, std::string, std::less<>>>();
  (*users)["user"] = (*users)["admin"] = "";
  if (config->auth_type == core::AuthType::ScramSha256) {
    (*users)["user"] = password_of("user");
    for (int number = 1; number <= kClientsMax; ++number) {
      const std::string user = "user" + std::to_string(number);
      (*users)[user] = password_of(user);
    }
  }
  settings->users = std::move(users);
  settings->tracked = std::make_shared<const protocol::TrackedNames>(std::vector<std::string>{"IntervalStyle"});
  settings->config = std::move(config);
  return settings;
}

void draw_leases(Plan& plan, core::Config& config, std::uint64_t seed) {
  Rng rng(seed ^ 0x6c656173ULL);
  if (!rng.chance(60)) return;
  config.server_round_robin = false;
  plan.fifo_slack = pool::Duration(50'000);
  plan.batch_max = pool::Duration(5'000);
}

void draw_operator(Plan& plan, core::Config& config, std::uint64_t seed) {
  Rng rng(seed ^ 0x6f706572ULL);
  plan.reloads = rng.chance(30) ? static_cast<int>(rng.between(1, 20)) : 0;
  plan.kills = rng.chance(30);
  plan.notices = rng.chance(30) ? static_cast<unsigned>(rng.between(1, 30)) : 0;
  if (rng.chance(5)) config.server_lifetime = seconds(0);
}

ClusterDrawn draw_cluster(std::uint64_t seed) {
  Rng rng(seed ^ 0x636c7573ULL);
  ClusterDrawn drawn;
  auto config = std::make_shared<core::Config>();
  draw_settings(*config, rng);
  drawn.plan.cluster = draw_hosts(rng);
  const int hosts = drawn.plan.cluster->hosts;
  const auto add = [&](const char* name) -> core::DatabaseConfig& {
    drawn.plan.databases.emplace_back(name);
    return config->databases[name] = database(name, rng, hosts);
  };
  add("app").read_write_split = true;
  add("app_rw").target_session_attrs =
      rng.chance(50) ? core::TargetSessionAttrs::Primary : core::TargetSessionAttrs::ReadWrite;
  add("app_ro").target_session_attrs = core::TargetSessionAttrs::PreferStandby;
  add("app_st").target_session_attrs =
      rng.chance(50) ? core::TargetSessionAttrs::Standby : core::TargetSessionAttrs::ReadOnly;
  add("app_se").read_write_split = true;
  config->databases["app_se"].pool_mode = core::PoolMode::Session;
  // Under one name on the servers, they share their writes.
  const bool one_name = rng.chance(50);
  if (one_name) {
    for (auto& [name, entry] : config->databases) entry.dbname = "data";
    drawn.plan.databases = {"data"};
  }
  draw_network(drawn.plan, rng);
  draw_leases(drawn.plan, *config, seed);
  const std::int64_t count = rng.between(2, 10);
  const int keys = static_cast<int>(rng.between(1, 6));
  for (std::int64_t i = 0; i < count; ++i) {
    drawn.clients.push_back(draw_client(*config, rng));
    drawn.clients.back().keys = keys;
    if (one_name) drawn.clients.back().server_database = "data";
  }
  if (rng.chance(20)) drawn.plan.restarts = static_cast<int>(rng.between(1, 4));
  if (rng.chance(15)) drawn.plan.operations = static_cast<int>(rng.between(1, 20));
  drawn.plan.settings = settings_of(config);
  return drawn;
}

void run_cluster(World& world, const ClusterDrawn& drawn) {
  std::vector<std::unique_ptr<RegisterClient>> clients;
  int number = 0;
  for (const RegisterPlan& plan : drawn.clients) {
    clients.push_back(std::make_unique<RegisterClient>(world, ++number, plan));
    clients.back()->start();
  }
  world.operate(drawn.plan.operations);
  world.restart(drawn.plan.restarts);
  std::uint64_t events = 0;
  const auto all_done = [&] {
    return std::all_of(clients.begin(), clients.end(), [](const auto& client) { return client->done(); });
  };
  // Beyond all waits and timeouts: every incident ends, and then there is nothing to wait for.
  const pool::TimePoint latest = world.now() + std::chrono::hours(2);
  while (!all_done()) {
    if (!world.run_one()) world.fail("nothing is left to happen, but clients wait");
    if (++events % 16 == 0) world.check();
    if (events % 1024 != 0) continue;
    for (const auto& client : clients) {
      client->check_deadline();
      if (!client->done() && world.now() > latest) world.fail(client->describe() + ": waits for ever");
    }
  }
  world.stop_faults();
  world.cluster()->end_incidents();
  const pool::TimePoint patience = world.now() + std::chrono::minutes(2);
  while (!world.cluster()->calm()) {
    if (!world.run_one() || world.now() > patience) world.fail("the incidents do not end");
  }
  const pool::TimePoint end = world.now() + std::chrono::seconds(60);
  for (events = 0; world.now() < end && world.run_one(); ++events) {
    if (events % 16 == 0) world.check();
  }
  world.check_end();
  world.cluster()->check_end();
}

}  // namespace pgweir::sim
