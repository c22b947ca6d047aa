// Asks a directory server whether it lets somebody in with a name and a password (PostgreSQL manual, "LDAP
// Authentication"). One connection for each question; every wait on it has an end. Referrals are not followed: another
// server than those that the configuration names must not have a say.
#include <fmt/format.h>
#include <ldap.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "proxy/core/config_values.hpp"
#include "proxy/io/clock.hpp"
#include "proxy/io/password_checker.hpp"

namespace pgweir::io {

namespace {

using Microseconds = std::chrono::microseconds;

// For all that is asked about one password, and for connecting to one server.
constexpr auto kPatience = std::chrono::seconds(10);
constexpr auto kConnectPatience = std::chrono::seconds(5);

timeval as_timeval(Microseconds time) {
  timeval result{};
  result.tv_sec = static_cast<time_t>(time.count() / 1'000'000);
  result.tv_usec = static_cast<suseconds_t>(time.count() % 1'000'000);
  return result;
}

// The library reads ldap.conf at its first use: on one thread.
void init_library() {
  static std::once_flag once;
  std::call_once(once, [] {
    int ignored = 0;
    ::ldap_get_option(nullptr, LDAP_OPT_PROTOCOL_VERSION, &ignored);
  });
}

int scope_of(core::LdapScope scope) {
  switch (scope) {
    case core::LdapScope::Base:
      return LDAP_SCOPE_BASE;
    case core::LdapScope::OneLevel:
      return LDAP_SCOPE_ONELEVEL;
    case core::LdapScope::Subtree:
      break;
  }
  return LDAP_SCOPE_SUBTREE;
}

using Message = std::unique_ptr<LDAPMessage, int (*)(LDAPMessage*)>;

class Directory {
 public:
  Directory() = default;
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() {
    if (handle_ != nullptr) ::ldap_unbind_ext_s(handle_, nullptr, nullptr);
  }

