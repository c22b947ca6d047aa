#include "proxy/io/resolver.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "proxy/io/clock.hpp"
#include "proxy/io/listener.hpp"
#include "proxy/io/socket_options.hpp"
#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;
using namespace std::chrono_literals;

namespace {

constexpr std::uint16_t kTypeA = 1, kTypeSoa = 6, kTypePtr = 12;

void put16(std::string& out, std::size_t value) {
  out += static_cast<char>(value >> 8);
  out += static_cast<char>(value);
}

void put32(std::string& out, std::uint32_t value) {
  put16(out, value >> 16);
  put16(out, value & 0xFFFF);
}

/// A name server on a loopback port, in the EventSet of the test: knows IPv4 addresses, their names, and serials of
/// zones.
class NameServer final : EventHandler {
 public:
  explicit NameServer(EventSet& events) : events_(events), fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    REQUIRE(fd_ >= 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    socklen_t length = sizeof address;
    REQUIRE(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    port_ = ntohs(address.sin_port);
    REQUIRE(events_.add(fd_, EPOLLIN, this));
  }
  ~NameServer() override {
    events_.remove(fd_, this);
    ::close(fd_);
  }

  [[nodiscard]] std::string text() const { return "127.0.0.1:" + std::to_string(port_); }

  std::map<std::string, std::vector<std::string>> addresses;
  std::map<std::string, std::uint32_t> serials;
  std::map<std::string, std::string> pointers;  ///< names, by the name that stands for an address
  std::map<std::string, int> asked;             ///< questions for addresses (A) and zones (SOA), by name
  bool silent = false;

 private:
  void on_event(std::uint32_t) override {
    char packet[512];
    sockaddr_in peer{};
    socklen_t length = sizeof peer;
    const ssize_t got = ::recvfrom(fd_, packet, sizeof packet, 0, reinterpret_cast<sockaddr*>(&peer), &length);
    if (got < 17) return;
    const std::string question(packet, static_cast<std::size_t>(got));
    std::string name;
    std::size_t at = 12;
    while (question[at] != 0) {
      const auto size = static_cast<std::size_t>(question[at]);
      if (!name.empty()) name += '.';
      name += question.substr(at + 1, size);
      at += size + 1;
    }
    const auto type = static_cast<std::uint16_t>((question[at + 1] << 8) | question[at + 2]);
    if (type == kTypeA || type == kTypeSoa) ++asked[name];
    if (silent) return;
    const std::string reply = answer(question.substr(0, 2), question.substr(12, at + 5 - 12), name, type);
    ::sendto(fd_, reply.data(), reply.size(), 0, reinterpret_cast<sockaddr*>(&peer), length);
  }

  [[nodiscard]] std::string answer(const std::string& id, const std::string& question, const std::string& name,
                                   std::uint16_t type) const {
    std::vector<std::string> records;
    if (const auto found = addresses.find(name); type == kTypeA && found != addresses.end()) {
      for (const std::string& text : found->second) {
        in_addr address{};
        REQUIRE(::inet_pton(AF_INET, text.c_str(), &address) == 1);
        records.emplace_back(reinterpret_cast<const char*>(&address), sizeof address);
      }
    }
    if (const auto found = serials.find(name); type == kTypeSoa && found != serials.end()) {
      std::string soa("\0\0", 2);  // names of the master and of the mailbox: the root
      put32(soa, found->second);
      for (int i = 0; i < 4; ++i) put32(soa, 60);
      records.push_back(soa);
    }
    if (const auto found = pointers.find(name); type == kTypePtr && found != pointers.end()) {
      std::string encoded, rest = found->second + '.';
      for (std::size_t dot = rest.find('.'); dot != std::string::npos; dot = rest.find('.')) {
        encoded += static_cast<char>(dot) + rest.substr(0, dot);
        rest.erase(0, dot + 1);
      }
      records.push_back(encoded + '\0');
    }
    const bool known = addresses.contains(name) || serials.contains(name) || pointers.contains(name);
    std::string reply = id;
    put16(reply, known ? 0x8180 : 0x8183);
    put16(reply, 1);
    put16(reply, records.size());
    put32(reply, 0);
    reply += question;
    for (const std::string& data : records) {
      put16(reply, 0xC00C);
      put16(reply, type);
      put16(reply, 1);
      put32(reply, 0);  // a TTL of nothing, which must not matter
      put16(reply, data.size());
      reply += data;
    }
    return reply;
  }

  EventSet& events_;
  int fd_;
  int port_ = 0;
};

struct Fixture {
  EventSet events;
  NameServer server{events};
  std::optional<Resolver> resolver;
  std::vector<std::pair<std::string, std::vector<std::string>>> changes;

