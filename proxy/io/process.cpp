#include "proxy/io/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "proxy/io/logger.hpp"

namespace pgweir::io {

namespace {

[[noreturn]] void throw_errno(const std::string& what) {
  throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
}

/// The number in a pidfile; none if it is not one line with a positive number.
std::optional<pid_t> parse_pid(std::string_view text) {
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  if (error != std::errc() || pid <= 0) return std::nullopt;
  const std::string_view rest(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (rest.find_first_not_of(" \r\n") != std::string_view::npos) return std::nullopt;
  return pid;
}

bool names_dead_process(int fd) {
  char text[64];
  const ssize_t length = ::read(fd, text, sizeof text);
  if (length <= 0) return false;
  const auto pid = parse_pid({text, static_cast<std::size_t>(length)});
  return pid && ::kill(*pid, 0) != 0 && errno == ESRCH;
}

}  // namespace

PidFile::PidFile(PidFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}

PidFile& PidFile::operator=(PidFile&& other) noexcept {
  if (this != &other) {
    remove();
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

PidFile::~PidFile() {
  remove();
}

void PidFile::check(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return;
    throw_errno(fmt::format("could not read pidfile '{}'", path));
  }
  const bool stale = names_dead_process(fd);
  ::close(fd);
  if (!stale) throw std::runtime_error(fmt::format("pidfile '{}' exists, another instance running?", path));
  log().info("stale pidfile, removing");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    throw_errno(fmt::format("could not remove stale pidfile '{}'", path));
}

PidFile PidFile::create(const std::string& path) {
  check(path);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) throw_errno(fmt::format("could not open pidfile '{}'", path));
  PidFile file;
  file.path_ = path;
  const std::string text = fmt::format("{}\n", ::getpid());
  const ssize_t written = ::write(fd, text.data(), text.size());
  const int close_result = ::close(fd);
  if (written != static_cast<ssize_t>(text.size()) || close_result != 0) {
    throw_errno(fmt::format("could not write pidfile '{}'", path));
  }
  return file;
}

void PidFile::remove() noexcept {
  if (!path_.empty()) ::unlink(path_.c_str());
  path_.clear();
}

void daemonise() {
  pid_t pid = ::fork();
  if (pid < 0) throw_errno("fork");
  if (pid > 0) ::_exit(0);
  if (::setsid() < 0) throw_errno("setsid");
  // The second child leads no session, so that it can never gain a terminal by opening one.
  pid = ::fork();
  if (pid < 0) throw_errno("fork");
  if (pid > 0) ::_exit(0);
  const int null = ::open("/dev/null", O_RDWR);
  if (null < 0) throw_errno("/dev/null");
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::dup2(null, fd) < 0) throw_errno("dup2");
  }
  if (null > STDERR_FILENO) ::close(null);
}

void switch_user(const std::string& user) {
  if (user.empty()) return;
  const passwd* entry = ::getpwnam(user.c_str());
  if (entry == nullptr) {
    uid_t number = 0;
    const auto [end, error] = std::from_chars(user.data(), user.data() + user.size(), number);
    if (error == std::errc() && end == user.data() + user.size()) entry = ::getpwuid(number);
  }
  if (entry == nullptr) throw std::runtime_error(fmt::format("could not find user '{}' to switch to", user));
  if (::geteuid() == entry->pw_uid && ::getuid() == entry->pw_uid) return;
  // Groups first: without root they could no longer be changed.
  if (::initgroups(entry->pw_name, entry->pw_gid) != 0) throw_errno("failed to reset groups");
  if (::setgid(entry->pw_gid) != 0 || ::setuid(entry->pw_uid) != 0) {
    throw_errno(fmt::format("failed to assume identity of user '{}'", user));
  }
  if (::getuid() != entry->pw_uid || ::geteuid() != entry->pw_uid) {
    throw std::runtime_error(fmt::format("failed to assume identity of user '{}'", user));
  }
}

void refuse_root(const std::string& program) {
  if (::geteuid() == 0) throw std::runtime_error(fmt::format("{} should not run as root", program));
}

FdLimit raise_fd_limit(std::size_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) throw_errno("could not get RLIMIT_NOFILE");
  const rlim_t target = wanted == 0 ? limit.rlim_max : std::min<rlim_t>(wanted, limit.rlim_max);
  if (target > limit.rlim_cur) {
    rlimit raised = limit;
    raised.rlim_cur = target;
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  return {limit.rlim_cur, limit.rlim_max};
}

void block_sigpipe() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // A log that has reached RLIMIT_FSIZE is a failed write, not the end of the service.
  ::signal(SIGXFSZ, SIG_IGN);
}

}  // namespace pgweir::io
