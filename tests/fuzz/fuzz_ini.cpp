// Feeds arbitrary text to the configuration loader: as a first configuration, as a reload of a running one, and as a
// users file. Files that it includes hold the same text, for the first few, so that nesting is covered too.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "proxy/core/config.hpp"
#include "proxy/core/userlist.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pgweir::core;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  int files = 0;
  const ReadFile read_file = [&](const std::string&) -> boost::system::result<std::string, std::string> {
    if (++files > 4) return {boost::system::in_place_error, "No such file or directory"};
    return {boost::system::in_place_value, text};
  };
  const auto first = load_config("fuzz.ini", read_file, nullptr);
  // A load gives a configuration exactly when it found no problem.
  if ((first.config == nullptr) == first.problems.empty()) __builtin_trap();

  const Config running = first.config ? *first.config : Config{};
  files = 0;
  const auto second = load_config("fuzz.ini", read_file, &running);
  if (second.config) {
    // Reading the same text again is no change.
    const auto changes = diff(running, *second.config);
    if (!changes.changed_databases.empty() || !changes.removed_databases.empty()) __builtin_trap();
    for (const auto& row : show_config(*second.config)) {
      // What SHOW CONFIG prints, SET takes.
      if (!row.value || !row.changeable || row.value == row.default_value) continue;
      if (with_setting(running, row.key, *row.value).index() != 0) __builtin_trap();
    }
  }
  (void)parse_userlist(text, "userlist.txt");
  return 0;
}
