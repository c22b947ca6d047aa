// Connects to servers: an address for a name, then a non-blocking connect. It has no timeout of its own and no login;
// the caller cancels. Literal addresses, directories and abstract sockets bypass the lookup of names.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "proxy/io/event_set.hpp"
#include "proxy/io/resolver.hpp"
#include "proxy/io/socket_options.hpp"

namespace pgweir::io {

struct ConnectResult {
  int fd = -1;                 // Owned by the callee; -1 on failure. Non-blocking, close-on-exec, options applied.
  std::string error;           // "server DNS lookup failed" or "connect failed"; empty on success.
  std::string detail;          // The system's reason, for the log.
  sockaddr_storage address{};  // Where to; also with "connect failed".
  socklen_t address_length = 0;
};

/// All calls and callbacks on the thread of the EventSet, the callbacks within its batches.
class Connector {
 public:
  using Callback = std::function<void(ConnectResult)>;

  Connector(EventSet& events, NameLookup lookup);
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;
  /// Cancels everything.
  ~Connector();

  /// `host`: name, literal address, `/dir` or `@abstract` (PORT names the Unix socket inside it). `callback` is called
  /// exactly once, never from within connect(), unless cancelled before. Returns the token for cancel(), never 0.
  std::uint64_t connect(const std::string& host, int port, const TcpSettings& tcp, Callback callback);
  /// Afterwards the callback is not called any more and its descriptor is closed. Unknown tokens are ignored.
  void cancel(std::uint64_t token);

  /// Connects under way, name lookups included.
  [[nodiscard]] std::size_t pending() const noexcept { return attempts_.size(); }

 private:
  struct Attempt;
  void on_resolved(std::uint64_t token, const ResolvedName& name);
  void start_connect(std::uint64_t token, const sockaddr_storage& address, socklen_t length);
  void on_writable(std::uint64_t token);
  void finish_later(std::uint64_t token, ConnectResult result);
  void finish(std::uint64_t token, ConnectResult result);

  EventSet& events_;
  NameLookup lookup_;
  std::uint64_t last_token_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<Attempt>> attempts_;
  std::shared_ptr<bool> alive_;  // What it has deferred, or asked of the lookup, may outlive the connector.
};

}  // namespace pgweir::io
