// What a login is told of in the log, and the name that application_name_add_host gives it.
#include <catch2/catch.hpp>

#include "fake_host.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;

TEST_CASE("logins that fail are told of where PgBouncer does", "[session]") {
  World world(config_text(GENERATE("", "log_connections = 0\n")));
  const bool wanted = world.core.config().log_connections;
  world.feed(world.connect(), World::startup({{"user", "u"}, {"database", "nodb"}}));
  CHECK(world.host.logged("login failed: db=nodb user=u") == wanted);
  const std::string name(128, 'n');
  world.feed(world.connect(), World::startup({{"user", name}, {"database", "db"}}));
  CHECK(world.host.logged("login failed: db=db user=" + name) == wanted);
}

TEST_CASE("application_name_add_host", "[session]") {
  World world(config_text("application_name_add_host = 1\nlisten_port = 6543\n"));
  const bool unix_socket = GENERATE(false, true);
  const WirePtr client = world.connect(unix_socket, 1000);
  world.feed(client, World::startup({{"user", "u"}, {"database", "db"}, {"application_name", "psql"}}));
  const WirePtr server = world.server_up();
  const std::string wanted = unix_socket ? "psql - unix(1@box):6543" : "psql - 127.0.0.1:40000";
  CHECK(server->take().find(wanted) != std::string::npos);
  world.feed(server, complete("SET") + status("application_name", wanted) + ready());
  CHECK(client->take().find(status("application_name", wanted)) != std::string::npos);
}
