// load_config(): walks the lines of the files, fills a Config by the settings table and the connection strings, applies
// the rules of a reload, and lastly looks at the settings that must fit each other. It collects every mistake.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "proxy/core/config_connstr.hpp"
#include "proxy/core/config_settings.hpp"
#include "proxy/core/config_unsupported.hpp"
#include "proxy/core/config_values.hpp"
#include "proxy/core/ini_parser.hpp"
#include "proxy/core/monitor_plan.hpp"

namespace pgweir::core {
namespace {

struct SectionName {
  std::string_view name;
  Section section;
};
constexpr std::array<SectionName, 5> kSections{{{"pgbouncer", Section::Pgbouncer},
                                                {"databases", Section::Databases},
                                                {"users", Section::Users},
                                                {"peers", Section::Peers},
                                                {"pgweir", Section::Pgweir}}};

std::string unknown_setting(Section section, std::string_view name) {
  const auto other = section == Section::Pgbouncer ? Section::Pgweir : Section::Pgbouncer;
  if (find_setting(other, name) != nullptr) {
    return fmt::format("expected in the section [{}]", other == Section::Pgweir ? "pgweir" : "pgbouncer");
  }
  std::vector<std::string_view> names;
  for (const auto& setting : settings()) {
    if (setting.section == section) names.push_back(setting.name);
  }
  return fmt::format("unknown setting{}", did_you_mean(name, names));
}

class Loader {
 public:
  Loader(const std::string& path, const Config* running, int verbose)
      : path_(path), running_(running), config_(std::make_shared<Config>()) {
    // Settings without a default keep what they have when their line is gone.
    for (const auto& setting : settings()) {
      if (running_ != nullptr && !setting.default_text) copy_setting(*config_, *running_, setting);
    }
    if (running_ == nullptr) config_->verbose = verbose;
    config_->conffile = path;
  }

  LoadResult load(const ReadFile& read_file) {
    const auto items = parse_ini(path_, read_file);
    for (const auto& item : items) on_item(item);
    const bool unreadable = items.size() == 1 && items.front().line == 0;
    if (!seen_pgbouncer_ && !unreadable) {
      result_.problems.push_back({path_, 0, {}, "expected a section [pgbouncer]; there is none"});
    }
    for (auto& problem : client_tls_problems(*config_)) {
      add(Section::Pgbouncer, std::move(problem.key), std::move(problem.text));
    }
    for (auto& item : find_unsupported(*config_)) add(item.section, std::move(item.key), std::move(item.text));
    for (auto& item : monitor_problems(*config_)) add(item.section, std::move(item.key), std::move(item.text));
    if (running_ != nullptr) keep_fixed_settings();
    result_.draft = config_;
    if (result_.problems.empty()) result_.config = std::move(config_);
    return std::move(result_);
  }

 private:
  struct Place {
    std::string file;
    int line = 0;
  };

  void on_item(const IniItem& item) {
    switch (item.kind) {
      case IniItem::Kind::Section:
        return on_section(item);
      case IniItem::Kind::Entry:
        return on_entry(item);
      case IniItem::Kind::Broken:
        return add(item, item.value);
    }
  }

  void on_section(const IniItem& item) {
    section_ = Section::None;
    in_unknown_section_ = true;
    for (const auto& known : kSections) {
      if (known.name != item.key) continue;
      section_ = known.section;
      in_unknown_section_ = false;
    }
    if (in_unknown_section_) {
      result_.problems.push_back({item.file,
                                  item.line,
                                  {},
                                  fmt::format("unknown section {}; expected [pgbouncer], [databases], [users], [peers] "
                                              "or [pgweir]",
                                              quoted(item.key))});
    }
    if (section_ == Section::Pgbouncer) {
      if (std::exchange(seen_pgbouncer_, true)) reset_pgbouncer_section();
    }
  }

  // A second [pgbouncer] header wipes what the first one's lines said, as in PgBouncer.
  void reset_pgbouncer_section() {
    const Config defaults;
    for (const auto& setting : settings()) {
      if (setting.section == Section::Pgbouncer && setting.default_text) copy_setting(*config_, defaults, setting);
    }
  }

  void on_entry(const IniItem& item) {
    places_[{section_, item.key}] = {item.file, item.line};
    switch (section_) {
      case Section::Pgbouncer:
      case Section::Pgweir:
        return on_setting(item);
      case Section::Databases:
        return on_database(item);
      case Section::Users:
        return on_user(item);
      case Section::Peers:
        return on_peer(item);
      case Section::None:
        break;
    }
    // The unknown section itself has been reported; its lines may well be right.
    if (!in_unknown_section_) add(item, "expected a section header such as [pgbouncer] before the first key");
  }

  void on_setting(const IniItem& item) {
    const auto* setting = find_setting(section_, item.key);
    if (setting == nullptr) return add(item, unknown_setting(section_, item.key));
    if (auto reason = assign_setting(*config_, *setting, item.value)) add(item, std::move(*reason));
  }

  void on_database(const IniItem& item) {
    std::vector<std::string> reasons;
    auto database = parse_database(item.key, item.value, reasons);
    if (item.key == "*") {
      config_->fallback = std::move(database);
    } else {
      config_->databases.insert_or_assign(item.key, std::move(database));
    }
    add(item, std::move(reasons));
  }

  void on_user(const IniItem& item) {
    std::vector<std::string> reasons;
    config_->users.insert_or_assign(item.key, parse_user(item.key, item.value, reasons));
    add(item, std::move(reasons));
  }

  void on_peer(const IniItem& item) {
    std::vector<std::string> reasons;
    auto peer = parse_peer(item.key, item.value, reasons);
    config_->peers.insert_or_assign(peer.id, std::move(peer));
    add(item, std::move(reasons));
  }

  void keep_fixed_settings() {
    for (const auto& setting : settings()) {
      if (setting.reloadable || same_setting(*config_, *running_, setting)) continue;
      result_.ignored.emplace_back(setting.name);
      copy_setting(*config_, *running_, setting);
    }
  }

  void add(const IniItem& item, std::string text) {
    result_.problems.push_back({item.file, item.line, item.key, std::move(text)});
  }

  void add(const IniItem& item, std::vector<std::string> reasons) {
    for (auto& reason : reasons) add(item, std::move(reason));
  }

  // For what shows only when everything has been read: points at the line that set the key, if one did.
  void add(Section section, std::string key, std::string text) {
    const auto found = places_.find({section, key});
    const Place place = found == places_.end() ? Place{path_, 0} : found->second;
    result_.problems.push_back({place.file, place.line, std::move(key), std::move(text)});
  }

  const std::string& path_;
  const Config* running_;
  std::shared_ptr<Config> config_;
  LoadResult result_;
  Section section_ = Section::None;
  bool in_unknown_section_ = false;
  bool seen_pgbouncer_ = false;
  std::map<std::pair<Section, std::string>, Place> places_;
};

}  // namespace

LoadResult load_config(const std::string& path, const ReadFile& read_file, const Config* running, int verbose) {
  return Loader(path, running, verbose).load(read_file);
}

}  // namespace pgweir::core