  [[nodiscard]] bool open(const core::LdapQuestion& question) {
    init_library();
    int code = ::ldap_initialize(&handle_, question.uris.empty() ? nullptr : question.uris.c_str());
    if (code != LDAP_SUCCESS) return failed(code, "ldap_initialize");
    const int version = LDAP_VERSION3;
    const timeval connect = as_timeval(kConnectPatience);
    code = set(LDAP_OPT_PROTOCOL_VERSION, &version);
    if (code == LDAP_SUCCESS) code = set(LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
    if (code == LDAP_SUCCESS) code = set(LDAP_OPT_NETWORK_TIMEOUT, &connect);
    if (code == LDAP_SUCCESS) code = set(LDAP_OPT_TIMEOUT, &connect);  // of ldap_start_tls_s
#ifdef LDAP_OPT_TCP_USER_TIMEOUT
    const unsigned user_timeout_ms = static_cast<unsigned>(std::chrono::milliseconds(kPatience).count());
    (void)set(LDAP_OPT_TCP_USER_TIMEOUT, &user_timeout_ms);
#endif
    if (code != LDAP_SUCCESS) return failed(code, "ldap_set_option");
    if (!question.start_tls) return true;
    code = ::ldap_start_tls_s(handle_, nullptr, nullptr);
    return code == LDAP_SUCCESS || failed(code, "StartTLS");
  }

  [[nodiscard]] bool bind(const std::string& name, const std::string& password) {
    const std::string what = name.empty() ? std::string("anonymous bind") : "bind as " + core::quoted(name);
    berval credentials{password.size(), const_cast<char*>(password.data())};
    int id = -1;
    int code = ::ldap_sasl_bind(handle_, name.c_str(), LDAP_SASL_SIMPLE, &credentials, nullptr, nullptr, &id);
    if (code != LDAP_SUCCESS) return failed(code, what);
    const Message answer = wait_for(id);
    if (!answer) return failed(result_code(), what);
    int outcome = LDAP_OTHER;
    char* diagnostic = nullptr;
    code = ::ldap_parse_result(handle_, answer.get(), &outcome, nullptr, &diagnostic, nullptr, nullptr, 0);
    const std::unique_ptr<char, void (*)(void*)> owner(diagnostic, ::ldap_memfree);
    if (code == LDAP_SUCCESS && outcome == LDAP_SUCCESS) return true;
    return failed(code != LDAP_SUCCESS ? code : outcome, what, diagnostic);
  }

  /// The name of the one entry that is found.
  [[nodiscard]] bool find(const core::LdapQuestion::Search& search, std::string& name) {
    const std::string what = "search for " + core::quoted(search.filter);
    char no_attributes[] = LDAP_NO_ATTRS;
    char* attributes[] = {no_attributes, nullptr};
    timeval left = as_timeval(time_left());
    LDAPMessage* found = nullptr;
    const int code = ::ldap_search_ext_s(handle_, search.base_dn.c_str(), scope_of(search.scope), search.filter.c_str(),
                                         attributes, 0, nullptr, nullptr, &left, 2, &found);
    const Message owner(found, ::ldap_msgfree);
    // Two are as many as are asked for: then there may be more.
    const int count = found != nullptr ? ::ldap_count_entries(handle_, found) : 0;
    if (code != LDAP_SUCCESS && code != LDAP_SIZELIMIT_EXCEEDED) return failed(code, what);
    if (count != 1 || code != LDAP_SUCCESS) {
      reason_ = what + (count == 0 ? ": no entry" : ": more than one entry");
      return false;
    }
    const std::unique_ptr<char, void (*)(void*)> dn(::ldap_get_dn(handle_, ::ldap_first_entry(handle_, found)),
                                                    ::ldap_memfree);
    // Without a name everybody would be nobody, whatever the password.
    if (!dn || *dn == '\0') {
      reason_ = what + ": an entry without a name";
      return false;
    }
    name = dn.get();
    return true;
  }

  [[nodiscard]] const std::string& reason() const {
    return reason_;
  }

 private:
  int set(int option, const void* value) {
    return ::ldap_set_option(handle_, option, value);
  }

  // At least a moment: what has been answered already is still taken.
  [[nodiscard]] Microseconds time_left() const {
    const auto left = std::chrono::duration_cast<Microseconds>(end_ - monotonic_now());
    return std::max(left, Microseconds(1000));
  }

  Message wait_for(int id) {
    timeval left = as_timeval(time_left());
    LDAPMessage* answer = nullptr;
    const int type = ::ldap_result(handle_, id, LDAP_MSG_ALL, &left, &answer);
    timed_out_ = type == 0;
    if (type == 0) ::ldap_abandon_ext(handle_, id, nullptr, nullptr);
    return {type > 0 ? answer : nullptr, ::ldap_msgfree};
  }

  [[nodiscard]] int result_code() const {
    int code = LDAP_OTHER;
    if (!timed_out_) ::ldap_get_option(handle_, LDAP_OPT_RESULT_CODE, &code);
    return timed_out_ ? LDAP_TIMEOUT : code;
  }

  bool failed(int code, const std::string& what, const char* diagnostic = nullptr) {
    reason_ = fmt::format("{}: {}", what, ::ldap_err2string(code));
    char* last = nullptr;
    if (diagnostic == nullptr && handle_ != nullptr) ::ldap_get_option(handle_, LDAP_OPT_DIAGNOSTIC_MESSAGE, &last);
    const std::unique_ptr<char, void (*)(void*)> owner(last, ::ldap_memfree);
    if (diagnostic == nullptr) diagnostic = last;
    if (diagnostic != nullptr && *diagnostic != '\0') reason_ += fmt::format(" ({})", core::quoted(diagnostic));
    return false;
  }

  LDAP* handle_ = nullptr;
  pool::TimePoint end_ = monotonic_now() + kPatience;
  bool timed_out_ = false;
  std::string reason_;
};

bool lets_in(Directory& directory, const core::LdapQuestion& ldap, const std::string& password) {
  if (!directory.open(ldap)) return false;
  std::string name = ldap.bind_dn;
  if (ldap.search) {
    if (!directory.bind(ldap.search->bind_dn, ldap.search->bind_password)) return false;
    if (!directory.find(*ldap.search, name)) return false;
  }
  return directory.bind(name, password);
}

}  // namespace

Judgement judge_by_ldap(const core::LdapQuestion& ldap, const core::PasswordQuestion& question) {
  Judgement result;
  Directory directory;
  result.verdict.right = lets_in(directory, ldap, question.password);
  if (!result.verdict.right) {
    const std::string_view server = ldap.uris.empty() ? std::string_view("the server of ldap.conf") : ldap.uris;
    result.verdict.reason = fmt::format("{}: {}", server, directory.reason());
  }
  return result;
}

}  // namespace pgweir::io
