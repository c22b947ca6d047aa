// The check that stays on in release builds: for rules whose breach could hand one client's server to another or
// break a connection limit. It says nothing and ends the process; the core file tells the rest. Nothing a peer sends
// may trip it.
#pragma once

#include <cstdlib>

#define PROXY_INVARIANT(condition) \
  do {                             \
    if (!(condition)) [[unlikely]] \
      std::abort();                \
  } while (false)
