// The users file (`auth_file`): names and secrets, one pair of quoted strings a line. It keeps the secret's text; what
// kind of secret it is (plain, MD5, SCRAM) is recognised where a password is checked.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/core/config.hpp"

namespace pgweir::core {

struct UserList {
  std::map<std::string, std::string, std::less<>> users;  ///< name to secret; an empty secret matches nothing
  std::vector<Problem> problems;
};

/// Reads the text of the file `file_name` (used in problems only). At the first broken line it stops; the users before
/// it stay, as in PgBouncer. A name given twice keeps its last secret. Problems never repeat a secret.
[[nodiscard]] UserList parse_userlist(std::string_view text, const std::string& file_name);

}  // namespace pgweir::core
