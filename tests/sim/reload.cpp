// Reloads in the simulated world: limits and timeouts change while everything goes on. As the process does it, every
// worker hears of the new settings in its own time, and the pools when all have.
#include <fmt/format.h>

#include <memory>
#include <utility>

#include "proxy/core/pool_context.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

// What a client's plan or a checker rests on stays as it is.
void change(core::Config& config, Rng& rng) {
  for (auto& [name, entry] : config.databases) {
    if (rng.chance(50)) entry.pool_size = static_cast<int>(rng.between(1, 4));
    if (rng.chance(30)) entry.reserve_pool_size = static_cast<int>(rng.between(0, 2));
    if (rng.chance(20)) entry.max_db_connections = static_cast<int>(rng.between(0, 3));
    // Those of a forced user would be opened for ever, and at the end there is to be silence.
    if (!entry.user && rng.chance(20)) entry.min_pool_size = static_cast<int>(rng.between(0, 2));
  }
  if (rng.chance(30)) config.max_user_connections = rng.chance(50) ? 0 : static_cast<int>(rng.between(3, 6));
  if (rng.chance(30)) config.server_round_robin = !config.server_round_robin;
  if (rng.chance(30)) config.server_reset_query_always = !config.server_reset_query_always;
  if (rng.chance(30)) config.max_pool_logins = static_cast<int>(rng.between(1, 4));
  if (rng.chance(30)) config.server_check_delay = rng.chance(50) ? seconds(0) : seconds(30);
  if (rng.chance(30)) {
    config.server_lifetime = rng.chance(20) ? milliseconds(0) : milliseconds(rng.between(50, 2'000));
  } else if (rng.chance(30)) {
    config.server_lifetime = hours(1);
  }
  if (config.max_prepared_statements > 0 && rng.chance(50)) {
    config.max_prepared_statements = static_cast<int>(rng.between(1, 5));
  }
}

}  // namespace

void World::reload(int times) {
  if (times == 0) return;
  at(Duration(extra_rng_.between(1, 300'000)), [this, times] {
    if (!suspended_) reload_step();
    reload(times - 1);
  });
}

void World::reload_step() {
  trace("RELOAD");
  auto config = std::make_shared<core::Config>(*settings_->config);
  change(*config, extra_rng_);
  auto settings = std::make_shared<core::Settings>(*settings_);
  settings->config = std::move(config);
  const std::shared_ptr<const core::Settings> before = std::exchange(settings_, settings);
  settings_before_.emplace_back(now_, before);
  auto left = std::make_shared<unsigned>(plan_.workers);
  for (pool::WorkerId id = 0; id < plan_.workers; ++id) {
    tell(id, [this, left, before, settings](core::WorkerCore& there) {
      there.set_settings(settings);
      if (--*left > 0) return;
      tell(0, [this, before, settings](core::WorkerCore& first) {
        core::PoolLock pools(*hosts_[0]);
        (void)core::apply_to_pools(*pools, *before->config, *settings->config, now_, first.actions());
      });
    });
  }
}

}  // namespace pgweir::sim
