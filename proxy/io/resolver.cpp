#include "proxy/io/resolver.hpp"

#include <ares.h>
#include <arpa/nameser.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "proxy/io/clock.hpp"

namespace pgweir::io {

namespace {

/// The library's state of the process: before the first channel, on one thread.
void init_library() {
  static const int status = ::ares_library_init(ARES_LIB_INIT_ALL);
  if (status != ARES_SUCCESS) throw std::runtime_error(std::string("c-ares: ") + ::ares_strerror(status));
}

bool same_address(const sockaddr_storage& a, const sockaddr_storage& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

/// Without regard to ports and scopes.
bool same_host(const sockaddr& a, const sockaddr_storage& b) {
  if (a.sa_family != b.ss_family) return false;
  if (a.sa_family == AF_INET) {
    return std::memcmp(&reinterpret_cast<const sockaddr_in&>(a).sin_addr,
                       &reinterpret_cast<const sockaddr_in&>(b).sin_addr, sizeof(in_addr)) == 0;
  }
  return a.sa_family == AF_INET6 &&
         std::memcmp(&reinterpret_cast<const sockaddr_in6&>(a).sin6_addr,
                     &reinterpret_cast<const sockaddr_in6&>(b).sin6_addr, sizeof(in6_addr)) == 0;
}

bool contains(const std::vector<sockaddr_storage>& addresses, const sockaddr_storage& one) {
  return std::any_of(addresses.begin(), addresses.end(), [&](const auto& other) { return same_address(one, other); });
}

/// What follows the first dot; empty for a name without one.
std::string zone_of(const std::string& name) {
  const std::size_t dot = name.find('.');
  return dot == std::string::npos ? std::string() : name.substr(dot + 1);
}

}  // namespace

/// The cached answer for one name, and who waits for it.
struct Resolver::Name {
  std::vector<sockaddr_storage> addresses;  // Empty after a failure.
  std::vector<sockaddr_storage> last_good;  // What a new answer is compared with; a failure tells nothing.
  std::size_t next = 0;
  pool::TimePoint expires{};
  bool resolving = false;
  std::string failure;
  std::vector<Callback> waiting;
};

/// A socket of c-ares, which opens and closes it.
struct Resolver::Socket final : EventHandler {
  Resolver* resolver = nullptr;
  int fd = -1;
  void on_event(std::uint32_t epoll_events) override;
};

/// What a callback of c-ares is about. Belongs to the call and dies with its callback.
struct Resolver::Query {
  Resolver* resolver;
  std::string name;
};

/// A lookup of an address' name and then of that name's addresses.
struct Resolver::Reverse {
  Resolver* resolver;
  sockaddr_storage address;
  std::function<void(std::string)> callback;
  std::string name;
};

/// The C side: the channel, and the functions that it calls. None of them lets an exception through.
struct Resolver::CAres {
  ares_channel channel = nullptr;

