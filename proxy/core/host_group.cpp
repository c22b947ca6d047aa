#include "proxy/core/host_group.hpp"

#include <fmt/format.h>

namespace pgweir::core {

bool is_routed(const DatabaseConfig& database) {
  return database.read_write_split || database.target_session_attrs != TargetSessionAttrs::Any;
}

std::string host_group_name(const DatabaseConfig& database) {
  std::string name;
  for (const HostPort& host : database.hosts) {
    name += fmt::format("{}{}:{}", name.empty() ? "" : ",", host.host, host.port);
  }
  return name;
}

}  // namespace pgweir::core
