#include "proxy/core/patroni.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/core/config_values.hpp"

namespace pgweir::core {

boost::system::result<PatroniUrl, std::string> parse_patroni_url(std::string_view text) {
  using Result = boost::system::result<PatroniUrl, std::string>;
  const auto refuse = [&] {
    return Result(boost::system::in_place_error,
                  fmt::format("expected http://host:port or https://host:port, got {}", quoted(text)));
  };
  PatroniUrl url;
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    url.tls = true;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    return refuse();
  }
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view place = rest.substr(0, slash);
  url.path = rest.substr(slash);
  while (url.path.ends_with('/')) url.path.pop_back();
  if (text.find_first_of(" \t\r\n?#@\\") != std::string_view::npos) return refuse();
  std::string_view port;
  if (place.starts_with('[')) {
    const std::size_t end = place.find(']');
    if (end == std::string_view::npos) return refuse();
    url.host = place.substr(1, end - 1);
    place.remove_prefix(end + 1);
    if (!place.empty() && !place.starts_with(':')) return refuse();
    if (!place.empty()) port = place.substr(1);
    if (!place.empty() && port.empty()) return refuse();
  } else {
    const std::size_t colon = place.find(':');
    url.host = place.substr(0, colon);
    if (colon != std::string_view::npos) {
      port = place.substr(colon + 1);
      if (port.empty()) return refuse();
    }
  }
  if (url.host.empty()) return refuse();
  if (!port.empty()) {
    const auto number = parse_decimal(port, 1, 65535);
    if (!number) return refuse();
    url.port = *number;
  }
  return url;
}

bool PatroniHosts::update(const std::vector<PatroniMember>& members) {
  const std::vector<HostPort> before = hosts();
  latest_.clear();
  for (const PatroniMember& member : members) latest_[member.name] = member.host;
  for (const auto& [name, host] : latest_) {
    // Two members at one address are one host, which has changed its name.
    std::erase_if(known_,
                  [&, host = host, name = name](const auto& one) { return one.second == host && one.first != name; });
    known_[name] = host;
  }
  return hosts() != before;
}

void PatroniHosts::forget() {
  known_ = latest_;
}

std::vector<HostPort> PatroniHosts::hosts() const {
  std::vector<HostPort> hosts;
  for (const auto& [name, host] : known_) hosts.push_back(host);
  return hosts;
}

}  // namespace pgweir::core
