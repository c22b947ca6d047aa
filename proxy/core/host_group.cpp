#include "proxy/core/host_group.hpp"

#include <fmt/format.h>

#include <charconv>

namespace pgweir::core {

bool is_routed(const DatabaseConfig& database) {
  return database.read_write_split || database.target_session_attrs != TargetSessionAttrs::Any;
}

std::string host_group_name(const DatabaseConfig& database) {
  std::string name;
  for (const HostPort& host : database.hosts) {
    if (!name.empty()) name += ',';
    name += host_name_of(host);
  }
  return name;
}

std::string host_name_of(const HostPort& host) {
  return fmt::format("{}:{}", host.host, host.port);
}

HostPort host_of_name(std::string_view name) {
  const std::size_t colon = name.rfind(':');
  HostPort host{std::string(name.substr(0, colon)), 0};
  if (colon != std::string_view::npos) std::from_chars(name.data() + colon + 1, name.data() + name.size(), host.port);
  return host;
}

router::RoutePolicy route_policy(const Config& config, const DatabaseConfig& database) {
  router::RoutePolicy policy;
  policy.attrs = static_cast<router::TargetSessionAttrs>(database.target_session_attrs);
  static_assert(static_cast<int>(TargetSessionAttrs::PreferStandby) ==
                static_cast<int>(router::TargetSessionAttrs::PreferStandby));
  policy.read_write_split = database.read_write_split;
  policy.read_your_writes = static_cast<router::ReadYourWrites>(config.read_your_writes);
  static_assert(static_cast<int>(ReadYourWrites::Database) == static_cast<int>(router::ReadYourWrites::Database));
  policy.retry_reads = config.retry_reads;
  return policy;
}

}  // namespace pgweir::core
