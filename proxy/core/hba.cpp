// The reading half of hba.hpp: from the fields of a line to a rule. Keywords are those of PostgreSQL 18; what needs the
// catalog of roles (samerole, +role) is refused, because treating it as a name would change who is let in.
#include "proxy/core/hba.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "proxy/core/config_values.hpp"
#include "proxy/core/hba_options.hpp"

namespace pgweir::core {
namespace {

constexpr std::array<Word<HbaType>, 6> kTypes{{{"local", HbaType::Local},
                                               {"host", HbaType::Host},
                                               {"hostssl", HbaType::HostSsl},
                                               {"hostnossl", HbaType::HostNoSsl},
                                               {"hostgssenc", HbaType::HostGssEnc},
                                               {"hostnogssenc", HbaType::Host}}};

constexpr std::array<Word<HbaMethod>, 10> kMethods{{{"trust", HbaMethod::Trust},
                                                    {"reject", HbaMethod::Reject},
                                                    {"md5", HbaMethod::Md5},
                                                    {"password", HbaMethod::Password},
                                                    {"plain", HbaMethod::Password},
                                                    {"scram-sha-256", HbaMethod::ScramSha256},
                                                    {"cert", HbaMethod::Cert},
                                                    {"peer", HbaMethod::Peer},
                                                    {"pam", HbaMethod::Pam},
                                                    {"ldap", HbaMethod::Ldap}}};

// PostgreSQL's or PgBouncer's, but not possible here.
constexpr std::array<std::string_view, 8> kOtherMethods{"ident", "gss",   "sspi", "radius",
                                                        "bsd",   "oauth", "krb5", "any"};

template <typename Words>
const typename Words::value_type* find_word(const Words& words, std::string_view text) {
  const auto* found = std::find_if(words.begin(), words.end(), [text](const auto& word) { return word.text == text; });
  return found == words.end() ? nullptr : found;
}

template <typename Words>
std::string suggestion(std::string_view text, const Words& words) {
  std::vector<std::string_view> known;
  for (const auto& word : words) known.push_back(word.text);
  return did_you_mean(text, known);
}

bool is_label_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

// A name whose last label is a number is a mistyped address: no top-level domain is one.
bool is_host_name(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  if (text.starts_with('.')) text.remove_prefix(1);
  const auto last = text.substr(text.rfind('.') + 1);
  const bool ends_in_number = last.find_first_not_of("0123456789") == std::string_view::npos;
  const bool empty_label = text.empty() || text.starts_with('.') || text.find("..") != std::string_view::npos;
  return !ends_in_number && !empty_label &&
         std::all_of(text.begin(), text.end(), [](char c) { return c == '.' || is_label_character(c); });
}

class LineReader {
 public:
  LineReader(const AuthLine& line, HbaRules& out) : line_(line), out_(out) {
    rule_.file = line.file;
    rule_.line = line.line;
  }

  void read() {
    read_columns();
    if (reasons_.empty()) return out_.rules.push_back(std::move(rule_));
    for (auto& reason : reasons_) out_.problems.push_back({line_.file, line_.line, {}, std::move(reason)});
  }

 private:
  // Stops where the next column cannot be told; names and options that are wrong do not hide what follows.
  void read_columns() {
    if (!read_type()) return;
    if (!read_names("database", rule_.databases, true) || !read_names("user", rule_.users, false)) return;
    if (rule_.type != HbaType::Local && !read_address()) return;
    if (!read_method()) return;
    std::vector<AuthToken> options;
    for (; next_ < line_.fields.size(); ++next_) {
      options.insert(options.end(), line_.fields[next_].begin(), line_.fields[next_].end());
    }
    read_hba_options(options, rule_, reasons_);
    warn();
  }

  void fail(std::string reason) { reasons_.push_back(std::move(reason)); }
  void warning(std::string text) { out_.warnings.push_back({line_.file, line_.line, {}, std::move(text)}); }

  // The next column if it is one word, else null and a reason.
  const AuthToken* take_word(std::string_view what) {
    if (next_ >= line_.fields.size()) {
      fail(fmt::format("expected {}, got the end of the line", what));
      return nullptr;
    }
    const auto& field = line_.fields[next_++];
    if (field.size() != 1) {
      fail(fmt::format("expected {}, got a list", what));
      return nullptr;
    }
    return &field.front();
  }

  bool read_type() {
    const auto* token = take_word("a connection type");
    if (token == nullptr) return false;
    const auto* word = find_word(kTypes, token->text);
    if (word == nullptr) {
      fail(fmt::format("expected local, host, hostssl, hostnossl, hostgssenc or hostnogssenc, got {}{}",
                       quoted(token->text), suggestion(token->text, kTypes)));
      return false;
    }
    rule_.type = word->value;
    return true;
  }

  bool read_names(std::string_view what, HbaNames& names, bool are_databases) {
    if (next_ >= line_.fields.size()) {
      fail(fmt::format("expected a {}, got the end of the line", what));
      return false;
    }
    for (const auto& token : line_.fields[next_++]) read_name(what, token, names, are_databases);
    return true;
  }

