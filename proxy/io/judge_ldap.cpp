// Asks a directory server whether it lets somebody in with a name and a password (PostgreSQL manual, "LDAP
// Authentication"). One connection for each question; every wait on it has an end. Referrals are not followed: another
// server than those that the configuration names must not have a say.
#include <fcntl.h>
#include <fmt/format.h>
#include <ldap.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "proxy/core/config_values.hpp"
#include "proxy/io/clock.hpp"
#include "proxy/io/password_checker.hpp"

namespace pgweir::io {

namespace {

using Microseconds = std::chrono::microseconds;

// For all that is asked about one password, and for connecting to one server.
constexpr auto kLibraryPatience = std::chrono::seconds(10);
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

// Ends connections when the time is up. The library's own timeout for TLS handshakes does not end them, and costs a
// whole processor while it lasts (2.5.13 with GnuTLS), so that handshakes block, and this is what bounds them.
class Watchdog {
 public:
  explicit Watchdog(pool::TimePoint end) : end_(end) {}
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
    for (const int fd : sockets_) ::close(fd);
  }

  /// False if it cannot be guarded. Our own descriptor of the socket is ended, which nobody else closes meanwhile.
  [[nodiscard]] bool guard(int fd) {
    const int own = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) return false;
    const std::lock_guard lock(mutex_);
    sockets_.push_back(own);
    if (bitten_) ::shutdown(own, SHUT_RDWR);
    if (thread_.joinable()) return true;
    try {
      thread_ = std::thread([this] { run(); });
    } catch (const std::system_error&) {
      return false;
    }
    return true;
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!over_ && monotonic_now() < end_) changed_.wait_for(lock, end_ - monotonic_now());
    if (over_) return;
    bitten_ = true;
    for (const int fd : sockets_) ::shutdown(fd, SHUT_RDWR);
  }

  const pool::TimePoint end_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int> sockets_;
  bool over_ = false, bitten_ = false;
  std::thread thread_;
};

// When the library has connected, before any handshake.
int on_connected(LDAP* handle, Sockbuf* buffer, LDAPURLDesc*, sockaddr*, ldap_conncb* context) noexcept {
  ber_socket_t fd = -1;
  const timeval none{-1, 0};
  const bool guarded = ::ber_sockbuf_ctrl(buffer, LBER_SB_OPT_GET_FD, &fd) == 1 &&
                       static_cast<Watchdog*>(context->lc_arg)->guard(fd) &&
                       ::ldap_set_option(handle, LDAP_OPT_NETWORK_TIMEOUT, &none) == LDAP_SUCCESS;
  return guarded ? 0 : -1;
}

void on_disconnected(LDAP*, Sockbuf*, ldap_conncb*) noexcept {}

using Message = std::unique_ptr<LDAPMessage, int (*)(LDAPMessage*)>;

class Directory {
 public:
  Directory() : watchdog_(end_) {
    callbacks_.lc_add = on_connected;
    callbacks_.lc_del = on_disconnected;
    callbacks_.lc_arg = &watchdog_;
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() { close(); }

  /// The first of the servers that can be reached.
  [[nodiscard]] bool open(const core::LdapQuestion& question) {
    init_library();
    std::string_view rest = question.uris;
    do {
      const std::string uri(rest.substr(0, rest.find(' ')));
      rest.remove_prefix(std::min(rest.size(), uri.size() + 1));
      close();
      if (connect(uri.empty() ? nullptr : uri.c_str(), question.start_tls)) return true;
    } while (!rest.empty() && monotonic_now() < end_);
    return false;
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

  [[nodiscard]] const std::string& reason() const { return reason_; }

 private:
  void close() {
    if (handle_ != nullptr) ::ldap_unbind_ext_s(handle_, nullptr, nullptr);
    handle_ = nullptr;
  }

  [[nodiscard]] bool connect(const char* uri, bool start_tls) {
    int code = ::ldap_initialize(&handle_, uri);
    if (code != LDAP_SUCCESS) return failed(code, "ldap_initialize");
    const int version = LDAP_VERSION3;
    const timeval patience = as_timeval(std::min<Microseconds>(kConnectPatience, time_left()));
    code = set(LDAP_OPT_PROTOCOL_VERSION, &version);
    if (code == LDAP_SUCCESS) code = set(LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
    if (code == LDAP_SUCCESS) code = set(LDAP_OPT_NETWORK_TIMEOUT, &patience);
    if (code == LDAP_SUCCESS) code = set(LDAP_OPT_TIMEOUT, &patience);  // of ldap_start_tls_s
    if (code == LDAP_SUCCESS) code = set(LDAP_OPT_CONNECT_CB, &callbacks_);
    if (code != LDAP_SUCCESS) return failed(code, "ldap_set_option");
    code = ::ldap_connect(handle_);
    if (code != LDAP_SUCCESS) return failed(code, "connect");
    if (!start_tls) return true;
    code = ::ldap_start_tls_s(handle_, nullptr, nullptr);
    return code == LDAP_SUCCESS || failed(code, "StartTLS");
  }

  int set(int option, const void* value) { return ::ldap_set_option(handle_, option, value); }

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

  const pool::TimePoint end_ = monotonic_now() + kLibraryPatience;
  Watchdog watchdog_;
  ldap_conncb callbacks_{};
  LDAP* handle_ = nullptr;
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
