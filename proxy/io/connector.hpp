// Connects to servers: name to addresses, the next address in turn, a non-blocking connect. It has no timeout of its
// own and no login; the caller cancels. Name resolution follows PgBouncer: literal addresses, directories and abstract
// sockets bypass DNS, answers are kept dns_max_ttl, failures dns_nxdomain_ttl.
#pragma once

#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "pool/time.hpp"
#include "proxy/io/socket_options.hpp"

namespace pgweir::io {

struct ConnectorSettings {
  pool::Duration dns_max_ttl = std::chrono::seconds(15);
  pool::Duration dns_nxdomain_ttl = std::chrono::seconds(15);
};

struct ConnectResult {
  int fd = -1;                 // Owned by the callee; -1 on failure. Non-blocking, close-on-exec, options applied.
  std::string error;           // "server DNS lookup failed" or "connect failed"; empty on success.
  std::string detail;          // The system's reason, for the log.
  sockaddr_storage address{};  // Where to; also with "connect failed".
  socklen_t address_length = 0;
};

/// One line of SHOW DNS_HOSTS.
struct DnsHost {
  std::string name;
  pool::TimePoint expires;
  std::vector<sockaddr_storage> addresses;  // Empty: the lookup failed.
};

/// All calls and callbacks on the thread of the io_context.
class Connector {
 public:
  using Callback = std::function<void(ConnectResult)>;
  using AddressesChanged = std::function<void(const std::string& host, const std::vector<sockaddr_storage>& addresses)>;

  explicit Connector(boost::asio::io_context& context, ConnectorSettings settings = {});
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;
  /// Cancels everything.
  ~Connector();

  /// `host`: name, literal address, `/dir` or `@abstract` (PORT names the Unix socket inside it). `callback` is called
  /// exactly once, never from within connect(), unless cancelled before. Returns the token for cancel(), never 0.
  std::uint64_t connect(const std::string& host, int port, const TcpSettings& tcp, Callback callback);
  /// Afterwards the callback is not called any more and its descriptor is closed. Unknown tokens are ignored.
  void cancel(std::uint64_t token);

  /// Takes effect with the next lookup.
  void set_settings(const ConnectorSettings& settings) { settings_ = settings; }
  /// Called after a repeated lookup whose answer lacks an address of the answer before.
  void on_addresses_changed(AddressesChanged hook) { addresses_changed_ = std::move(hook); }
  /// Forgets all answers (the next connect asks again).
  void flush_dns();
  [[nodiscard]] std::vector<DnsHost> dns_hosts() const;
  /// Connects under way, name lookups included.
  [[nodiscard]] std::size_t pending() const noexcept { return attempts_.size(); }

 private:
  struct Attempt;
  struct Name;

  void lookup(const std::string& host, std::uint64_t token);
  void start_lookup(const std::string& host);
  void on_resolved(const std::string& host, const boost::system::error_code& error,
                   const boost::asio::ip::tcp::resolver::results_type& results);
  void connect_in_turn(Name& name, std::uint64_t token);
  void start_connect(std::uint64_t token, const sockaddr_storage& address, socklen_t length);
  void on_writable(std::uint64_t token, const boost::system::error_code& error);
  void finish_later(std::uint64_t token, ConnectResult result);
  void finish(std::uint64_t token, ConnectResult result);

  boost::asio::io_context& context_;
  boost::asio::ip::tcp::resolver resolver_;
  ConnectorSettings settings_;
  AddressesChanged addresses_changed_;
  std::uint64_t last_token_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<Attempt>> attempts_;
  std::map<std::string, std::unique_ptr<Name>> names_;
  std::shared_ptr<bool> alive_;  // A completion queued in the io_context may outlive the connector.
};

}  // namespace pgweir::io
