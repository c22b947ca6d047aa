// What the load generator can do besides pgbench: logins at full speed, clients that do nothing, and clients that do a
// proxy harm.
#pragma once

#include <string_view>

#include "bench/client/session.hpp"

namespace pgweir::bench {

struct LoadOptions {
  Target target;
  int clients = 32;
  double seconds = 2;
  /// More than 0: `target.user` is the beginning of so many names, 000 and up; each logs in once, then the load ends.
  int users = 0;
};

/// Each client logs in, says good-bye and begins anew. Prints counts and percentiles of the time from connect to
/// ReadyForQuery.
void run_logins(const LoadOptions& options);

/// All log in; prints "ready"; they stay until standard input ends.
void run_idle(const LoadOptions& options);

/// One client that does harm, by name: slow_reader, one_byte, pipeline, rows. Nullptr: there is no such one.
using Hostile = void (*)(const LoadOptions& options);
[[nodiscard]] Hostile find_hostile(std::string_view name);

}  // namespace pgweir::bench
