// What the tests of pg_hba.conf and pg_ident.conf share: a file system that is a map, and problems as text.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "proxy/core/auth_file.hpp"

namespace pgweir::core {

using FileMap = std::map<std::string, std::string>;

inline AuthFiles files_of(const FileMap& files) {
  AuthFiles out;
  out.read = [files](const std::string& path) -> boost::system::result<std::string, std::string> {
    const auto found = files.find(path);
    if (found == files.end()) return {boost::system::in_place_error, "No such file or directory"};
    return {boost::system::in_place_value, found->second};
  };
  out.exists = [files](const std::string& path) { return files.contains(path); };
  using Names = boost::system::result<std::vector<std::string>, std::string>;
  out.list = [files](const std::string& path) -> Names {
    std::vector<std::string> names;
    for (auto entry = files.rbegin(); entry != files.rend(); ++entry) {
      if (entry->first.starts_with(path + "/")) names.push_back(entry->first.substr(path.size() + 1));
    }
    if (names.empty()) return std::string("No such file or directory");
    return names;
  };
  return out;
}

inline std::vector<std::string> texts(const std::vector<Problem>& problems) {
  std::vector<std::string> out;
  for (const auto& problem : problems) out.push_back(to_string(problem));
  return out;
}

}  // namespace pgweir::core
