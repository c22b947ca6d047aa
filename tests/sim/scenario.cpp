#include "tests/sim/scenario.hpp"

#include <fmt/format.h>

namespace pgweir::sim {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

template <class T>
T whole(Random& random, std::uint64_t low, std::uint64_t high) {
  return static_cast<T>(random.between(low, high));
}

Duration time_between(Random& random, std::uint64_t low_ms, std::uint64_t high_ms) {
  return milliseconds(static_cast<std::int64_t>(random.between(low_ms, high_ms)));
}

core::PoolMode draw_mode(Random& random) {
  if (random.chance(0.7)) return core::PoolMode::Transaction;
  return random.chance(0.6) ? core::PoolMode::Session : core::PoolMode::Statement;
}

void draw_databases(core::Config& config, Random& random) {
  const auto count = random.between(1, 3);
  for (std::uint64_t i = 0; i < count; ++i) {
    core::DatabaseConfig entry;
    entry.name = fmt::format("db{}", i);
    entry.hosts = {{"127.0.0.1", 5432}};
    entry.pool_mode = draw_mode(random);
    entry.pool_size = whole<int>(random, 1, 5);
    if (random.chance(0.3)) entry.reserve_pool_size = whole<int>(random, 1, 3);
    if (random.chance(0.3)) entry.max_db_connections = whole<int>(random, 1, 5);
    if (random.chance(0.2)) entry.min_pool_size = whole<int>(random, 1, 3);
    if (random.chance(0.15)) entry.user = "owner";
    if (random.chance(0.1)) entry.connect_query = "ECHO connect";
    config.databases.emplace(entry.name, entry);
  }
}

void draw_config(core::Config& config, Random& random, Scenario& scenario, bool simple) {
  config.auth_type = core::AuthType::Trust;
  config.server_tls_sslmode = random.chance(0.3) ? core::SslMode::Prefer : core::SslMode::Disable;
  config.max_client_conn = 1000;
  config.max_prepared_statements = whole<int>(random, 0, 4);
  config.max_pool_logins = whole<int>(random, 1, 4);
  config.reserve_pool_timeout = time_between(random, 1, 500);
  config.server_round_robin = random.chance(0.5);
  config.server_reset_query_always = random.chance(0.2);
  config.server_login_retry = time_between(random, 10, 2000);
  config.query_wait_notify = random.chance(0.3) ? time_between(random, 1, 500) : Duration(0);
  config.query_wait_timeout = seconds(0);
  config.client_login_timeout = seconds(0);
  if (random.chance(0.4)) config.server_lifetime = time_between(random, 0, 2000);
  if (random.chance(0.4)) config.server_idle_timeout = time_between(random, 1, 500);
  if (random.chance(0.4)) config.server_check_delay = time_between(random, 0, 50);
  if (random.chance(0.3)) config.server_check_query = random.chance(0.5) ? "SLEEP check" : "ECHO check";
  if (random.chance(0.3)) config.max_user_connections = whole<int>(random, 1, 6);
  if (random.chance(0.2)) config.native_sqlstate = true;
  if (simple || random.chance(0.7)) return;
  scenario.timeouts = true;
  if (random.chance(0.5)) config.query_wait_timeout = time_between(random, 50, 3000);
  if (random.chance(0.3)) config.query_timeout = time_between(random, 50, 1000);
  if (random.chance(0.3)) config.transaction_timeout = time_between(random, 50, 2000);
  if (random.chance(0.3)) config.idle_transaction_timeout = time_between(random, 20, 500);
  if (random.chance(0.3)) config.client_idle_timeout = time_between(random, 20, 500);
  if (random.chance(0.2)) config.client_login_timeout = time_between(random, 200, 3000);
  if (random.chance(0.2)) config.cancel_wait_timeout = time_between(random, 1, 20);
}

LinkTraits draw_link(Random& random, bool simple) {
  LinkTraits traits;
  if (simple) return traits;
  if (random.chance(0.5)) traits.capacity = random.chance(0.5) ? random.between(16, 200) : random.between(200, 65536);
  traits.latency = Duration(static_cast<std::int64_t>(random.between(10, 3000)));
  if (random.chance(0.2)) traits.stall = 0.002;
  return traits;
}

void draw_faults(PostgresTraits& traits, Random& random) {
  if (random.chance(0.5)) traits.refuse = 0.05 * static_cast<double>(random.between(1, 6));
  if (random.chance(0.5)) traits.login_failure = 0.05 * static_cast<double>(random.between(1, 6));
  if (random.chance(0.5)) traits.death = 0.002 * static_cast<double>(random.between(1, 10));
  if (random.chance(0.5)) traits.shutdown = 0.002 * static_cast<double>(random.between(1, 10));
  if (random.chance(0.3)) traits.connections_max = random.between(2, 10);
}

}  // namespace