  void read_name(std::string_view what, const AuthToken& token, HbaNames& names, bool are_databases) {
    const auto& text = token.text;
    const auto is_keyword = [&token](std::string_view word) { return !token.quoted && token.text == word; };
    if (text.empty()) return fail(fmt::format("expected a {}, got an empty name", what));
    if (is_keyword("all")) {
      names.all = true;
    } else if (are_databases && is_keyword("sameuser")) {
      names.same_user = true;
    } else if (are_databases && is_keyword("replication")) {
      names.replication = true;
    } else if (are_databases && (is_keyword("samerole") || is_keyword("samegroup"))) {
      fail(membership_unsupported(text));
    } else if (!token.quoted && text.front() == '+') {
      fail(membership_unsupported(quoted(text)));
    } else if (text.front() == '/') {
      // Quotes do not take away this meaning: a pattern with a comma needs them.
      auto pattern = NamePattern::compile(std::string_view(text).substr(1));
      if (pattern.has_error()) return fail(pattern.error());
      names.patterns.push_back(std::move(*pattern));
    } else {
      names.names.insert(text);
    }
  }

  bool read_address() {
    const auto* token = take_word("an address");
    if (token == nullptr) return false;
    const auto& text = token->text;
    auto& address = rule_.address;
    const auto is_keyword = [token](std::string_view word) { return !token->quoted && token->text == word; };
    if (is_keyword("all")) {
      address.kind = HbaAddress::Kind::All;
    } else if (is_keyword("samehost")) {
      address.kind = HbaAddress::Kind::SameHost;
    } else if (is_keyword("samenet")) {
      address.kind = HbaAddress::Kind::SameNet;
    } else if (text.find('/') != std::string::npos) {
      set_network(parse_cidr(text));
    } else if (IpAddress::parse(text)) {
      const auto* mask = take_word("a mask after the address");
      if (mask == nullptr) return false;
      auto network = parse_address_and_mask(text, mask->text);
      const bool known = network.has_value();
      set_network(std::move(network));
      return known;  // otherwise it may be the method that stands where the mask should
    } else if (is_host_name(text)) {
      address.kind = text.front() == '.' ? HbaAddress::Kind::HostSuffix : HbaAddress::Kind::HostName;
      address.host = text;
    } else {
      fail(fmt::format("expected all, samehost, samenet, an address or a host name, got {}", quoted(text)));
    }
    return true;
  }

  void set_network(Parsed<IpNetwork> network) {
    if (network.has_error()) return fail(network.error());
    rule_.address.kind = HbaAddress::Kind::Network;
    rule_.address.network = *network;
  }

  bool read_method() {
    const auto* token = take_word("a login method");
    if (token == nullptr) return false;
    const auto& text = token->text;
    // PostgreSQL reads ident so, too, where there is no ident server to ask.
    if (text == "ident" && rule_.type == HbaType::Local) {
      rule_.method = HbaMethod::Peer;
      return true;
    }
    if (const auto* word = find_word(kMethods, text)) {
      rule_.method = word->value;
      return true;
    }
    if (std::find(kOtherMethods.begin(), kOtherMethods.end(), text) != kOtherMethods.end()) {
      fail(fmt::format("the method {} is not supported", text));
    } else {
      fail(fmt::format("expected a login method, got {}{}", quoted(text), suggestion(text, kMethods)));
    }
    return false;
  }

  void warn() {
    if (!reasons_.empty()) return;
    const bool over_tcp = rule_.type != HbaType::Local;
    if (rule_.type == HbaType::HostGssEnc) warning("never matches: no connection is encrypted by GSSAPI");
    if (rule_.method == HbaMethod::Peer && over_tcp) warning("lets nobody in: peer works on Unix sockets only");
    if (rule_.method == HbaMethod::Cert && (!over_tcp || rule_.type == HbaType::HostNoSsl)) {
      warning("lets nobody in: cert works with TLS only");
    }
    if (rule_.address.kind == HbaAddress::Kind::Network && rule_.address.network.has_host_bits()) {
      warning("the address has bits set that the mask takes away; they do not count");
    }
  }

  const AuthLine& line_;
  HbaRules& out_;
  HbaRule rule_;
  std::size_t next_ = 0;
  std::vector<std::string> reasons_;
};

template <typename Words, typename Value>
std::string_view word_of(const Words& words, Value value) {
  const auto found =
      std::find_if(words.begin(), words.end(), [value](const auto& word) { return word.value == value; });
  return found == words.end() ? std::string_view() : found->text;
}

}  // namespace

std::string_view to_string(HbaType value) {
  return word_of(kTypes, value);
}

std::string_view to_string(HbaMethod value) {
  return word_of(kMethods, value);
}

HbaRules parse_hba(std::string_view text, const std::string& file, const AuthFiles& files) {
  auto read = read_auth_text(text, file, files);
  HbaRules out;
  out.problems = std::move(read.problems);
  for (const auto& line : read.lines) LineReader(line, out).read();
  sort_problems(out.problems);
  return out;
}

}  // namespace pgweir::core
