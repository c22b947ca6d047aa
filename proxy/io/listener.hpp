// Listening sockets, TCP and Unix, and accepting on them. Decides how addresses, modes and stale socket files are
// treated, as PgBouncer does; which worker gets a client is the callback's business.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proxy/io/event_set.hpp"
#include "proxy/io/timer.hpp"

namespace pgweir::io {

/// listen_*, unix_socket_*, so_reuseport, tcp_defer_accept and tcp_keepalive.
struct ListenSpec {
  std::string listen_addr;  // Comma list of addresses and names; `*` is all addresses; empty is no TCP.
  int port = 6432;
  int backlog = 128;
  bool reuse_port = false;
  int defer_accept = 1;
  bool keepalive = true;                 // What accepted sockets inherit.
  std::string unix_socket_dir = "/tmp";  // `@name` is abstract; empty is none.
  unsigned unix_socket_mode = 0777;
  std::string unix_socket_group;  // Name or number.
};

/// An owned listening socket. The file of a Unix socket is removed with it, unless released.
class ListenSocket {
 public:
  ListenSocket(int fd, bool is_unix, std::string text, std::string path);
  ListenSocket(ListenSocket&& other) noexcept;
  ListenSocket& operator=(ListenSocket&& other) noexcept;
  ~ListenSocket();

  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] bool is_unix() const noexcept { return is_unix_; }
  /// For "listening on …": "127.0.0.1:6432", "[::]:6432", "unix:/tmp/.s.PGSQL.6432".
  [[nodiscard]] const std::string& text() const noexcept { return text_; }
  /// Port the kernel chose (specs with port 0, in tests); 0 for Unix sockets.
  [[nodiscard]] int port() const;
  /// tcp_defer_accept from now on, 0 for off; nothing for Unix sockets. False, with errno, if the system refuses.
  [[nodiscard]] bool set_defer_accept(int seconds) const noexcept;
  /// Accepted sockets come with TCP_NODELAY and SO_KEEPALIVE as they have to be. Not of a listening socket that was
  /// somebody else's: what waits in its queue came before we could set anything.
  [[nodiscard]] bool hands_down_options() const noexcept { return hands_down_options_; }
  void set_hands_down_options() noexcept { hands_down_options_ = true; }
  /// tcp_keepalive from now on, for those that hand down their options.
  [[nodiscard]] bool set_keepalive(bool on) const noexcept;
  /// The address it is bound to, which is also that of accepted sockets; null for wildcards and Unix sockets.
  [[nodiscard]] const sockaddr_storage* address() const noexcept { return address_ ? &*address_ : nullptr; }
  /// Gives the descriptor away without removing the file.
  [[nodiscard]] int release() noexcept;
  void close() noexcept;

 private:
  int fd_;
  bool is_unix_;
  std::string text_;
  std::string path_;  // To be unlinked; empty for TCP and abstract sockets.
  bool hands_down_options_ = false;
  std::optional<sockaddr_storage> address_;
};

/// DIR/.s.PGSQL.PORT; with an abstract directory the leading `@` stays.
[[nodiscard]] std::string unix_socket_path(const std::string& dir, int port);

/// Throws std::runtime_error "unix socket is in use, cannot continue" if a process answers on the Unix socket of
/// `spec`, and "unix port N is in use" if PATH.lock exists. To be called before daemonising.
void check_unix_socket_unused(const ListenSpec& spec);

/// A blocking connection to the Unix socket of `spec`; -1 if nobody answers there.
[[nodiscard]] int connect_unix_socket(const ListenSpec& spec);

/// Is told of each address that cannot be listened on, at once.
using TellProblem = std::function<void(const std::string& text)>;

/// The TCP sockets of `spec`. Resolves names now (blocking: start-up only).
[[nodiscard]] std::vector<ListenSocket> open_tcp_listeners(const ListenSpec& spec, const TellProblem& tell);
/// The Unix socket of `spec`, none if there is no directory; a stale file is replaced. Throws std::runtime_error.
[[nodiscard]] std::optional<ListenSocket> open_unix_listener(const ListenSpec& spec);
/// Both. Throws std::runtime_error if the Unix socket fails or nothing is left ("nowhere to listen on").
[[nodiscard]] std::vector<ListenSocket> open_listeners(const ListenSpec& spec, const TellProblem& tell);
/// Sockets passed by systemd (LISTEN_PID, LISTEN_FDS), whose variables are then removed; empty if there are none.
[[nodiscard]] std::vector<ListenSocket> take_systemd_listeners();

/// A listening socket that comes from another process of this program, which has left its file to us. Owns `fd`.
[[nodiscard]] ListenSocket adopt_listener(int fd, const ListenSpec& spec);

/// Accepts on one socket. All calls and the callback on the thread of the EventSet.
class Listener final : private EventHandler {
 public:
  /// Takes a non-blocking, close-on-exec descriptor, which the callee owns. No socket option is applied yet.
  using AcceptCallback = std::function<void(int fd, const sockaddr_storage& peer, bool is_unix)>;

  Listener(EventSet& events, ListenSocket socket, AcceptCallback on_accept);
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() override;

  /// Starts or, after pause(), goes on. Out of descriptors or memory: waits kRetryPause before the next try.
  void start();
  /// Leaves new connections in the kernel's queue.
  void pause();
  /// Closes the socket and removes its file. Idempotent. The callback may call it.
  void close();
  /// As close(), but the file stays: another process has the socket too.
  void give_away();

  [[nodiscard]] const ListenSocket& socket() const noexcept { return socket_; }
  /// Hook for the log: called with errno when accepting failed and the listener pauses.
  void on_failure(std::function<void(int error)> hook) { on_failure_ = std::move(hook); }
  /// PgBouncer's 5 s; tests shorten it.
  void retry_pause(std::chrono::milliseconds pause) { retry_pause_ = pause; }

 private:
  void on_event(std::uint32_t epoll_events) override;
  void watch();
  void unwatch();
  void wait_and_retry(int error);

  EventSet& events_;
  ListenSocket socket_;
  Timer retry_timer_;
  AcceptCallback on_accept_;
  std::function<void(int)> on_failure_;
  std::chrono::milliseconds retry_pause_{5000};
  bool accepting_ = false;
  bool watched_ = false;
  int turn_ = 1;                  // So many are accepted at a time.
  std::uint64_t full_batch_ = 0;  // The last batch in which there were as many, and maybe more.
  std::shared_ptr<bool> alive_;   // The callback may destroy the listener.
};

}  // namespace pgweir::io
