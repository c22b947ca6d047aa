// The values of [databases], [users] and [peers]: a list of key=value, its grammar and what each key means. Every
// mistake is added to `reasons` and the rest is read on; an entry with reasons must not be used.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/core/config.hpp"

namespace pgweir::core {

/// The grammar alone: pairs in order of appearance. Spaces separate, values may be 'quoted' with '' for a quote, and an
/// empty value is a mistake. Stops at the first mistake, since what follows it could be anything.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> parse_connstr(std::string_view text,
                                                                             std::vector<std::string>& reasons);

[[nodiscard]] DatabaseConfig parse_database(std::string_view name, std::string_view connstr,
                                            std::vector<std::string>& reasons);
[[nodiscard]] UserConfig parse_user(std::string_view name, std::string_view connstr, std::vector<std::string>& reasons);
[[nodiscard]] PeerConfig parse_peer(std::string_view id, std::string_view connstr, std::vector<std::string>& reasons);

}  // namespace pgweir::core
