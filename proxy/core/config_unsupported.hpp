// What the files may say but the engine cannot do yet, in one place: the list is to shrink.
#pragma once

#include <string>
#include <vector>

#include "proxy/core/config_settings.hpp"

namespace pgweir::core {

/// `section` and `key` find the line in the file.
struct Unsupported {
  Section section = Section::None;
  std::string key;
  std::string text;
};

[[nodiscard]] std::vector<Unsupported> find_unsupported(const Config& config);

}  // namespace pgweir::core