  explicit Fixture(const ResolverSettings& settings = {}) {
    resolver.emplace(events, settings, "", server.text());
    resolver->on_addresses_changed([this](const std::string& name, const std::vector<sockaddr_storage>& addresses) {
      changes.emplace_back(name, std::vector<std::string>());
      for (const auto& address : addresses) changes.back().second.push_back(address_host(address));
    });
  }

  /// The address, or "!" and the failure.
  std::string lookup(const std::string& name) {
    std::optional<std::string> result;
    resolver->lookup(name, [&](ResolvedName answer) {
      result = answer.address ? address_host(*answer.address) : "!" + answer.failure;
    });
    CHECK_FALSE(result);
    REQUIRE(run_until(events, [&] { return result.has_value(); }));
    return *result;
  }

  /// The confirmed name of an IPv4 address; empty if there is none.
  std::string name_of(const std::string& text) {
    sockaddr_storage address{};
    address.ss_family = AF_INET;
    REQUIRE(::inet_pton(AF_INET, text.c_str(), &reinterpret_cast<sockaddr_in&>(address).sin_addr) == 1);
    std::optional<std::string> result;
    resolver->lookup_name(address, [&](std::string name) { result = std::move(name); });
    CHECK_FALSE(result);
    REQUIRE(run_until(events, [&] { return result.has_value(); }));
    return *result;
  }
};

}  // namespace

TEST_CASE("resolver: an answer is kept for our own time, not the record's") {
  Fixture fixture;
  fixture.server.addresses["db.example"] = {"127.0.0.7"};
  CHECK(fixture.lookup("db.example") == "127.0.0.7");
  CHECK(fixture.lookup("db.example") == "127.0.0.7");
  CHECK(fixture.server.asked["db.example"] == 1);
  const auto hosts = fixture.resolver->hosts();
  REQUIRE(hosts.size() == 1);
  CHECK(hosts[0].name == "db.example");
  REQUIRE(hosts[0].addresses.size() == 1);
  CHECK(hosts[0].expires > monotonic_now() + 10s);
}

TEST_CASE("resolver: those who ask at the same time share one question, and take turns") {
  Fixture fixture;
  fixture.server.addresses["db.example"] = {"127.0.0.7", "127.0.0.8"};
  std::map<std::string, int> got;
  for (int i = 0; i < 4; ++i) {
    fixture.resolver->lookup("db.example", [&](ResolvedName answer) { ++got[address_host(answer.address.value())]; });
  }
  CHECK(fixture.resolver->queries() == 1);
  CHECK(fixture.resolver->waiting() == 4);
  REQUIRE(run_until(fixture.events, [&] { return got["127.0.0.7"] + got["127.0.0.8"] == 4; }));
  CHECK(got["127.0.0.7"] == 2);
  CHECK(fixture.server.asked["db.example"] == 1);
  CHECK(fixture.resolver->queries() == 0);
  CHECK(fixture.resolver->waiting() == 0);
}

TEST_CASE("resolver: a failure is kept too") {
  Fixture fixture({15s, 15s, 0s});
  CHECK(fixture.lookup("gone.example").substr(0, 1) == "!");
  CHECK(fixture.lookup("gone.example").size() > 1);
  CHECK(fixture.server.asked["gone.example"] == 1);
  CHECK(fixture.lookup("not a name!").substr(0, 1) == "!");
  fixture.resolver->set_settings({0s, 0s, 0s});
  fixture.server.addresses["later.example"] = {"127.0.0.9"};
  CHECK(fixture.lookup("later.example") == "127.0.0.9");
  fixture.server.addresses["later.example"] = {"127.0.0.10"};
  CHECK(fixture.lookup("later.example") == "127.0.0.10");  // nothing is kept for no time
}

TEST_CASE("resolver: addresses that are gone are told") {
  Fixture fixture({0s, 0s, 0s});
  fixture.server.addresses["db.example"] = {"127.0.0.7", "127.0.0.8"};
  fixture.lookup("db.example");
  fixture.server.addresses["db.example"] = {"127.0.0.7", "127.0.0.8", "127.0.0.9"};
  fixture.lookup("db.example");
  run_ready(fixture.events);
  CHECK(fixture.changes.empty());
  SECTION("at the next lookup") {
    fixture.server.addresses["db.example"] = {"127.0.0.8", "127.0.0.9"};
    fixture.lookup("db.example");
    REQUIRE(run_until(fixture.events, [&] { return !fixture.changes.empty(); }));
    CHECK(fixture.changes[0].first == "db.example");
    CHECK(fixture.changes[0].second.size() == 2);
  }
  SECTION("with a failure in between") {
    fixture.server.addresses.clear();
    CHECK(fixture.lookup("db.example").substr(0, 1) == "!");
    run_ready(fixture.events);
    CHECK(fixture.changes.empty());
    fixture.server.addresses["db.example"] = {"127.0.0.10"};
    CHECK(fixture.lookup("db.example") == "127.0.0.10");
    REQUIRE(run_until(fixture.events, [&] { return !fixture.changes.empty(); }));
    CHECK(fixture.changes.size() == 1);
  }
}

TEST_CASE("resolver: a zone with a new serial is asked anew at once") {
  Fixture fixture({1h, 1h, 20ms});
  fixture.server.addresses["db.example"] = {"127.0.0.7"};
  fixture.server.addresses["local"] = {"127.0.0.1"};
  fixture.server.serials["example"] = 1;
  fixture.lookup("db.example");
  fixture.lookup("local");
  const auto serial = [&] {
    const auto zones = fixture.resolver->zones();
    return zones.size() == 1 && zones[0].name == "example" && zones[0].names == 1 ? zones[0].serial : 0;
  };
  REQUIRE(run_until(fixture.events, [&] { return serial() == 1; }));
  const int asked = fixture.server.asked["example"];
  REQUIRE(run_until(fixture.events, [&] { return fixture.server.asked["example"] >= asked + 2; }));
  CHECK(fixture.server.asked["db.example"] == 1);
  fixture.server.addresses["db.example"] = {"127.0.0.8"};
  fixture.server.serials["example"] = 2;
  REQUIRE(run_until(fixture.events, [&] { return !fixture.changes.empty(); }));
  CHECK(serial() == 2);
  CHECK(fixture.lookup("db.example") == "127.0.0.8");
  CHECK(fixture.server.asked["db.example"] == 2);
  fixture.resolver->set_settings({1h, 1h, 0s});
  run_ready(fixture.events);
  const int last = fixture.server.asked["example"];
  bool over = false;
  Timer wait(fixture.events);
  wait.start_after(100ms, [&] { over = true; });
  REQUIRE(run_until(fixture.events, [&] { return over; }));
  CHECK(fixture.server.asked["example"] == last);
}

TEST_CASE("resolver: the name of an address counts if it has the address") {
  Fixture fixture;
  fixture.server.pointers["7.0.0.127.in-addr.arpa"] = "client.example";
  fixture.server.pointers["8.0.0.127.in-addr.arpa"] = "client.example";  // says who has that address
  fixture.server.pointers["9.0.0.127.in-addr.arpa"] = "gone.example";
  fixture.server.addresses["client.example"] = {"127.0.0.6", "127.0.0.7"};
  CHECK(fixture.name_of("127.0.0.7") == "client.example");
  CHECK(fixture.name_of("127.0.0.8").empty());
  CHECK(fixture.name_of("127.0.0.9").empty());
  CHECK(fixture.name_of("127.0.0.10").empty());
  CHECK(fixture.resolver->hosts().empty());  // clients' names are not kept
  // Asked anew each time.
  fixture.server.addresses["client.example"] = {"127.0.0.6"};
  CHECK(fixture.name_of("127.0.0.7").empty());
}

TEST_CASE("resolver: the hosts file") {
  Fixture fixture;
  const std::string address = fixture.lookup("localhost");
  CHECK((address == "127.0.0.1" || address == "::1"));
  CHECK(fixture.server.asked.empty());
}

TEST_CASE("resolver: goes away with questions open") {
  Fixture fixture;
  fixture.server.silent = true;
  bool called = false;
  fixture.resolver->lookup("db.example", [&](const ResolvedName&) { called = true; });
  sockaddr_storage address{};
  address.ss_family = AF_INET;
  fixture.resolver->lookup_name(address, [&](const std::string&) { called = true; });
  REQUIRE(run_until(fixture.events, [&] { return fixture.server.asked["db.example"] == 1; }));
  CHECK(fixture.resolver->queries() == 1);
  CHECK(fixture.resolver->hosts().empty());
  fixture.resolver.reset();
  run_ready(fixture.events);
  CHECK_FALSE(called);
}

TEST_CASE("resolver: a file of its own for the name servers") {
  const TempDir dir;
  EventSet events;
  std::ofstream(dir.file("resolv.conf")) << "nameserver 127.0.0.1\n";
  const Resolver resolver(events, {}, dir.file("resolv.conf"));
  CHECK(resolver.hosts().empty());
  CHECK_THROWS_AS(Resolver(events, {}, "", "not an address"), std::runtime_error);
}
