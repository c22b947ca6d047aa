// Reading start-up parameters; see the header.
#include "proxy/core/startup_request.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace pgweir::core {

namespace {

constexpr std::size_t kExtrasMax = 256;
constexpr std::size_t kUnknownOptionsMax = 64;
constexpr std::size_t kShownName = 64;

/// Names in a start-up packet that are no settings. Spelt in another case, as "User", they are settings that do not
/// exist, and must not become the real thing in a packet of ours.
bool is_protocol_parameter(std::string_view lower) {
  return lower == "user" || lower == "database" || lower == "options" || lower == "replication" ||
         lower.substr(0, 5) == "_pq_.";
}

class Reader {
 public:
  Reader(const Settings& settings, StartupRequest& request) : settings_(settings), request_(request) {}

  std::optional<StartupRefusal> take(std::string_view name, std::string_view value) {
    if (name == "replication") return std::nullopt;  // seen before all others
    if (name == "options") {
      if (request_.replication == Replication::None) return take_options(value);
      request_.options = std::string(value);
      return std::nullopt;
    }
    if (name.substr(0, 5) == "_pq_.") {
      if (request_.unknown_options.size() < kUnknownOptionsMax) request_.unknown_options.emplace_back(name);
      return std::nullopt;
    }
    if (ignored(name)) return std::nullopt;
    return keep(name, value, "unsupported startup parameter: {}");
  }

 private:
  [[nodiscard]] bool ignored(std::string_view name) const {
    return settings_.config->ignore_startup_parameters.contains(name);
  }

  std::optional<StartupRefusal> take_options(std::string_view options) {
    std::vector<std::pair<std::string, std::string>> parsed;
    const bool known_only = ignored("options");
    if (!protocol::parse_startup_options(options, parsed)) {
      if (known_only) return std::nullopt;
      return StartupRefusal{
          "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed", "0A000"};
    }
    for (const auto& [name, value] : parsed) {
      if (ignored(name) || (known_only && !settings_.tracked->find(name))) continue;
      if (auto refusal = keep(name, value, "unsupported startup parameter in options: {}")) return refusal;
    }
    return std::nullopt;
  }

  std::optional<StartupRefusal> keep(std::string_view name, std::string_view value, const char* refusal) {
    const auto refuse = [&] {
      return StartupRefusal{fmt::format(fmt::runtime(refusal), name.substr(0, kShownName)), "42704"};
    };
    if (!protocol::valid_parameter_name(name) || request_.extras.size() >= kExtrasMax) return refuse();
    const auto index = settings_.tracked->find(name);
    if (!index) {
      const std::string lower = protocol::to_lower(name);
      if (is_protocol_parameter(lower)) return refuse();
      request_.extras[lower] = std::string(value);
      return std::nullopt;
    }
    std::erase_if(request_.tracked, [&](const auto& entry) { return entry.first == *index; });
    request_.tracked.emplace_back(*index, *index == protocol::TrackedNames::kApplicationName
                                              ? protocol::clean_application_name(value)
                                              : std::string(value));
    return std::nullopt;
  }

  const Settings& settings_;
  StartupRequest& request_;
};

}  // namespace

std::optional<StartupRefusal> read_startup(const std::vector<protocol::StartupParameter>& parameters,
                                           const Settings& settings, StartupRequest& request) {
  Reader reader(settings, request);
  // First of all: what becomes of `options` depends on it, wherever it stands.
  for (const auto& [name, value] : parameters) {
    if (name == "replication") request.replication = parse_replication(value);
  }
  // Then the command line, over which what the packet names itself prevails.
  for (const auto& [name, value] : parameters) {
    if (name != "options") continue;
    if (auto refusal = reader.take(name, value)) return refusal;
  }
  for (const auto& [name, value] : parameters) {
    if (name == "user") {
      request.user = std::string(value);
    } else if (name == "database") {
      request.database = std::string(value);
    } else if (name != "options") {
      if (auto refusal = reader.take(name, value)) return refusal;
    }
  }
  if (request.user.empty()) return StartupRefusal{"no username supplied", "28000"};
  if (request.database.empty()) request.database = request.user;
  return std::nullopt;
}

KnownStartup::KnownStartup(StartupRequest asked, std::shared_ptr<const Settings> in_force)
    : request(std::move(asked)), settings(std::move(in_force)) {
  const Config& config = *settings->config;
  const bool console = request.database == kConsoleDatabase;
  entry = console ? nullptr : find_database(config, request.database);
  if (const auto it = settings->users->find(request.user); it != settings->users->end()) secret = &it->second;
  limits = {entry == nullptr ? 0 : database_limits(config, *entry).max_db_client_connections,
            user_limits(config, request.user).max_user_client_connections};
}

void KnownStartups::keep(std::string_view body, std::shared_ptr<KnownStartup> known) {
  if (body.size() > kBodyMax) return;
  places_[place_of(body)] = {std::string(body), std::move(known)};
}

void KnownStartups::clear() {
  for (Place& place : places_) place = {};
}

}  // namespace pgweir::core
