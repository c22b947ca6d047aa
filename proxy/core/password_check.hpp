// A password that somebody else has to judge, PAM or a directory server: what is asked and what comes back. Such
// questions block whoever asks them, so the Host has threads of its own for them and answers later.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

namespace pgweir::core {

struct PamQuestion {
  std::string service;        ///< a file in /etc/pam.d
  bool use_hostname = false;  ///< the client's host is told by its name instead of its address
};

enum class LdapScope : std::uint8_t { Base, OneLevel, Subtree };

/// For one user: everything is written out, and what comes from the client is escaped.
struct LdapQuestion {
  struct Search {
    std::string bind_dn, bind_password;  ///< to search as; empty: as nobody
    std::string base_dn, filter;
    LdapScope scope = LdapScope::Subtree;
  };

  std::string uris;        ///< separated by blanks, tried in turn; none: what the library takes by itself
  bool start_tls = false;  ///< on a connection that begins in clear text
  std::string bind_dn;     ///< whose password it is, unless a search tells
  std::optional<Search> search;
};

struct PasswordQuestion {
  std::variant<PamQuestion, LdapQuestion> by;
  std::string user;
  std::string password;     ///< never empty: to a directory server that would mean nobody, who is always let in
  std::string client_host;  ///< numeric; empty for a Unix socket
};

struct PasswordVerdict {
  bool right = false;
  std::string reason;  ///< for the log, if it is not: may repeat what others say, but no password
};

}  // namespace pgweir::core
