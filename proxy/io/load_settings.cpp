// Reading the configuration and the files that it names.
#include <fmt/format.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <stdexcept>
#include <system_error>

#include "proxy/core/userlist.hpp"
#include "proxy/io/runtime.hpp"

namespace pgweir::io {

namespace {

using FileText = boost::system::result<std::string, std::string>;

FileText read_file(const std::string& path) {
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "rbe"), close);
  if (!file) return FileText(boost::system::in_place_error, std::strerror(errno));
  std::string text;
  char buffer[65536];
  std::size_t size = 0;
  while ((size = std::fread(buffer, 1, sizeof buffer, file.get())) > 0) text.append(buffer, size);
  if (std::ferror(file.get()) != 0) return FileText(boost::system::in_place_error, std::strerror(errno));
  return FileText(boost::system::in_place_value, std::move(text));
}

TlsSettings client_tls_settings(const core::Config& config) {
  TlsSettings tls;
  tls.sslmode = std::string(core::to_string(config.client_tls_sslmode));
  tls.ca_file = config.client_tls_ca_file;
  tls.cert_file = config.client_tls_cert_file;
  tls.key_file = config.client_tls_key_file;
  tls.protocols = config.client_tls_protocols.text;
  tls.ciphers = config.client_tls_ciphers;
  tls.tls13_ciphers = config.client_tls13_ciphers.value_or("");
  tls.dheparams = std::string(core::to_string(config.client_tls_dheparams));
  tls.ecdhcurve = config.client_tls_ecdhcurve;
  return tls;
}

TlsSettings server_tls_settings(const core::Config& config, const core::DatabaseConfig* entry) {
  TlsSettings tls;
  tls.sslmode =
      std::string(core::to_string(entry ? effective_server_tls_sslmode(config, *entry) : config.server_tls_sslmode));
  tls.ca_file =
      std::string(entry ? effective_server_tls_ca_file(config, *entry) : std::string_view(config.server_tls_ca_file));
  tls.cert_file = std::string(entry ? effective_server_tls_cert_file(config, *entry)
                                    : std::string_view(config.server_tls_cert_file));
  tls.key_file =
      std::string(entry ? effective_server_tls_key_file(config, *entry) : std::string_view(config.server_tls_key_file));
  tls.protocols = config.server_tls_protocols.text;
  tls.ciphers = config.server_tls_ciphers;
  tls.tls13_ciphers = config.server_tls13_ciphers.value_or("");
  return tls;
}

void load_users(const core::Config& config, const core::Settings* running, core::Settings& settings,
                LoadedConfig& result) {
  auto users = std::make_shared<std::map<std::string, std::string, std::less<>>>();
  if (config.auth_file && config.auth_type != core::AuthType::Any && config.auth_type != core::AuthType::Pam) {
    const auto text = read_file(*config.auth_file);
    if (!text) {
      // As in PgBouncer this does not keep the process from starting; a reload keeps the users it has.
      const std::string problem = "could not open auth_file " + *config.auth_file + ": " + text.error();
      if (running != nullptr) {
        result.problems.push_back(problem);
      } else {
        result.warnings.push_back(problem);
      }
    } else {
      core::UserList list = core::parse_userlist(*text, *config.auth_file);
      for (const core::Problem& problem : list.problems) {
        (running != nullptr ? result.problems : result.warnings).push_back(core::to_string(problem));
      }
      *users = std::move(list.users);
    }
  }
  if (running != nullptr) {
    // Users that are gone stay known, without a secret, as long as the process runs.
    for (const auto& [name, secret] : *running->users) users->emplace(name, "");
  }
  settings.users = std::move(users);
}

core::AuthFiles auth_files() {
  core::AuthFiles files;
  files.read = read_file;
  files.exists = [](const std::string& path) {
    std::error_code ignored;
    return std::filesystem::exists(path, ignored);
  };
  files.list = [](const std::string& path) -> boost::system::result<std::vector<std::string>, std::string> {
    std::error_code error;
    std::vector<std::string> names;
    for (std::filesystem::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error) return {boost::system::in_place_error, error.message()};
    return {boost::system::in_place_value, std::move(names)};
  };
  return files;
}

std::optional<core::IpAddress> address_of(const sockaddr* address) {
  if (address == nullptr) return std::nullopt;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(address);
  if (address->sa_family == AF_INET) {
    return core::IpAddress::from_bytes({bytes + offsetof(sockaddr_in, sin_addr), sizeof(in_addr)});
  }
  if (address->sa_family == AF_INET6) {
    return core::IpAddress::from_bytes({bytes + offsetof(sockaddr_in6, sin6_addr), sizeof(in6_addr)});
  }
  return std::nullopt;
}

std::vector<core::IpNetwork> own_networks() {
  std::vector<core::IpNetwork> networks;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) throw std::runtime_error(fmt::format("getifaddrs: {}", std::strerror(errno)));
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, ::freeifaddrs);
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    const auto address = address_of(one->ifa_addr);
    const auto mask = address_of(one->ifa_netmask);
    if (address && mask && address->is_v6 == mask->is_v6) networks.push_back({*address, *mask});
  }
  return networks;
}

