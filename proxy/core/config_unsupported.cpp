// The list of config_unsupported.hpp.
#include "proxy/core/config_unsupported.hpp"

#include <fmt/format.h>

namespace pgweir::core {
namespace {

void check_database(const DatabaseConfig& database, std::vector<Unsupported>& found) {
  const auto add = [&](std::string_view parameter, std::string_view expected) {
    found.push_back(
        {Section::Databases, database.name, fmt::format("{}: not supported yet; expected {}", parameter, expected)});
  };
  if (database.read_write_split) add("read_write_split", "0");
  if (database.target_session_attrs != TargetSessionAttrs::Any) add("target_session_attrs", "any");
}

}  // namespace

std::vector<Unsupported> find_unsupported(const Config& config) {
  std::vector<Unsupported> found;
  if (!config.patroni_urls.items.empty()) {
    found.push_back({Section::Pgweir, "patroni_urls", "not supported yet; expected no value"});
  }
  if (!config.http_listen.empty()) {
    found.push_back({Section::Pgweir, "http_listen", "not supported yet; expected no value"});
  }
  for (const auto& [name, database] : config.databases) check_database(database, found);
  if (config.fallback) check_database(*config.fallback, found);
  return found;
}

std::vector<Problem> unsupported_settings(const Config& config) {
  std::vector<Problem> problems;
  for (auto& item : find_unsupported(config)) problems.push_back({{}, 0, std::move(item.key), std::move(item.text)});
  return problems;
}

}  // namespace pgweir::core
