// What one worker contributes to SHOW and to the statistics line: its sockets and its counters, copied out so that they
// can travel to the worker that asked. Nothing here changes anything.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "proxy/core/admin_data.hpp"
#include "proxy/core/latency.hpp"
#include "proxy/core/port.hpp"

namespace pgweir::core {

class WorkerCore;

/// Objects that only the workers can count, and bytes in buffers.
struct MemoryUse {
  std::uint64_t credentials = 0, requests = 0, buffers = 0, buffer_bytes = 0, statements = 0;
};

struct WorkerReport {
  std::vector<SocketRow> sockets;
  std::map<std::string, StatsRow> stats;  ///< by database
  LatencyTable latencies;
  std::map<std::string, RouteStats> routes;  ///< by database, of those that are routed
  DnsReport dns;
  MemoryUse memory;
};

/// What a report holds beside the counters.
enum class ReportExtra : std::uint8_t {
  None,
  Sockets,    ///< connections; costs time in proportion to their number
  Latencies,  ///< some kB for each pool
  Names,      ///< of servers, and their addresses
  Memory,     ///< as Sockets
};

[[nodiscard]] WorkerReport make_report(WorkerCore& core, ReportExtra extra);

/// Asks every worker for its report and calls `done` on the worker of `core` with all of them joined, later.
void collect_reports(WorkerCore& core, ReportExtra extra, std::function<void(WorkerCore&, WorkerReport)> done);

}  // namespace pgweir::core
