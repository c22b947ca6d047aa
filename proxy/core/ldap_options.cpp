// Implements ldap_options.hpp; URLs as in RFC 4516, without extensions.
#include "proxy/core/ldap_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "proxy/core/auth_file.hpp"
#include "proxy/core/hba_options.hpp"
#include "proxy/core/ip_address.hpp"

namespace pgweir::core {
namespace {

using Reasons = std::vector<std::string>;

constexpr std::string_view kUserPlace = "$username";

constexpr std::array<Word<LdapScope>, 3> kScopes{
    {{"base", LdapScope::Base}, {"one", LdapScope::OneLevel}, {"sub", LdapScope::Subtree}}};

// What may stand between "://" and the port: nothing that would end a URL's host or begin another URL.
bool is_server(std::string_view text) {
  const bool bracketed = text.size() > 2 && text.starts_with('[') && text.ends_with(']');
  if (bracketed) text = text.substr(1, text.size() - 2);
  if (bracketed || text.find(':') != std::string_view::npos) {
    const auto address = IpAddress::parse(text);
    return address && address->is_v6;
  }
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
  });
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Nothing if a % is not followed by two digits, or stands for a zero byte.
std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
    if (high < 0 || low < 0 || (high == 0 && low == 0)) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

// The next part of a URL, up to `end`, which is taken off too.
std::string_view take_until(std::string_view& text, char end) {
  const auto at = text.find(end);
  const auto part = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return part;
}

class UrlReader {
 public:
  UrlReader(LdapSettings& settings, Reasons& reasons) : settings_(settings), reasons_(reasons) {}

  /// Whether the URL says more than which server to ask.
  bool read(std::string_view url) {
    const auto scheme = url.substr(0, url.find("://"));
    if (scheme.size() == url.size() || (scheme != "ldap" && scheme != "ldaps")) {
      fail("expected a URL that starts with ldap:// or ldaps://");
      return false;
    }
    settings_.scheme = scheme;
    url.remove_prefix(scheme.size() + 3);
    const bool has_path = url.find('/') != std::string_view::npos;
    read_server(take_until(url, '/'));
    if (!has_path || url.empty()) return false;
    settings_.search = true;
    settings_.base_dn = decoded(take_until(url, '?'));
    const std::string attribute = decoded(take_until(url, '?'));
    if (attribute.find(',') != std::string::npos) fail("expected one attribute");
    if (!attribute.empty()) settings_.search_attribute = attribute;
    read_scope(take_until(url, '?'));
    const std::string filter = decoded(take_until(url, '?'));
    if (!filter.empty()) settings_.search_filter = filter;
    if (!url.empty()) fail("expected no extensions");
    return true;
  }

 private:
  void fail(std::string_view reason) { reasons_.push_back(fmt::format("ldapurl: {}", reason)); }

  std::string decoded(std::string_view text) {
    auto out = percent_decode(text);
    if (!out) fail("expected two hexadecimal digits, not both 0, after each %");
    return out.value_or(std::string());
  }

  void read_server(std::string_view text) {
    const auto colon = text.rfind(':');
    const bool has_port = colon != std::string_view::npos && text.find(']', colon) == std::string_view::npos;
    const auto server = text.substr(0, has_port ? colon : text.size());
    if (!server.empty()) {
      if (!is_server(server)) return fail("expected the name or the address of a server");
      settings_.servers = {std::string(server)};
    }
    if (!has_port) return;
    const auto port = parse_decimal(text.substr(colon + 1), 1, 65535);
    if (port.has_error()) return fail("expected a port from 1 to 65535");
    settings_.port = *port;
  }

  void read_scope(std::string_view text) {
    if (text.empty()) {
      settings_.scope = LdapScope::Base;  // of RFC 4516
      return;
    }
    const auto* found =
        std::find_if(kScopes.begin(), kScopes.end(), [&](const auto& word) { return word.text == text; });
    if (found == kScopes.end()) return fail("expected the scope base, one or sub");
    settings_.scope = found->value;
  }

  LdapSettings& settings_;
  Reasons& reasons_;
};

void read_servers(LdapSettings& settings, std::string_view text, Reasons& reasons) {
  settings.servers.clear();
  while (!text.empty()) {
    const auto server = take_until(text, ' ');
    if (server.empty()) continue;
    if (!is_server(server)) return reasons.push_back("ldapserver: expected names or addresses of servers");
    settings.servers.emplace_back(server);
  }
}

// One option whose value has been looked at by itself. True if it belongs to a search.
bool read_one(LdapSettings& settings, std::string_view name, const std::string& value, Reasons& reasons) {
  if (name == "ldapserver") read_servers(settings, value, reasons);
  if (name == "ldapport") {
    const auto port = parse_decimal(value, 1, 65535);
    settings.port = port.has_error() ? 0 : *port;
  }
  if (name == "ldapscheme") settings.scheme = value;
  if (name == "ldaptls") settings.start_tls = value == "1";
  if (name == "ldapprefix") settings.prefix = value;
  if (name == "ldapsuffix") settings.suffix = value;
  if (name == "ldapurl") return UrlReader(settings, reasons).read(value);
  if (name == "ldapbasedn") {
    settings.search = true;
    settings.base_dn = value;
  } else if (name == "ldapbinddn") {
    settings.bind_dn = value;
  } else if (name == "ldapbindpasswd") {
    settings.bind_password = value;
  } else if (name == "ldapsearchattribute") {
    settings.search_attribute = value;
  } else if (name == "ldapsearchfilter") {
    settings.search_filter = value;
  } else {
    return false;
  }
  return true;
}

void check_together(const LdapSettings& settings, bool names_given, bool search_given, Reasons& reasons) {
  if (names_given) {
    if (search_given) {
      reasons.push_back("expected either ldapprefix and ldapsuffix or the options of a search, not both");
    }
  } else if (!settings.search) {
    reasons.push_back("the method ldap needs ldapbasedn, ldapprefix, ldapsuffix or ldapurl");
  }
  if (!settings.search_attribute.empty() && !settings.search_filter.empty()) {
    reasons.push_back("expected either ldapsearchattribute or ldapsearchfilter, not both");
  }
}

}  // namespace