  ~CAres() {
    if (channel != nullptr) ::ares_destroy(channel);
  }
  static void on_addresses(void* data, int status, int timeouts, ares_addrinfo* result) noexcept;
  static void on_name(void* data, int status, int timeouts, char* node, char* service) noexcept;
  static void on_confirmed(void* data, int status, int timeouts, ares_addrinfo* result) noexcept;
  static void on_soa(void* data, int status, int timeouts, unsigned char* answer, int length) noexcept;
  static void on_socket(void* data, ares_socket_t fd, int readable, int writable) noexcept {
    static_cast<Resolver*>(data)->watch(fd, readable != 0, writable != 0);
  }
};

namespace {
/// The channel is on its way out, or the query with it: nobody is to be told.
bool abandoned(int status) {
  return status == ARES_EDESTRUCTION || status == ARES_ECANCELLED;
}
}  // namespace

void Resolver::CAres::on_addresses(void* data, int status, int, ares_addrinfo* result) noexcept {
  const std::unique_ptr<Query> query(static_cast<Query*>(data));
  const std::unique_ptr<ares_addrinfo, void (*)(ares_addrinfo*)> owner(result, ::ares_freeaddrinfo);
  if (abandoned(status)) return;
  std::vector<sockaddr_storage> addresses;
  for (const ares_addrinfo_node* node = result != nullptr ? result->nodes : nullptr; node != nullptr;
       node = node->ai_next) {
    if (node->ai_addrlen > sizeof(sockaddr_storage)) continue;
    sockaddr_storage address{};
    std::memcpy(&address, node->ai_addr, node->ai_addrlen);
    if (!contains(addresses, address)) addresses.push_back(address);
  }
  query->resolver->on_resolved(query->name, status, std::move(addresses));
}

void Resolver::CAres::on_name(void* data, int status, int, char* node, char*) noexcept {
  std::unique_ptr<Reverse> query(static_cast<Reverse*>(data));
  if (abandoned(status)) return;
  Resolver& owner = *query->resolver;
  if (status != ARES_SUCCESS || node == nullptr) return owner.deliver_name(std::move(query));
  query->name = node;
  owner.confirm_name(std::move(query));
}

void Resolver::CAres::on_confirmed(void* data, int status, int, ares_addrinfo* result) noexcept {
  std::unique_ptr<Reverse> query(static_cast<Reverse*>(data));
  const std::unique_ptr<ares_addrinfo, void (*)(ares_addrinfo*)> owner(result, ::ares_freeaddrinfo);
  if (abandoned(status)) return;
  bool confirmed = false;
  for (const ares_addrinfo_node* node = result != nullptr ? result->nodes : nullptr; node != nullptr;
       node = node->ai_next) {
    if (node->ai_addrlen <= sizeof(sockaddr_storage) && same_host(*node->ai_addr, query->address)) confirmed = true;
  }
  if (!confirmed) query->name.clear();
  Resolver& resolver = *query->resolver;
  resolver.deliver_name(std::move(query));
}

void Resolver::CAres::on_soa(void* data, int status, int, unsigned char* answer, int length) noexcept {
  const std::unique_ptr<Query> query(static_cast<Query*>(data));
  if (status != ARES_SUCCESS) return;  // The serial stays what it was; the next check asks again.
  ares_soa_reply* reply = nullptr;
  if (::ares_parse_soa_reply(answer, length, &reply) != ARES_SUCCESS) return;
  const std::uint32_t serial = reply->serial;
  ::ares_free_data(reply);
  query->resolver->on_serial(query->name, serial);
}

void Resolver::Socket::on_event(std::uint32_t epoll_events) {
  Resolver& owner = *resolver;
  const bool failed = (epoll_events & (EPOLLERR | EPOLLHUP)) != 0;
  const bool readable = failed || (epoll_events & EPOLLIN) != 0;
  const bool writable = failed || (epoll_events & EPOLLOUT) != 0;
  // May close this socket, and with it delete this object.
  ::ares_process_fd(owner.cares_->channel, readable ? fd : ARES_SOCKET_BAD, writable ? fd : ARES_SOCKET_BAD);
  owner.arm_timer();
}

Resolver::Resolver(EventSet& events, const ResolverSettings& settings, const std::string& resolv_conf,
                   const std::string& servers)
    : events_(events),
      settings_(settings),
      timer_(events),
      zone_timer_(events),
      alive_(std::make_shared<bool>(true)),
      cares_(std::make_unique<CAres>()) {
  init_library();
  ares_options options{};
  std::string path = resolv_conf;
  options.sock_state_cb = CAres::on_socket;
  options.sock_state_cb_data = this;
  options.resolvconf_path = path.data();
  const int mask = ARES_OPT_SOCK_STATE_CB | (resolv_conf.empty() ? 0 : ARES_OPT_RESOLVCONF);
  int status = ::ares_init_options(&cares_->channel, &options, mask);
  if (status == ARES_SUCCESS && !servers.empty()) {
    status = ::ares_set_servers_ports_csv(cares_->channel, servers.c_str());
  }
  if (status != ARES_SUCCESS) throw std::runtime_error(std::string("c-ares: ") + ::ares_strerror(status));
  arm_zones();
}

Resolver::~Resolver() {
  *alive_ = false;
  cares_.reset();  // Closes its sockets through watch().
}

void Resolver::set_settings(const ResolverSettings& settings) {
  const bool other_period = settings.zone_check_period != settings_.zone_check_period;
  settings_ = settings;
  if (other_period) arm_zones();
}

// ---- lookups ----

void Resolver::lookup(const std::string& name, Callback callback) {
  auto& slot = names_[name];
  if (slot == nullptr) slot = std::make_unique<Name>();
  if (!slot->resolving && monotonic_now() < slot->expires) {
    deliver(*slot, std::move(callback));
    return;
  }
  slot->waiting.push_back(std::move(callback));
  start_lookup(name);
}

void Resolver::start_lookup(const std::string& name) {
  if (std::exchange(names_.at(name)->resolving, true)) return;
  ares_addrinfo_hints hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  ::ares_getaddrinfo(cares_->channel, name.c_str(), nullptr, &hints, CAres::on_addresses, new Query{this, name});
  arm_timer();
}

void Resolver::on_resolved(const std::string& host, int status, std::vector<sockaddr_storage> addresses) {
  Name& name = *names_.at(host);  // Names are never erased.
  const bool failed = status != ARES_SUCCESS || addresses.empty();
  const bool changed = !failed && std::any_of(name.last_good.begin(), name.last_good.end(),
                                              [&](const auto& old) { return !contains(addresses, old); });
  name.resolving = false;
  name.expires = monotonic_now() + (failed ? settings_.nxdomain_ttl : settings_.max_ttl);
  name.failure = failed ? ::ares_strerror(status != ARES_SUCCESS ? status : ARES_ENODATA) : "";
  name.addresses = failed ? std::vector<sockaddr_storage>() : std::move(addresses);
  if (!failed) name.last_good = name.addresses;
  if (name.next >= name.addresses.size()) name.next = 0;
  if (changed && addresses_changed_) {
    events_.defer([this, alive = alive_, host, now = name.addresses] {
      if (*alive) addresses_changed_(host, now);
    });
  }
  for (Callback& callback : std::exchange(name.waiting, {})) deliver(name, std::move(callback));
}

void Resolver::deliver(Name& name, Callback callback) {
  ResolvedName answer;
  if (name.addresses.empty()) {
    answer.failure = name.failure;
  } else {
    answer.address = name.addresses[name.next];
    name.next = (name.next + 1) % name.addresses.size();
  }
  events_.defer([alive = alive_, callback = std::move(callback), answer = std::move(answer)]() mutable {
    if (*alive) callback(std::move(answer));
  });
}

void Resolver::lookup_name(const sockaddr_storage& address, std::function<void(std::string)> callback) {
  const auto length =
      static_cast<ares_socklen_t>(address.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
  auto query = std::make_unique<Reverse>(Reverse{this, address, std::move(callback), {}});
  const auto* asked = reinterpret_cast<const sockaddr*>(&query->address);
  ::ares_getnameinfo(cares_->channel, asked, length, ARES_NI_LOOKUPHOST | ARES_NI_NAMEREQD, CAres::on_name,
                     query.release());
  arm_timer();
}

void Resolver::confirm_name(std::unique_ptr<Reverse> query) {
  ares_addrinfo_hints hints{};
  hints.ai_family = query->address.ss_family;
  hints.ai_socktype = SOCK_STREAM;
  const std::string name = query->name;
  ::ares_getaddrinfo(cares_->channel, name.c_str(), nullptr, &hints, CAres::on_confirmed, query.release());
  arm_timer();
}

void Resolver::deliver_name(std::unique_ptr<Reverse> query) {
  events_.defer([alive = alive_, callback = std::move(query->callback), name = std::move(query->name)]() mutable {
    if (*alive) callback(std::move(name));
  });
}

// ---- sockets and time of c-ares ----

void Resolver::watch(int fd, bool readable, bool writable) {
  const auto found = sockets_.find(fd);
  if (!readable && !writable) {
    if (found == sockets_.end()) return;
    events_.remove(fd, found->second.get());
    sockets_.erase(found);
    return;
  }
  const std::uint32_t wanted = (readable ? std::uint32_t{EPOLLIN} : 0U) | (writable ? std::uint32_t{EPOLLOUT} : 0U);
  // Where epoll has no room, the query ends by its timeout.
  if (found != sockets_.end()) {
    (void)events_.modify(fd, wanted, found->second.get());
    return;
  }
  auto socket = std::make_unique<Socket>();
  socket->resolver = this;
  socket->fd = fd;
  (void)events_.add(fd, wanted, socket.get());
  sockets_.emplace(fd, std::move(socket));
}

void Resolver::arm_timer() {
  timeval left{};
  if (::ares_timeout(cares_->channel, nullptr, &left) == nullptr) {
    timer_.cancel();
    return;
  }
  timer_.start_after(std::chrono::seconds(left.tv_sec) + std::chrono::microseconds(left.tv_usec), [this] {
    ::ares_process_fd(cares_->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm_timer();
  });
}

// ---- zones ----

void Resolver::arm_zones() {
  zone_timer_.cancel();
  if (settings_.zone_check_period <= pool::Duration::zero()) return;
  zone_timer_.start_after(settings_.zone_check_period, [this] {
    check_zones();
    arm_zones();
  });
}

void Resolver::check_zones() {
  for (const Zone& zone : zones()) {
    ::ares_query(cares_->channel, zone.name.c_str(), ns_c_in, ns_t_soa, CAres::on_soa, new Query{this, zone.name});
  }
  arm_timer();
}

void Resolver::on_serial(const std::string& zone, std::uint32_t serial) {
  const auto [known, first] = serials_.try_emplace(zone, serial);
  if (first || known->second == serial) return;
  known->second = serial;
  // Asked anew at once, so that servers at addresses that are gone do not wait for the next connection to be noticed.
  for (const auto& [name, entry] : names_) {
    if (zone_of(name) == zone) start_lookup(name);
  }
}

// ---- reports ----

std::vector<Resolver::Host> Resolver::hosts() const {
  std::vector<Host> hosts;
  for (const auto& [name, entry] : names_) {
    if (entry->expires != pool::TimePoint{}) hosts.push_back({name, entry->expires, entry->addresses});
  }
  return hosts;
}

std::vector<Resolver::Zone> Resolver::zones() const {
  std::map<std::string, Zone> zones;
  for (const auto& [name, entry] : names_) {
    const std::string zone = zone_of(name);
    if (zone.empty()) continue;
    Zone& row = zones[zone];
    row.name = zone;
    ++row.names;
    if (const auto known = serials_.find(zone); known != serials_.end()) row.serial = known->second;
  }
  std::vector<Zone> list;
  for (auto& [name, zone] : zones) list.push_back(std::move(zone));
  return list;
}

std::size_t Resolver::queries() const {
  return static_cast<std::size_t>(
      std::count_if(names_.begin(), names_.end(), [](const auto& entry) { return entry.second->resolving; }));
}

std::size_t Resolver::waiting() const {
  std::size_t count = 0;
  for (const auto& [name, entry] : names_) count += entry->waiting.size();
  return count;
}

std::string resolver_version() {
  return std::string("c-ares ") + ::ares_version(nullptr);
}

}  // namespace pgweir::io