Scenario draw_scenario(std::uint64_t seed, bool simple) {
  Random random(seed ^ 0x5ca1ab1e);
  Scenario scenario;
  auto config = std::make_shared<core::Config>();
  draw_databases(*config, random);
  draw_config(*config, random, scenario, simple);
  auto settings = std::make_shared<core::Settings>();
  auto users = std::make_shared<std::map<std::string, std::string, std::less<>>>();
  for (const char* user : {"anna", "berta", "owner"}) (*users)[user] = "secret";
  settings->users = users;
  settings->tracked = std::make_shared<const protocol::TrackedNames>(std::vector<std::string>{"IntervalStyle"});
  settings->config = config;
  scenario.settings = settings;
  scenario.workers = simple ? pool::WorkerId{1} : whole<pool::WorkerId>(random, 1, 3);
  if (random.chance(0.3)) scenario.fifo_slack = Duration(0);
  scenario.mailbox = Duration(static_cast<std::int64_t>(random.between(1, 2000)));
  if (!simple && random.chance(0.4)) scenario.read_max = random.between(1, 100);
  scenario.client_link = draw_link(random, simple);
  scenario.server_link = draw_link(random, simple);
  scenario.postgres.sleep = time_between(random, 1, 200);
  scenario.postgres.work = Duration(static_cast<std::int64_t>(random.between(10, 1000)));
  scenario.postgres.slow_settings = !simple && random.chance(0.3);
  scenario.faults = !simple && random.chance(0.4);
  if (scenario.faults) draw_faults(scenario.postgres, random);
  const auto count = random.between(1, 12);
  for (std::uint64_t i = 0; i < count; ++i) {
    ClientTraits client;
    for (const auto& [name, entry] : config->databases) {
      client.identities.emplace_back(name, "anna");
      client.identities.emplace_back(name, "berta");
    }
    client.sessions = whole<int>(random, 1, 3);
    client.bursts = whole<int>(random, 3, 25);
    client.think = Duration(static_cast<std::int64_t>(random.between(100, 50'000)));
    if (!simple && random.chance(0.4)) client.abrupt = 0.04;
    if (!simple && random.chance(0.2)) client.slow = 0.05;
    client.dies = scenario.faults && random.chance(0.3);
    scenario.clients.push_back(std::move(client));
  }
  return scenario;
}

std::string describe(const Scenario& scenario) {
  const core::Config& config = *scenario.settings->config;
  std::string text = fmt::format(
      "workers {} slack {} mailbox {} read {} faults {} timeouts {} prepared {} reset_always {} check_delay {} lifetime {} "
      "idle {} clients {} capacity {}/{}",
      scenario.workers, scenario.fifo_slack.count(), scenario.mailbox.count(), scenario.read_max, scenario.faults,
      scenario.timeouts, config.max_prepared_statements, config.server_reset_query_always,
      config.server_check_delay.count(), config.server_lifetime.count(), config.server_idle_timeout.count(),
      scenario.clients.size(), scenario.client_link.capacity, scenario.server_link.capacity);
  for (const auto& [name, entry] : config.databases) {
    text += fmt::format(" [{} {} size {} reserve {} max {}{}]", name, core::to_string(*entry.pool_mode), *entry.pool_size,
                        entry.reserve_pool_size.value_or(0), entry.max_db_connections.value_or(0),
                        entry.user ? " forced" : "");
  }
  return text;
}

}  // namespace pgweir::sim
