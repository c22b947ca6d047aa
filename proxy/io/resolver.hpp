// Names to addresses, for the whole process: asks DNS and the hosts file through c-ares without blocking a thread,
// keeps answers and failures for a time, hands the addresses of a name out in turn, and watches the serial numbers of
// zones. Decides as PgBouncer does: the cache time is ours and not the record's, a literal address or a socket path
// never comes here, and only a new connection causes a lookup (or a changed zone).
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pool/time.hpp"
#include "proxy/io/event_set.hpp"
#include "proxy/io/timer.hpp"

namespace pgweir::io {

struct ResolverSettings {
  pool::Duration max_ttl = std::chrono::seconds(15);          ///< dns_max_ttl
  pool::Duration nxdomain_ttl = std::chrono::seconds(15);     ///< dns_nxdomain_ttl
  pool::Duration zone_check_period = pool::Duration::zero();  ///< dns_zone_check_period; zero: never
};

/// What a name is: one of its addresses, or none and why.
struct ResolvedName {
  std::optional<sockaddr_storage> address;  ///< without a port
  std::string failure;
};

/// Asks for one address of a name; the answer comes later, on the thread that asked, exactly once.
using NameLookup = std::function<void(const std::string& name, std::function<void(ResolvedName)>)>;

/// All calls and callbacks on the thread of the EventSet. The cache holds the names that were ever asked for: those
/// of the configuration.
class Resolver {
 public:
  using Callback = std::function<void(ResolvedName)>;
  using AddressesChanged = std::function<void(const std::string& name, const std::vector<sockaddr_storage>& addresses)>;

  /// One line of SHOW DNS_HOSTS.
  struct Host {
    std::string name;
    pool::TimePoint expires;
    std::vector<sockaddr_storage> addresses;  ///< empty: the lookup failed
  };
  /// One line of SHOW DNS_ZONES.
  struct Zone {
    std::string name;
    std::uint32_t serial = 0;  ///< 0: not known yet
    std::size_t names = 0;     ///< of the cache that belong to it
  };

  /// `resolv_conf`: read once, now; empty is the system's. `servers` ("address:port,…"), if not empty, replaces the
  /// name servers of that file. Throws std::runtime_error. `events` must outlive the object.
  Resolver(EventSet& events, const ResolverSettings& settings, const std::string& resolv_conf,
           const std::string& servers = {});
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;
  /// Callbacks that are still owed are not called any more.
  ~Resolver();

  /// `callback` is called exactly once, never from within lookup().
  void lookup(const std::string& name, Callback callback);
  /// The name of an address, if looking that name up gives the address again; else empty. Not kept: the addresses are
  /// clients', of which there are many. The callback as above.
  void lookup_name(const sockaddr_storage& address, std::function<void(std::string name)> callback);
  void set_settings(const ResolverSettings& settings);
  /// Called after a repeated lookup whose answer lacks an address of the answer before.
  void on_addresses_changed(AddressesChanged hook) { addresses_changed_ = std::move(hook); }

  [[nodiscard]] std::vector<Host> hosts() const;
  [[nodiscard]] std::vector<Zone> zones() const;
  /// Names being looked up, and callbacks that wait for them.
  [[nodiscard]] std::size_t queries() const;
  [[nodiscard]] std::size_t waiting() const;

 private:
  struct Name;
  struct Socket;
  struct Query;
  struct Reverse;
  struct CAres;

  void start_lookup(const std::string& name);
  void on_resolved(const std::string& name, int status, std::vector<sockaddr_storage> addresses);
  void deliver(Name& name, Callback callback);
  void confirm_name(std::unique_ptr<Reverse> query);
  void deliver_name(std::unique_ptr<Reverse> query);
  void watch(int fd, bool readable, bool writable);
  void arm_timer();
  void arm_zones();
  void check_zones();
  void on_serial(const std::string& zone, std::uint32_t serial);

  EventSet& events_;
  ResolverSettings settings_;
  AddressesChanged addresses_changed_;
  Timer timer_;  // c-ares' own timeouts
  Timer zone_timer_;
  std::map<std::string, std::unique_ptr<Name>> names_;
  std::map<std::string, std::uint32_t> serials_;
  std::map<int, std::unique_ptr<Socket>> sockets_;
  std::shared_ptr<bool> alive_;  // What it has deferred may outlive the resolver.
  std::unique_ptr<CAres> cares_;
};

/// "c-ares 1.18.1".
[[nodiscard]] std::string resolver_version();

}  // namespace pgweir::io
