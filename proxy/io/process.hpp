// What a daemon does to its own process: background, pidfile, user, limits. Texts and order of checks follow
// PgBouncer's. All functions are start-up code: one thread only; failures throw std::runtime_error with the text to
// log.
#pragma once

#include <cstddef>
#include <string>

namespace pgweir::io {

/// The file that names the running process; removed with the object.
class PidFile {
 public:
  PidFile() = default;
  PidFile(PidFile&& other) noexcept;
  PidFile& operator=(PidFile&& other) noexcept;
  ~PidFile();

  /// Throws "pidfile 'PATH' exists, another instance running?" if PATH names a live process or cannot be understood;
  /// removes it if that process is gone. For the check before daemonising.
  static void check(const std::string& path);
  /// check(), then creates PATH exclusively with "PID\n", mode 0644.
  [[nodiscard]] static PidFile create(const std::string& path);

  void remove() noexcept;

 private:
  std::string path_;
};

/// Forks twice, leaves the session, turns the standard streams to /dev/null. The parent exits with 0. Must be called
/// before any thread or io_context exists.
void daemonise();

/// Becomes `user` (name or number) with its groups; nothing if `user` is empty or already the own one.
void switch_user(const std::string& user);

/// Throws "PROGRAM should not run as root" if the effective user is root. `program` e.g. "pgweir".
void refuse_root(const std::string& program);

struct FdLimit {
  std::size_t soft;
  std::size_t hard;
};
/// Raises the soft RLIMIT_NOFILE to `wanted`, at most to the hard one (0: to the hard one); gives what is in force.
FdLimit raise_fd_limit(std::size_t wanted = 0);

/// Blocks SIGPIPE in this thread and all that it starts, and ignores SIGXFSZ: writes fail instead.
void block_sigpipe();

}  // namespace pgweir::io
