// What the workers know of the hosts that a database is spread over: one group for all databases with the same list of
// hosts. The prober in proxy/io (in the simulator: its stand-in) fills it through WorkerCore::set_host_table and
// set_catalog; sessions ask it where a transaction may go.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pool/time.hpp"
#include "proxy/core/config.hpp"
#include "router/catalog_knowledge.hpp"
#include "router/host_table.hpp"
#include "router/read_your_writes.hpp"

namespace pgweir::core {

/// Whether it matters to this database which of its hosts is the primary. Only such databases are probed.
[[nodiscard]] bool is_routed(const DatabaseConfig& database);

/// "host:port,host:port": equal for databases with the same hosts in the same order. The index of a host in the list is
/// its router::HostId.
[[nodiscard]] std::string host_group_name(const DatabaseConfig& database);

/// Both clocks count microseconds on the same monotonic line.
[[nodiscard]] inline router::TimePoint router_time(pool::TimePoint time) {
  return router::TimePoint(std::chrono::duration_cast<router::Duration>(time.time_since_epoch()));
}

/// When any client of a database last had a write acknowledged; shared by all workers. Written before the client hears
/// of it, so that whoever begins later sees it.
class SharedWriteToken {
 public:
  void write_acknowledged(router::TimePoint now) {
    auto known = last_.load();
    const auto fresh = now.time_since_epoch().count();
    while (fresh > known && !last_.compare_exchange_weak(known, fresh)) {
    }
  }
  [[nodiscard]] router::WriteToken token() const {
    router::WriteToken result;
    result.write_acknowledged(router::TimePoint(router::Duration(last_.load())));
    return result;
  }

 private:
  std::atomic<router::Duration::rep> last_{router::kLongAgo.time_since_epoch().count()};
};

/// One worker's copy of a group.
struct HostGroup {
  std::string name;
  std::shared_ptr<const router::HostTable> table;  ///< null: nobody has been asked yet
  /// By the database's name on the servers. A database that has none is not read from standbys.
  std::map<std::string, std::shared_ptr<const router::CatalogKnowledge>, std::less<>> catalogs;
  std::vector<std::uint32_t> outstanding;  ///< requests of this worker that run or wait, by HostId
};

}  // namespace pgweir::core
