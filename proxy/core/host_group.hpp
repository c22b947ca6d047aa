// What the workers know of the hosts that a database is spread over: one group for all databases with the same list of
// hosts. The prober in proxy/io (in the simulator: its stand-in) fills it through WorkerCore::set_host_table and
// set_catalog; sessions ask it where a transaction may go.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pool/time.hpp"
#include "proxy/core/config.hpp"
#include "proxy/core/position_demand.hpp"
#include "router/catalog_knowledge.hpp"
#include "router/host_table.hpp"
#include "router/read_your_writes.hpp"
#include "router/router.hpp"
#include "router/statement_cache.hpp"

namespace pgweir::core {

using pool::TimePoint;

/// Whether it matters to this database which of its hosts is the primary. Only such databases are probed.
[[nodiscard]] bool is_routed(const DatabaseConfig& database);

/// "host:port,host:port": equal for databases with the same hosts in the same order. The index of a host in the list is
/// its router::HostId.
[[nodiscard]] std::string host_group_name(const DatabaseConfig& database);

/// A host of such a list, as the name of its pools and in SHOW.
[[nodiscard]] std::string host_name_of(const HostPort& host);
/// The other way round; `name` was made by it.
[[nodiscard]] HostPort host_of_name(std::string_view name);

/// What the settings say about routing.
[[nodiscard]] router::RoutePolicy route_policy(const Config& config, const DatabaseConfig& database);

/// Both clocks count microseconds on the same monotonic line.
[[nodiscard]] inline router::TimePoint router_time(pool::TimePoint time) {
  return router::TimePoint(std::chrono::duration_cast<router::Duration>(time.time_since_epoch()));
}

/// When any client of a database last had a write acknowledged; shared by all workers. Written before the client hears
/// of it, so that whoever begins later sees it. This one is for a single thread; where there are several, the Host has
/// another.
class SharedWriteToken {
 public:
  virtual ~SharedWriteToken() = default;
  virtual void write_acknowledged(router::TimePoint now) { token_.write_acknowledged(now); }
  [[nodiscard]] virtual router::WriteToken token() const { return token_; }

 private:
  router::WriteToken token_;
};

/// What one worker knows about statements for one database of a group.
struct Catalog {
  explicit Catalog(std::uint64_t seed) : statements({}, seed) {}

  std::shared_ptr<const router::CatalogKnowledge> knowledge;  ///< null: nothing that names an object is a read
  router::StatementCache statements;
  std::uint64_t epoch = 1;  ///< changes with whatever may change a verdict: those remembered elsewhere are void then
};

/// By host_group_name().
using KnownClusters = std::map<std::string, router::KnownCluster>;

/// One worker's copy of a group. Lives as long as the worker.
struct HostGroup {
  std::string name;
  std::shared_ptr<const router::HostTable> next_table;                    ///< came while all stood still
  std::shared_ptr<const router::HostTable> table;                         ///< null: nobody has been asked yet
  std::map<std::string, std::unique_ptr<Catalog>, std::less<>> catalogs;  ///< by the database's name on the servers
  std::vector<std::uint32_t> outstanding;                                 ///< of this worker: run or wait, by HostId
  bool writes_held = false;                                               ///< SWITCHOVER: the primary gets nothing
  PositionDemand demand;
  std::vector<TimePoint> down_since;  ///< by HostId; kNever: it is not down
};

}  // namespace pgweir::core
