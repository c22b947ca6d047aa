// Loads configurations from texts held in the test: the first file is "main.ini", others are found by their name.
#pragma once

#include <map>
#include <stdexcept>
#include <string>

#include "proxy/core/config.hpp"

namespace pgweir::core {

using Files = std::map<std::string, std::string>;

inline ReadFile reader_of(const Files& files) {
  return [&files](const std::string& path) -> boost::system::result<std::string, std::string> {
    const auto found = files.find(path);
    if (found == files.end()) return {boost::system::in_place_error, "No such file or directory"};
    return {boost::system::in_place_value, found->second};
  };
}

inline LoadResult load(const Files& files, const Config* running = nullptr) {
  return load_config("main.ini", reader_of(files), running);
}

inline LoadResult load(const std::string& text, const Config* running = nullptr) {
  return load(Files{{"main.ini", text}}, running);
}

/// The problems as an operator reads them, one a line.
inline std::string problems_of(const LoadResult& result) {
  std::string out;
  for (const auto& problem : result.problems) out += to_string(problem) + "\n";
  return out;
}

inline std::string problems_of(const std::string& text) {
  return problems_of(load(text));
}

/// For texts that must be right.
inline Config good(const std::string& text, const Config* running = nullptr) {
  const auto result = load(text, running);
  if (!result.config) throw std::runtime_error(problems_of(result));
  return *result.config;
}

}  // namespace pgweir::core
