#include "proxy/io/process.hpp"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <stdexcept>
#include <string>
#include <thread>

#include "proxy/io/clock.hpp"
#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;

namespace {

/// The id of a process that has ended and been waited for.
pid_t dead_pid() {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(0);
  REQUIRE(pid > 0);
  REQUIRE(::waitpid(pid, nullptr, 0) == pid);
  return pid;
}

/// Runs `action` in a child, as fork must be followed by nothing else in this process; gives its exit status.
template <typename Action>
int in_child(Action action) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    int status = 99;
    try {
      status = action();
    } catch (...) {
      status = 98;
    }
    ::_exit(status);
  }
  REQUIRE(pid > 0);
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("pidfile: created exclusively, removed with the object") {
  const TempDir dir;
  const std::string path = dir.file("pid");
  {
    const PidFile file = PidFile::create(path);
    CHECK(read_text(path) == std::to_string(::getpid()) + "\n");
    struct stat info {};
    REQUIRE(::stat(path.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777 & ~0644u) == 0);
    const std::string text = "pidfile '" + path + "' exists, another instance running?";
    CHECK_THROWS_WITH(PidFile::create(path), text);
    CHECK_THROWS_WITH(PidFile::check(path), text);
  }
  CHECK(::access(path.c_str(), F_OK) != 0);
}

TEST_CASE("pidfile: stale ones go, unreadable ones stay") {
  const TempDir dir;
  const std::string path = dir.file("pid");
  write_text(path, std::to_string(dead_pid()) + "\n");
  {
    PidFile file = PidFile::create(path);
    CHECK(read_text(path) == std::to_string(::getpid()) + "\n");
    const PidFile moved = std::move(file);
    file.remove();
    CHECK(::access(path.c_str(), F_OK) == 0);
  }
  for (const std::string text : {"", "hello", "-5", "12x"}) {
    write_text(path, text);
    CHECK_THROWS_AS(PidFile::check(path), std::runtime_error);
    CHECK(::access(path.c_str(), F_OK) == 0);
  }
  CHECK_THROWS_AS(PidFile::create(dir.file("missing/pid")), std::runtime_error);
}

TEST_CASE("users: root is refused, unknown users are told, switching drops root") {
  CHECK_THROWS_WITH(switch_user("no such user!"), "could not find user 'no such user!' to switch to");
  switch_user("");
  if (::geteuid() != 0) {
    refuse_root("pgweir");
    return;
  }
  CHECK_THROWS_WITH(refuse_root("pgweir"), "pgweir should not run as root");
  const int status = in_child([] {
    switch_user("nobody");
    refuse_root("pgweir");
    return ::geteuid() != 0 && ::setuid(0) != 0 ? 0 : 1;
  });
  CHECK(status == 0);
}

TEST_CASE("descriptor limit is raised up to the hard one") {
  const int status = in_child([] {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlim_t hard = limit.rlim_max;
    limit.rlim_cur = 64;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    const FdLimit some = raise_fd_limit(100);
    const FdLimit lower = raise_fd_limit(70);
    const FdLimit all = raise_fd_limit();
    ::getrlimit(RLIMIT_NOFILE, &limit);
    return some.soft == 100 && lower.soft == 100 && all.soft == hard && limit.rlim_cur == hard ? 0 : 1;
  });
  CHECK(status == 0);
}

TEST_CASE("daemonise leaves session and terminal, and the parent exits with 0") {
  int pipe_fds[2];
  REQUIRE(::pipe(pipe_fds) == 0);
  const pid_t test_session = ::getsid(0);
  const int status = in_child([&] {
    daemonise();
    char link[64] = "";
    const bool null = ::readlink("/proc/self/fd/2", link, sizeof link - 1) > 0 && std::string(link) == "/dev/null";
    const char answer = null && ::getsid(0) != test_session && ::getsid(0) != ::getpid() ? 'y' : 'n';
    return ::write(pipe_fds[1], &answer, 1) == 1 ? 0 : 1;
  });
  CHECK(status == 0);
  ::close(pipe_fds[1]);
  char answer = '?';
  CHECK(::read(pipe_fds[0], &answer, 1) == 1);
  CHECK(answer == 'y');
  ::close(pipe_fds[0]);
}

TEST_CASE("SIGPIPE is blocked in the thread that asks for it and those it starts") {
  std::thread([] {
    block_sigpipe();
    std::thread([] {
      sigset_t set;
      ::pthread_sigmask(SIG_BLOCK, nullptr, &set);
      CHECK(::sigismember(&set, SIGPIPE) == 1);
    }).join();
  }).join();
}

TEST_CASE("the monotonic clock does not go back") {
  const auto first = monotonic_now();
  CHECK(monotonic_now() >= first);
  CHECK(first.time_since_epoch().count() > 0);
}
