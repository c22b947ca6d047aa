// What one worker contributes to SHOW and to the statistics line: its sockets and its counters, copied out so that they
// can travel to the worker that asked. Nothing here changes anything.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "proxy/core/admin_data.hpp"
#include "proxy/core/latency.hpp"
#include "proxy/core/port.hpp"

namespace pgweir::core {

class WorkerCore;

struct WorkerReport {
  std::vector<SocketRow> sockets;
  std::map<std::string, StatsRow> stats;  ///< by database
  /// By database, user, host, port and role.
  std::map<std::tuple<std::string, std::string, std::string, int, HostRole>, HostLatency> latencies;
};

/// `sockets`: also list connections, which costs time in proportion to their number.
[[nodiscard]] WorkerReport make_report(WorkerCore& core, bool sockets);

/// Asks every worker for its report and calls `done` on the worker of `core` with all of them joined, later.
void collect_reports(WorkerCore& core, bool sockets, std::function<void(WorkerCore&, WorkerReport)> done);

}  // namespace pgweir::core
