// The simulator's program.
//
//   sim [--cluster | --schema] [--seeds=N] [--start=N] [--fresh=N] [--seed=N] [--trace] [--mutate=N] [--seconds=N]
//
// With --cluster, the databases are spread over primary and standbys (cluster_plan.cpp); without, there is one server.
// With --schema, its tables change under the clients (shape_client.cpp).
// Runs seeds start … start+seeds-1 and `fresh` random ones, whose numbers it prints. On a failure it prints the seed,
// what the checker saw and the last events, and exits with 1; `--seed=N --trace` replays it. With --mutate=N (program
// sim_mutants) a bug is planted, and the exit code is 0 only if some seed finds it.
#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>

#include "pool/mutation.hpp"
#include "tests/sim/client.hpp"
#include "tests/sim/cluster_plan.hpp"
#include "tests/sim/shape_client.hpp"
#include "tests/sim/world.hpp"

#ifdef PGWEIR_MUTATION
int pgweir_mutation = 0;
#endif

namespace {

using namespace pgweir;
using sim::Client;
using sim::ClientPlan;
using sim::Plan;
using sim::Rng;
using sim::ShapeClient;
using sim::ShapePlan;
using sim::World;

// A client that waited longer than this is stuck. Where a connection delivers a few bytes at a time, all that the
// clients in front of it may ask for takes its time.
pool::Duration stuck_after(const Plan& plan) {
  constexpr std::size_t bytes_ahead = 1'000'000;
  const std::size_t deliveries = bytes_ahead / std::min(plan.read_max, plan.pipe_max);
  return std::chrono::seconds(900) + plan.network_max * static_cast<std::int64_t>(deliveries);
}

struct Drawn {
  Plan plan;
  std::vector<ClientPlan> clients;
};

core::DatabaseConfig database(const std::string& name, Rng& rng, core::PoolMode mode) {
  core::DatabaseConfig entry;
  entry.name = name;
  entry.hosts = {{"127.0.0.1", 5432}};
  entry.pool_mode = mode;
  entry.pool_size = static_cast<int>(rng.between(1, 4));
  if (rng.chance(30)) entry.reserve_pool_size = static_cast<int>(rng.between(1, 2));
  return entry;
}

Drawn draw(std::uint64_t seed) {
  Rng rng(seed);
  Drawn drawn;
  auto config = std::make_shared<core::Config>();
  config->auth_type = core::AuthType::Trust;
  config->server_tls_sslmode = rng.chance(30) ? core::SslMode::Prefer : core::SslMode::Disable;
  config->max_prepared_statements = rng.chance(15) ? 0 : static_cast<int>(rng.between(1, 5));
  config->reserve_pool_timeout = std::chrono::milliseconds(rng.between(1, 200));
  config->server_lifetime = rng.chance(30) ? std::chrono::milliseconds(rng.between(50, 2000)) : std::chrono::hours(1);
  config->server_idle_timeout =
      rng.chance(30) ? std::chrono::milliseconds(rng.between(50, 500)) : std::chrono::hours(1);
  config->server_check_delay = rng.chance(30) ? std::chrono::milliseconds(0) : std::chrono::seconds(30);
  config->server_login_retry = std::chrono::milliseconds(rng.between(10, 1000));
  config->server_reset_query_always = rng.chance(20);
  config->server_round_robin = rng.chance(50);
  config->max_pool_logins = static_cast<int>(rng.between(1, 4));
  config->query_wait_notify = std::chrono::seconds(rng.chance(30) ? 1 : 0);
  if (rng.chance(20)) config->max_user_connections = static_cast<int>(rng.between(3, 6));
  const bool limits = rng.chance(20);
  config->query_wait_timeout = limits ? std::chrono::seconds(rng.between(1, 5)) : std::chrono::seconds(0);
  config->client_login_timeout = std::chrono::seconds(limits ? 60 : 0);
  if (limits) config->idle_transaction_timeout = std::chrono::milliseconds(rng.between(100, 5000));
  if (limits) config->query_timeout = std::chrono::seconds(rng.between(1, 10));
  const bool statement_mode = rng.chance(25);
  config->databases["tx"] = database("tx", rng, core::PoolMode::Transaction);
  config->databases["se"] = database("se", rng, core::PoolMode::Session);
  config->databases["st"] = database("st", rng, core::PoolMode::Statement);
  drawn.plan.workers = static_cast<pool::WorkerId>(rng.between(1, 3));
  drawn.plan.fifo_slack = pool::Duration(rng.chance(30) ? 0 : 1000);
  drawn.plan.pipe_max = static_cast<std::size_t>(rng.chance(30) ? 16 + rng.below(100) : 1000 + rng.below(64000));
  drawn.plan.read_max = static_cast<std::size_t>(rng.chance(30) ? 1 + rng.below(40) : 65536);
  drawn.plan.network_max = pool::Duration(rng.between(2, 2000));
  drawn.plan.mailbox_max = pool::Duration(rng.between(2, 1000));
  if (rng.chance(40)) {
    drawn.plan.connect_failure = static_cast<unsigned>(rng.below(30));
    drawn.plan.backend_death = static_cast<unsigned>(rng.below(20));
  }
  drawn.plan.operations = rng.chance(20) ? static_cast<int>(rng.between(1, 100)) : 0;
  const bool sleepy = rng.chance(25);
  if (sleepy) drawn.plan.network_max = pool::Duration(rng.between(2, 30'000));
  Rng kinds(seed ^ 0x7265706cULL);  // of its own, so that the other choices of a seed stay what they were
  const unsigned replicating = kinds.chance(35) ? 40 : 0;
  const std::int64_t count = rng.between(2, sim::kClientsMax);
  for (std::int64_t i = 0; i < count; ++i) {
    ClientPlan client;
    const std::string_view where = rng.chance(70) ? "tx" : statement_mode ? "st" : "se";
    client.database = std::string(where);
    client.transactions = client.database != "st";
    client.prepared = client.database == "se" || config->max_prepared_statements > 0;
    client.limits = limits;
    client.sleepy = sleepy;
    client.requests = static_cast<int>(rng.between(5, 40));
    client.abrupt = rng.chance(50) ? 3 : 0;
    client.replicates = kinds.chance(replicating);
    if (client.replicates) client.transactions = client.prepared = true;
    drawn.clients.push_back(client);
  }
  // Drawn last, so that what was drawn before stays as it was when these came.
  if (rng.chance(30)) config->pool_idle_timeout = std::chrono::milliseconds(rng.between(1, 100));
  config->server_fast_close = rng.chance(50);
  sim::draw_leases(drawn.plan, *config, seed);
  sim::draw_operator(drawn.plan, *config, seed);
  drawn.plan.restarts = kinds.chance(35) ? static_cast<int>(kinds.between(1, 6)) : 0;
  drawn.plan.scram = kinds.chance(30);
  if (drawn.plan.scram) {
    config->auth_type = core::AuthType::ScramSha256;
    for (auto& [name, entry] : config->databases) entry.user = "user";
  }
  drawn.plan.settings = sim::settings_of(config);
  return drawn;
}

// Throws sim::Failed.
template <class Client>
void run_clients(World& world, const std::vector<std::unique_ptr<Client>>& clients) {
  const Plan& plan = world.plan();
  for (const auto& client : clients) client->start();
  world.operate(plan.operations);
  world.reload(plan.reloads);
  world.restart(plan.restarts);
  std::uint64_t events = 0;
  const pool::Duration stuck = stuck_after(plan);
  const auto all_done = [&] {
    return std::all_of(clients.begin(), clients.end(), [](const auto& client) { return client->done(); });
  };
  while (!all_done()) {
    if (!world.run_one()) {
      const auto waits =
          std::find_if(clients.begin(), clients.end(), [](const auto& client) { return !client->done(); });
      world.fail("nothing is left to happen, but this one waits: " + (*waits)->describe());
    }
    if (++events % 16 == 0) world.check();
    if (events % 1024 != 0) continue;
    for (const auto& client : clients) {
      if (!client->done() && world.now() - client->waiting_since() > stuck) {
        world.fail(client->describe() + ": waits for ever");
      }
    }
  }
  world.stop_faults();
  const pool::TimePoint end = world.now() + std::chrono::seconds(60);
  while (world.now() < end && world.run_one()) world.check();
  world.check_end();
}

void run_world(World& world, const Drawn& drawn) {
  std::vector<std::unique_ptr<Client>> clients;
  int number = 0;
  for (const ClientPlan& plan : drawn.clients) clients.push_back(std::make_unique<Client>(world, ++number, plan));
  run_clients(world, clients);
}

Drawn draw_schema(std::uint64_t seed) {
  Drawn drawn = draw(seed);
  auto config = std::make_shared<core::Config>(*drawn.plan.settings->config);
  config->auth_type = core::AuthType::Trust;
  config->max_prepared_statements = std::max(config->max_prepared_statements, 1);
  drawn.plan.scram = false;
  drawn.plan.schema = true;
  drawn.plan.settings = sim::settings_of(config);
  return drawn;
}

void run_schema(World& world, const Drawn& drawn) {
  ShapePlan plan;
  plan.may_end = world.disturbed() || world.plan().kills || world.plan().reloads > 0 || drawn.clients.front().limits;
  std::vector<std::unique_ptr<ShapeClient>> clients;
  const int count = static_cast<int>(drawn.clients.size());
  for (int i = 0; i < count; ++i) clients.push_back(std::make_unique<ShapeClient>(world, i + 1, plan));
  run_clients(world, clients);
}

std::uint64_t running_seed = 0;
int mutation = 0;
bool with_cluster = false, with_schema = false;
sim::HistoryCounts all_counts;

const char* replay_options() {
  return with_cluster ? "--cluster " : with_schema ? "--schema " : "";
}

// A broken invariant of the pools aborts, and a bug may make us touch what is not there. For a planted bug that is as
// good a find as any other.
void on_abort(int) {
  if (mutation != 0) {
    std::printf("mutation %d found by seed %llu (invariant)\n", mutation,
                static_cast<unsigned long long>(running_seed));
    std::fflush(stdout);
    std::_Exit(0);
  }
  std::fprintf(stderr, "an invariant is broken\nreplay: sim %s--seed=%llu --trace\n", replay_options(),
               static_cast<unsigned long long>(running_seed));
  std::_Exit(1);
}

// `run` throws sim::Failed.
bool run_plan(std::uint64_t seed, const Plan& plan, bool trace, bool report, const std::function<void(World&)>& run) {
  World world(seed, plan);
  world.set_trace(trace);
  try {
    run(world);
    if (world.cluster() != nullptr) all_counts.add(world.cluster()->history().counts);
    return true;
  } catch (const sim::Failed& failure) {
    if (report) {
      world.print_tail();
      world.print_sessions();
      fmt::print(stderr, "seed {}: {}\nreplay: sim {}--seed={} --trace\n", seed, failure.what, replay_options(), seed);
    }
    return false;
  }
}

bool run_seed(std::uint64_t seed, bool trace, bool report) {
  running_seed = seed;
  if (with_cluster) {
    const sim::ClusterDrawn drawn = sim::draw_cluster(seed);
    return run_plan(seed, drawn.plan, trace, report, [&](World& world) { sim::run_cluster(world, drawn); });
  }
  if (with_schema) {
    const Drawn drawn = draw_schema(seed);
    return run_plan(seed, drawn.plan, trace, report, [&](World& world) { run_schema(world, drawn); });
  }
  const Drawn drawn = draw(seed);
  return run_plan(seed, drawn.plan, trace, report, [&](World& world) { run_world(world, drawn); });
}

struct Options {
  std::uint64_t start = 1, seeds = 300, fresh = 20;
  std::uint64_t only = 0;
  int seconds = 0;
  int mutate = 0;
  bool trace = false;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const auto value = [&](const char* name) -> const char* {
      const std::size_t length = std::strlen(name);
      return std::strncmp(argv[i], name, length) == 0 ? argv[i] + length : nullptr;
    };
    if (const char* v = value("--seeds=")) {
      options.seeds = std::strtoull(v, nullptr, 10);
    } else if (const char* v1 = value("--start=")) {
      options.start = std::strtoull(v1, nullptr, 10);
    } else if (const char* v2 = value("--fresh=")) {
      options.fresh = std::strtoull(v2, nullptr, 10);
    } else if (const char* v3 = value("--seed=")) {
      options.only = std::strtoull(v3, nullptr, 10);
    } else if (const char* v4 = value("--seconds=")) {
      options.seconds = std::atoi(v4);
    } else if (const char* v5 = value("--mutate=")) {
      options.mutate = std::atoi(v5);
    } else if (std::strcmp(argv[i], "--trace") == 0) {
      options.trace = true;
    } else if (std::strcmp(argv[i], "--cluster") == 0) {
      with_cluster = true;
    } else if (std::strcmp(argv[i], "--schema") == 0) {
      with_schema = true;
    } else {
      fmt::print(stderr, "sim: unknown option {}\n", argv[i]);
      std::exit(2);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  mutation = options.mutate;
  std::signal(SIGABRT, on_abort);
#ifndef __SANITIZE_ADDRESS__  // which says more about it
  std::signal(SIGSEGV, on_abort);
#endif
  std::signal(SIGILL, on_abort);
  std::signal(SIGTRAP, on_abort);
#ifdef PGWEIR_MUTATION
  pgweir_mutation = options.mutate;
#endif
  if (options.only != 0) return run_seed(options.only, options.trace, true) ? 0 : 1;
  const auto began = std::chrono::steady_clock::now();
  const auto out_of_time = [&] {
    return options.seconds > 0 && std::chrono::steady_clock::now() - began > std::chrono::seconds(options.seconds);
  };
  std::uint64_t passed = 0;
  for (std::uint64_t seed = options.start; seed < options.start + options.seeds && !out_of_time(); ++seed) {
    if (!run_seed(seed, options.trace, options.mutate == 0)) {
      if (options.mutate == 0) return 1;
      fmt::print("mutation {} found by seed {}\n", options.mutate, seed);
      return 0;
    }
    ++passed;
  }
  if (options.mutate != 0) {
    fmt::print(stderr, "mutation {} survived {} seeds\n", options.mutate, passed);
    return 1;
  }
  std::random_device device;
  for (std::uint64_t i = 0; i < options.fresh && !out_of_time(); ++i) {
    const std::uint64_t seed = (std::uint64_t{device()} << 20) ^ device();
    fmt::print("fresh seed {}\n", seed);
    std::fflush(stdout);
    if (!run_seed(seed, options.trace, true)) return 1;
    ++passed;
  }
  fmt::print("{} seeds passed\n", passed);
  if (with_cluster) fmt::print("{}\n", all_counts.text());
  return 0;
}