// A mistake in one of the files is treated like one in auth_file.
void load_hba(const core::Config& config, const core::Settings* running, core::Settings& settings,
              LoadedConfig& result) {
  settings.hba.reset();
  if (config.auth_type != core::AuthType::Hba) return;
  auto& told = running != nullptr ? result.problems : result.warnings;
  const auto read = [&](const std::string& path, const char* key) {
    auto text = read_file(path);
    if (!text) told.push_back(fmt::format("could not open {} {}: {}", key, path, text.error()));
    return text ? std::move(*text) : std::string();
  };
  auto hba = std::make_shared<core::HbaSettings>();
  if (config.auth_hba_file.empty()) {
    result.problems.emplace_back("auth_type = hba needs auth_hba_file; expected the path of a file");
  } else {
    hba->rules = core::parse_hba(read(config.auth_hba_file, "auth_hba_file"), config.auth_hba_file, auth_files());
  }
  core::warn_of_unchecked_certificates(hba->rules, config);
  core::warn_of_missing_ldap_options(hba->rules, config);
  for (const core::Problem& problem : hba->rules.problems) told.push_back(core::to_string(problem));
  for (const core::Problem& warning : hba->rules.warnings) result.warnings.push_back(core::to_string(warning));
  if (config.auth_ident_file && !config.auth_ident_file->empty()) {
    const std::string& path = *config.auth_ident_file;
    hba->maps = core::parse_ident_maps(read(path, "auth_ident_file"), path, auth_files());
    for (const core::Problem& problem : hba->maps.problems) told.push_back(core::to_string(problem));
  }
  if (hba->rules.has_interfaces()) hba->interfaces = own_networks();
  settings.hba = std::move(hba);
}

void check_server_tls(const core::Config& config) {
  (void)make_connector_context(server_tls_settings(config, nullptr));
  for (const auto& [name, entry] : config.databases) {
    if (entry.sslmode || entry.sslrootcert || entry.sslcert || entry.sslkey) {
      (void)make_connector_context(server_tls_settings(config, &entry));
    }
  }
}

}  // namespace

LoadedConfig change_settings(std::shared_ptr<const core::Config> config, const core::Settings& running,
                             const TlsContext& client_tls) {
  LoadedConfig result;
  const core::Config& before = *running.config;
  auto settings = std::make_shared<core::Settings>(running);
  settings->config = config;
  settings->ldap = core::shared_ldap_options(config->auth_ldap_options);
  result.client_tls = client_tls;
  const bool other_type = config->auth_type != before.auth_type;
  if (config->auth_file != before.auth_file || other_type) load_users(*config, &running, *settings, result);
  for (const core::Problem& problem : core::client_tls_problems(*config)) {
    result.problems.push_back(core::to_string(problem));
  }
  try {
    if (config->auth_hba_file != before.auth_hba_file || config->auth_ident_file != before.auth_ident_file ||
        other_type) {
      load_hba(*config, &running, *settings, result);
    }
    const TlsSettings tls = client_tls_settings(*config);
    if (tls != client_tls_settings(before) && result.problems.empty()) result.client_tls = make_listener_context(tls);
    if (server_tls_settings(*config, nullptr) != server_tls_settings(before, nullptr)) check_server_tls(*config);
  } catch (const std::exception& e) {
    result.problems.emplace_back(e.what());
  }
  if (result.problems.empty()) result.settings = std::move(settings);
  return result;
}

LoadedConfig load_settings(const std::string& path, const core::Settings* running, int verbose) {
  LoadedConfig result;
  core::LoadResult loaded =
      core::load_config(path, read_file, running != nullptr ? running->config.get() : nullptr, verbose);
  for (const core::Problem& problem : loaded.problems) result.problems.push_back(core::to_string(problem));
  for (const std::string& key : loaded.ignored) {
    result.warnings.push_back("changing " + key + " needs a restart, the running value stays");
  }
  // With problems the rest is read all the same, so that one look tells them all.
  const std::shared_ptr<const core::Config> config = loaded.config ? loaded.config : loaded.draft;
  if (!config) return result;
  auto settings = std::make_shared<core::Settings>();
  settings->config = config;
  settings->ldap = core::shared_ldap_options(config->auth_ldap_options);
  settings->tracked = running != nullptr
                          ? running->tracked
                          : std::make_shared<const protocol::TrackedNames>(config->track_extra_parameters.items);
  load_users(*config, running, *settings, result);
  if (config->auth_type == core::AuthType::Ldap && config->auth_ldap_options.value_or("").empty()) {
    result.warnings.emplace_back("auth_type = ldap lets nobody in: expected auth_ldap_options to be set as well");
  }
  try {
    load_hba(*config, running, *settings, result);
    result.client_tls = make_listener_context(client_tls_settings(*config));
    check_server_tls(*config);
  } catch (const std::exception& e) {
    result.problems.emplace_back(e.what());
  }
  if (result.problems.empty()) result.settings = std::move(settings);
  return result;
}

}  // namespace pgweir::io
