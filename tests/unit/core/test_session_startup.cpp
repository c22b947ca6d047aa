// What a worker remembers of start-up packets: the next one with the same bytes is welcomed as the first was, with
// nothing that was the first one's own, and only as long as what was found out then holds.
#include <catch2/catch.hpp>
#include <memory>
#include <set>

#include "fake_host.hpp"
#include "proxy/core/session_table.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

namespace {

const auto kNamed = World::startup({{"user", "u"}, {"database", "db"}, {"TimeZone", "cet"}});

std::string without_key(std::string welcome) {
  const std::size_t key = welcome.find(made(protocol::append_ready_for_query, 'I'));
  REQUIRE(key != std::string::npos);
  return welcome.erase(key - 8, 8);
}

std::string login(World& world, const std::string& hello) {
  const WirePtr client = world.connect();
  world.feed(client, hello);
  return client->take();
}

}  // namespace

TEST_CASE("the same start-up packet gives the same welcome, with a key of its own", "[session]") {
  World world;
  world.byte_by_byte = GENERATE(false, true);
  (void)world.client();
  const WirePtr first = world.connect();
  world.feed(first, kNamed);
  CHECK(world.server->take() == query("SET TimeZone='cet';"));
  world.feed(world.server, status("TimeZone", "CET") + complete("SET") + ready());
  const std::string welcome = first->take();
  CHECK(welcome.find(status("TimeZone", "CET")) != std::string::npos);

  std::set<std::uint64_t> keys{key_in(welcome)};
  for (int i = 0; i < 3; ++i) {
    const std::string again = login(world, kNamed);
    CHECK(without_key(again) == without_key(welcome));
    keys.insert(key_in(again));
  }
  CHECK(keys.size() == 4);
  CHECK(world.server->take().empty());
  // Others are others.
  const std::string plain = login(world, World::startup({{"user", "u"}, {"database", "db"}}));
  CHECK(plain.find(status("TimeZone", "UTC")) != std::string::npos);
  CHECK(plain.find("CET") == std::string::npos);
}

TEST_CASE("clients with the same start-up packet go their own ways afterwards", "[session]") {
  World world;
  (void)world.client();
  const WirePtr one = world.connect();
  world.feed(one, kNamed);
  world.feed(world.server, status("TimeZone", "CET") + complete("SET") + ready());
  const WirePtr other = world.connect();
  world.feed(other, kNamed);
  (void)one->take(), (void)other->take();
  (void)world.server->take();

  world.feed(one, query("SET TimeZone = 'PST'"));
  CHECK(world.server->take() == query("SET TimeZone = 'PST'"));
  world.feed(world.server, status("TimeZone", "PST") + complete("SET") + ready());
  world.feed(other, query("SELECT 1"));
  CHECK(world.server->take() == query("SET TimeZone='CET';"));
  world.feed(world.server, status("TimeZone", "CET") + complete("SET") + ready());
  CHECK(world.server->take() == query("SELECT 1"));
  world.feed(world.server, complete("SELECT 1") + ready());
  const WirePtr third = world.connect();
  world.feed(third, kNamed);
  CHECK(third->take().find(status("TimeZone", "CET")) != std::string::npos);
}

TEST_CASE("what was known of a start-up packet is forgotten with what servers report", "[session]") {
  World world;
  (void)world.client();
  (void)login(world, World::startup({{"user", "u"}, {"database", "db"}}));
  world.core.forget_reports("db");
  const WirePtr client = world.connect();
  world.feed(client, World::startup({{"user", "u"}, {"database", "db"}}));
  // The idle server tells, since it is there.
  CHECK(types(client->take()) == "RSSSSSSSKZ");
  world.core.forget_reports("db");
  world.host.pools.reconnect("db", world.now, world.core.actions());
  world.settle();
  const WirePtr late = world.connect();
  world.feed(late, World::startup({{"user", "u"}, {"database", "db"}}));
  CHECK(late->written.empty());
  (void)world.server_up();
  CHECK(types(late->take()) == "RSSSSSSSKZ");
}

