// What PostgreSQL's own functions mean on a standby, where pg_proc's volatility does not tell: volatile ones that are
// harmless there, stable ones that answer for the host or the session they run on, and ones that change something.
#pragma once

#include <cstdint>
#include <string_view>

namespace pgweir::router {

enum class FunctionTrait : std::uint8_t {
  None,           ///< pg_proc decides
  FineOnStandby,  ///< volatile, yet the same on every host
  AsksHost,       ///< answers for the host: role, WAL, statistics, backends, files, settings, snapshots
  Session,        ///< changes or reads what belongs to one session: settings, advisory locks, sequences' last values
  Writes,         ///< changes data, or may
};

/// Looks at the bare name, whatever the schema. A name that begins with pg_ and is not known to be harmless AsksHost:
/// new versions of PostgreSQL bring more of those than of the others.
[[nodiscard]] FunctionTrait function_trait(std::string_view name);

/// Settings that SHOW answers differently on a standby, or that tell where a host is.
[[nodiscard]] bool setting_asks_host(std::string_view name);

}  // namespace pgweir::router
