// Everything a seed decides before the run begins: the pooler's configuration, how bad network and servers are, and who
// the clients are.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "proxy/core/pool_context.hpp"
#include "tests/sim/link.hpp"
#include "tests/sim/postgres.hpp"

namespace pgweir::sim {

struct ClientTraits {
  std::vector<std::pair<std::string, std::string>> identities;  ///< database and user to choose from
  int sessions = 2;             ///< connections it makes
  int bursts = 12;              ///< requests per connection, about
  double abrupt = 0;            ///< chance per request that it vanishes
  double slow = 0;              ///< chance that it reads late
  bool dies = false;            ///< sends statements that kill the server
  Duration think{20'000};
};

struct Scenario {
  std::shared_ptr<const core::Settings> settings;
  pool::WorkerId workers = 1;
  Duration fifo_slack{1'000};
  Duration mailbox{200};     ///< longest delay of a message between workers
  std::size_t read_max = 65536;
  bool faults = false;       ///< servers may fail, so that some errors are legitimate
  bool timeouts = false;     ///< some limit of time is short enough to be met
  LinkTraits client_link, server_link;
  PostgresTraits postgres;
  std::vector<ClientTraits> clients;
};

/// `simple`: no faults and no limits, for finding out whether anything works at all.
[[nodiscard]] Scenario draw_scenario(std::uint64_t seed, bool simple);
[[nodiscard]] std::string describe(const Scenario& scenario);

}  // namespace pgweir::sim