LdapSettings read_ldap_settings(const OptionValues& options, Reasons& reasons) {
  LdapSettings settings;
  bool names_given = false, search_given = false;
  for (const auto& [name, value] : options) {
    if (name == "ldapprefix" || name == "ldapsuffix") names_given = true;
    if (read_one(settings, name, value, reasons)) search_given = true;
  }
  check_together(settings, names_given, search_given, reasons);
  return settings;
}

Parsed<LdapSettings> parse_ldap_options(std::string_view text) {
  const auto refused = [](std::string reason) {
    return Parsed<LdapSettings>(boost::system::in_place_error, std::move(reason));
  };
  const AuthText read = read_auth_text(text, {}, {});
  if (!read.problems.empty()) return refused(read.problems.front().text);
  if (read.lines.size() != 1) return refused("expected name=value options, as at the end of a line of pg_hba.conf");
  HbaRule rule;
  rule.type = HbaType::Host;
  rule.method = HbaMethod::Ldap;
  std::vector<AuthToken> tokens;
  for (const auto& field : read.lines.front().fields) tokens.insert(tokens.end(), field.begin(), field.end());
  Reasons reasons;
  read_hba_options(tokens, rule, reasons);
  if (reasons.empty() && (rule.client_name_is_dn || rule.client_cert != HbaClientCert::None)) {
    reasons.emplace_back("expected ldap options only");
  }
  if (!reasons.empty()) return refused(std::move(reasons.front()));
  LdapSettings settings = read_ldap_settings(rule.options, reasons);
  if (!reasons.empty()) return refused(std::move(reasons.front()));
  return settings;
}

std::shared_ptr<const LdapSettings> shared_ldap_options(const std::optional<std::string>& text) {
  if (!text || text->empty()) return nullptr;
  auto parsed = parse_ldap_options(*text);
  if (parsed.has_error()) return nullptr;
  return std::make_shared<const LdapSettings>(std::move(*parsed));
}

LdapQuestion ldap_question(const LdapSettings& settings, std::string_view user) {
  LdapQuestion question;
  std::vector<std::string> servers = settings.servers;
  if (servers.empty() && (settings.port != 0 || settings.scheme != "ldap")) servers.emplace_back("localhost");
  for (const auto& server : servers) {
    const bool bare_v6 = server.find(':') != std::string::npos && !server.starts_with('[');
    if (!question.uris.empty()) question.uris += ' ';
    question.uris += fmt::format("{}://{}{}{}", settings.scheme, bare_v6 ? "[" : "", server, bare_v6 ? "]" : "");
    if (settings.port != 0) question.uris += fmt::format(":{}", settings.port);
  }
  question.start_tls = settings.start_tls;
  if (!settings.search) {
    question.bind_dn = settings.prefix + escape_dn_value(user) + settings.suffix;
    return question;
  }
  auto& search = question.search.emplace();
  search.bind_dn = settings.bind_dn;
  search.bind_password = settings.bind_password;
  search.base_dn = settings.base_dn;
  search.scope = settings.scope;
  const std::string value = escape_filter_value(user);
  if (settings.search_filter.empty()) {
    search.filter =
        fmt::format("({}={})", settings.search_attribute.empty() ? "uid" : settings.search_attribute, value);
    return question;
  }
  std::string_view rest = settings.search_filter;
  for (auto at = rest.find(kUserPlace); at != std::string_view::npos; at = rest.find(kUserPlace)) {
    search.filter.append(rest.substr(0, at)).append(value);
    rest.remove_prefix(at + kUserPlace.size());
  }
  search.filter.append(rest);
  return question;
}

std::string escape_dn_value(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool outer_blank = c == ' ' && (i == 0 || i + 1 == text.size());
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\{:02x}", static_cast<unsigned char>(c));
    } else {
      if (outer_blank || (c == '#' && i == 0) || std::string_view("\"+,;<=>\\").find(c) != std::string_view::npos) {
        out += '\\';
      }
      out += c;
    }
  }
  return out;
}

std::string escape_filter_value(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    // What is no ASCII may be no UTF-8 either, and must then be written so.
    if (byte < 0x20 || byte >= 0x7f || std::string_view("()*\\").find(c) != std::string_view::npos) {
      out += fmt::format("\\{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace pgweir::core
