// The list of config_unsupported.hpp.
#include "proxy/core/config_unsupported.hpp"

#include <fmt/format.h>

namespace pgweir::core {

std::vector<Unsupported> find_unsupported(const Config& config) {
  std::vector<Unsupported> found;
  if (!config.http_listen.empty()) {
    found.push_back({Section::Pgweir, "http_listen", "not supported yet; expected no value"});
  }
  return found;
}

std::vector<Problem> unsupported_settings(const Config& config) {
  std::vector<Problem> problems;
  for (auto& item : find_unsupported(config)) problems.push_back({{}, 0, std::move(item.key), std::move(item.text)});
  return problems;
}

}  // namespace pgweir::core
