// The table of all settings of [pgbouncer] and [pgweir]: name, field, default, bounds, and whether a reload may change
// it. Loading, SET and SHOW CONFIG all work on this table, so that a setting is described in one place.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "proxy/core/config.hpp"
#include "proxy/core/config_values.hpp"

namespace pgweir::core {

enum class Section { None, Pgbouncer, Pgweir, Databases, Users, Peers };

/// The field of Config that a setting fills.
using Field = std::variant<bool Config::*, int Config::*, std::uint32_t Config::*, std::int64_t Config::*,
                           Duration Config::*, std::string Config::*, std::optional<std::string> Config::*,
                           NameList Config::*, TlsProtocols Config::*, PoolMode Config::*, AuthType Config::*,
                           SslMode Config::*, DhParams Config::*, ReadYourWrites Config::*>;

/// How a time is written in the file and shown.
enum class TimeForm {
  Seconds,            ///< with a fraction
  WholeSeconds,       ///< an integer
  WholeMilliseconds,  ///< an integer
  Milliseconds,       ///< PostgreSQL's units, ms if none is given
  UnitSeconds,        ///< PostgreSQL's units, s if none is given
};

struct Setting {
  Section section = Section::Pgbouncer;
  std::string_view name;
  Field field;
  std::optional<std::string_view> default_text;  ///< empty: NULL in SHOW CONFIG, kept over a reload
  std::int64_t min = 0;                          ///< of an integer; of a time in microseconds
  std::int64_t max = std::numeric_limits<int>::max();
  TimeForm time_form = TimeForm::Seconds;
  ListForm list_form = ListForm::Words;
  bool reloadable = true;
};

/// In the order of SHOW CONFIG.
[[nodiscard]] std::span<const Setting> settings();
/// Null if there is no such setting in that section.
[[nodiscard]] const Setting* find_setting(Section section, std::string_view name);

/// Reads `text` into the setting's field. Answers with what would be right if it does not fit; the field is then as
/// before.
[[nodiscard]] std::optional<std::string> assign_setting(Config& config, const Setting& setting, std::string_view text);
/// As SHOW CONFIG prints it; empty for a setting that was never set.
[[nodiscard]] std::optional<std::string> format_setting(const Config& config, const Setting& setting);
/// Copies one setting from one configuration to another.
void copy_setting(Config& to, const Config& from, const Setting& setting);
/// Whether the setting means the same in both.
[[nodiscard]] bool same_setting(const Config& a, const Config& b, const Setting& setting);

}  // namespace pgweir::core
