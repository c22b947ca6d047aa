// What is asked of a finished Config as a whole: SHOW CONFIG, SET, and the difference that a reload makes.
#include "proxy/core/config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "proxy/core/config_settings.hpp"
#include "proxy/core/config_unsupported.hpp"
#include "proxy/core/monitor_plan.hpp"

namespace pgweir::core {
namespace {

// Whether server connections made for `a` are wrong for `b`. Sizes, modes, passwords and the pool's default parameters
// are left out on purpose: PgBouncer does not recycle for them either.
bool needs_new_servers(const DatabaseConfig& a, const DatabaseConfig& b) {
  const auto server_side = [](const DatabaseConfig& d) {
    return std::tie(d.hosts, d.user, d.connect_query, d.auth_dbname, d.auth_query, d.load_balance_hosts,
                    d.target_session_attrs, d.read_write_split, d.sslmode, d.sslrootcert, d.sslcert, d.sslkey);
  };
  // `app =` and `app = dbname=app` are the same; for the fallback, no dbname means the requested one.
  const bool fallback = a.name == "*";
  const bool same_dbname = fallback ? a.dbname == b.dbname : effective_dbname(a, a.name) == effective_dbname(b, b.name);
  return !same_dbname || server_side(a) != server_side(b);
}

bool any_changed(const Config& old, const Config& now, std::string_view prefix) {
  return std::any_of(settings().begin(), settings().end(), [&](const Setting& setting) {
    return setting.name.starts_with(prefix) && !same_setting(old, now, setting);
  });
}

void compare(const DatabaseConfig* old, const DatabaseConfig* now, const std::string& name, ConfigDiff& diff) {
  if (old == nullptr && now != nullptr) diff.added_databases.push_back(name);
  if (old != nullptr && now == nullptr) diff.removed_databases.push_back(name);
  if (old != nullptr && now != nullptr && needs_new_servers(*old, *now)) diff.changed_databases.push_back(name);
}

}  // namespace

std::string to_string(const Problem& problem) {
  std::string out = problem.file;
  if (problem.line > 0) out += fmt::format("{}{}", out.empty() ? "line " : ":", problem.line);
  if (!problem.key.empty()) out += fmt::format("{}{}", out.empty() ? "" : ": ", problem.key);
  out += fmt::format("{}{}", out.empty() ? "" : ": ", problem.text);
  return out;
}

bool NameList::contains(std::string_view name) const {
  return std::find(items.begin(), items.end(), name) != items.end();
}

std::variant<std::shared_ptr<const Config>, std::string> with_setting(const Config& running, std::string_view key,
                                                                      std::string_view value) {
  const auto* setting = find_setting(Section::Pgbouncer, key);
  if (setting == nullptr) setting = find_setting(Section::Pgweir, key);
  if (setting == nullptr) {
    std::vector<std::string_view> names;
    for (const auto& known : settings()) names.push_back(known.name);
    return fmt::format("unknown setting {}{}", quoted(key), did_you_mean(key, names));
  }
  auto changed = std::make_shared<Config>(running);
  if (!setting->reloadable) return changed;
  if (auto reason = assign_setting(*changed, *setting, value)) return fmt::format("{}: {}", key, *reason);
  for (const auto& item : find_unsupported(*changed)) {
    if (item.section == setting->section && item.key == key) return fmt::format("{}: {}", key, item.text);
  }
  if (const auto problems = monitor_problems(*changed); !problems.empty()) {
    return fmt::format("{}: database {}: {}", key, quoted(problems.front().key), problems.front().text);
  }
  return changed;
}

std::vector<Problem> client_tls_problems(const Config& config) {
  std::vector<Problem> problems;
  const auto add = [&](std::string key, std::string text) {
    problems.push_back({{}, 0, std::move(key), std::move(text)});
  };
  const auto mode = config.client_tls_sslmode;
  if (mode != SslMode::Disable) {
    if (config.client_tls_key_file.empty()) {
      add("client_tls_sslmode", "expected client_tls_key_file to be set as well");
    }
    if (config.client_tls_cert_file.empty()) {
      add("client_tls_sslmode", "expected client_tls_cert_file to be set as well");
    }
  }
  const bool needs_ca = mode == SslMode::VerifyFull || config.auth_type == AuthType::Cert;
  if (needs_ca && config.client_tls_ca_file.empty()) {
    add("client_tls_ca_file", "expected a file of CA certificates to verify clients with");
  }
  if (config.auth_type == AuthType::Cert && mode != SslMode::VerifyFull) {
    add("auth_type", "cert expects client_tls_sslmode = verify-full");
  }
  return problems;
}

ConfigDiff diff(const Config& old, const Config& now) {
  ConfigDiff result;
  const auto pointer = [](const std::optional<DatabaseConfig>& d) { return d ? &*d : nullptr; };
  compare(pointer(old.fallback), pointer(now.fallback), "*", result);
  for (const auto& [name, database] : old.databases) {
    const auto found = now.databases.find(name);
    compare(&database, found == now.databases.end() ? nullptr : &found->second, name, result);
  }
  for (const auto& [name, database] : now.databases) {
    if (!old.databases.contains(name)) compare(nullptr, &database, name, result);
  }
  for (auto* names : {&result.removed_databases, &result.changed_databases, &result.added_databases}) {
    std::sort(names->begin(), names->end());
  }
  result.server_tls_changed = any_changed(old, now, "server_tls");
  result.client_tls_changed = any_changed(old, now, "client_tls");
  return result;
}

std::vector<SettingRow> show_config(const Config& config) {
  std::vector<SettingRow> rows;
  rows.reserve(settings().size());
  for (const auto& setting : settings()) {
    rows.push_back({std::string(setting.name), format_setting(config, setting),
                    setting.default_text ? std::optional<std::string>(*setting.default_text) : std::nullopt,
                    setting.reloadable});
  }
  return rows;
}

}  // namespace pgweir::core
