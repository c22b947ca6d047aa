// What the seed decides about a world whose databases are spread over the hosts of a cluster, and how it runs.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/sim/register_client.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

struct ClusterDrawn {
  Plan plan;
  std::vector<RegisterPlan> clients;
};

/// Of a world without a cluster.
inline constexpr int kClientsMax = 12;
/// Of both kinds of worlds: the configuration, who may log in, and what is tracked. With auth_type scram-sha-256 each
/// client is a user of its own (user1, user2, …) and has a password.
[[nodiscard]] std::shared_ptr<const core::Settings> settings_of(std::shared_ptr<core::Config> config);

/// Of both kinds of worlds: whether workers often have so much to do that they hand servers on by themselves.
void draw_leases(Plan& plan, core::Config& config, std::uint64_t seed);
/// Reloads, KILL and what servers say without being asked.
void draw_operator(Plan& plan, core::Config& config, std::uint64_t seed);

[[nodiscard]] ClusterDrawn draw_cluster(std::uint64_t seed);

/// Until all clients are done and everything has settled. Throws Failed.
void run_cluster(World& world, const ClusterDrawn& drawn);

}  // namespace pgweir::sim