TEST_CASE("new settings are asked again about every start-up packet", "[session]") {
  World world;
  const auto hello = World::startup({{"user", "u"}, {"database", "db"}, {"nonsense", "1"}});
  (void)world.client();
  const WirePtr refused = world.connect();
  world.feed(refused, hello);
  world.feed(world.server, server_error("42704", "unrecognized configuration parameter") + ready());
  CHECK(refused->closed);

  world.core.set_settings(make_settings(config_text("ignore_startup_parameters = nonsense\n"), {{"u", "pw"}}));
  CHECK(types(login(world, hello)) == "RSSSSSSSKZ");
  CHECK(types(login(world, hello)) == "RSSSSSSSKZ");
  world.core.set_settings(make_settings(config_text("ignore_startup_parameters = nonsense\n"), {{"x", "pw"}}));
  CHECK(login(world, hello) == fatal("08P01", "\"trust\" authentication failed"));
  world.core.set_settings(make_settings(config_text("", "other = host=127.0.0.1\n"), {{"u", "pw"}}));
  CHECK(login(world, World::startup({{"user", "u"}, {"database", "db"}})) == fatal("08P01", "no such database: db"));
}

TEST_CASE("limits and refusals hold for a start-up packet that is known", "[session]") {
  World world(config_text("max_user_client_connections = 2\n"));
  const auto hello = World::startup({{"user", "u"}, {"database", "db"}});
  (void)world.client();
  const WirePtr second = world.connect();
  world.feed(second, hello);
  CHECK(types(second->take()) == "RSSSSSSSKZ");
  CHECK(login(world, hello) == fatal("08P01", "client connections exceeded (max_user_client_connections)"));
  world.hang_up(second);
  CHECK(types(login(world, hello)) == "RSSSSSSSKZ");
}

TEST_CASE("a disabled database is refused to a start-up packet that is known", "[session]") {
  World world;
  const auto hello = World::startup({{"user", "u"}, {"database", "db"}});
  (void)world.client();
  CHECK(types(login(world, hello)) == "RSSSSSSSKZ");
  (void)world.host.pools.set_disabled("db", true, world.now);
  CHECK(login(world, hello) == fatal("08P01", "database \"db\" is disabled"));
}

TEST_CASE("the alarm of a login ends with its client", "[session]") {
  World world;
  std::vector<WirePtr> silent;
  for (int i = 0; i < 50; ++i) silent.push_back(world.connect());
  CHECK(world.core.next_deadline() == world.now + seconds(60));
  for (const WirePtr& wire : silent) world.hang_up(wire);
  CHECK(world.core.next_deadline() == pool::kNever);
}

namespace {

struct Numbered {
  explicit Numbered(pool::ClientId number) : number_(number) {}
  [[nodiscard]] pool::ClientId id() const { return number_; }
  std::unique_ptr<Numbered> next_in_place;

 private:
  pool::ClientId number_;
};

std::vector<pool::ClientId> walk(const SessionTable<Numbered>& table) {
  std::vector<pool::ClientId> ids;
  for (const auto& [id, session] : table) {
    CHECK(session->id() == id);
    ids.push_back(id);
  }
  return ids;
}

}  // namespace

TEST_CASE("session table: two generations of an index share a place", "[session]") {
  SessionTable<Numbered> table;
  CHECK(table.empty());
  CHECK(table.begin() == table.end());
  const pool::ClientId a{3, 1}, b{3, 2}, c{7, 1};
  for (const pool::ClientId id : {a, c, b}) table.add(std::make_unique<Numbered>(id));
  CHECK(table.size() == 3);
  CHECK(walk(table) == std::vector<pool::ClientId>{b, a, c});
  for (const pool::ClientId id : {a, b, c}) CHECK(table.find(id)->id() == id);
  CHECK(table.find({3, 3}) == nullptr);
  CHECK(table.find({8, 1}) == nullptr);
  CHECK(table.take({3, 3}) == nullptr);
  CHECK(table.take(a)->id() == a);
  CHECK(table.take(a) == nullptr);
  CHECK(walk(table) == std::vector<pool::ClientId>{b, c});
  CHECK(table.take(b)->id() == b);
  CHECK(table.take(c)->id() == c);
  CHECK(table.empty());
  CHECK(walk(table).empty());
}
