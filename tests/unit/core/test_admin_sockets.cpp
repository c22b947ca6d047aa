// SHOW CLIENTS, SERVERS, SOCKETS and ACTIVE_SOCKETS: columns, values, and which connection each lists under what name.
#include <catch2/catch.hpp>

#include "admin_test.hpp"
#include "proxy/core/admin_format.hpp"

using namespace pgweir::core;
using admin_test::read_table;
using admin_test::Row;

namespace {

const std::vector<std::string> kColumns{"type t",
                                        "user t",
                                        "database t",
                                        "replication t",
                                        "state t",
                                        "addr t",
                                        "port i",
                                        "local_addr t",
                                        "local_port i",
                                        "connect_time t",
                                        "request_time t",
                                        "wait i",
                                        "wait_us i",
                                        "close_needed i",
                                        "ptr t",
                                        "link t",
                                        "remote_pid i",
                                        "tls t",
                                        "application_name t",
                                        "prepared_statements i",
                                        "id i"};
const std::vector<std::string> kBufferColumns{"recv_pos i",    "pkt_pos i",   "pkt_remain i", "send_pos i",
                                              "send_remain i", "pkt_avail i", "send_avail i"};

std::string fake_time(std::int64_t unix_us) {
  return "at " + std::to_string(unix_us);
}

SocketRow full_row() {
  SocketRow row;
  row.state = SocketState::ClActive;
  row.user = "joe";
  row.database = "app";
  row.replication = Replication::Logical;
  row.addr = "127.0.0.1";
  row.port = 50000;
  row.local_addr = "127.0.0.2";
  row.local_port = 6432;
  row.connect_time = 1'700'000'000'000'001;
  row.request_time = 1'700'000'000'000'002;
  row.wait = std::chrono::microseconds(3'000'004);
  row.close_needed = true;
  row.ptr = 0xabc0;
  row.link = 0xdef0;
  row.remote_pid = 4711;
  row.tls = "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=prime256v1";
  row.application_name = "psql";
  row.prepared_statements = 5;
  row.id = 99;
  row.recv_pos = 1;
  row.pkt_pos = 2;
  row.pkt_remain = 3;
  row.send_pos = 4;
  row.send_remain = 0;
  row.pkt_avail = 6;
  row.send_avail = 7;
  return row;
}

const Row kFullRow{"C",
                   "joe",
                   "app",
                   "logical",
                   "active",
                   "127.0.0.1",
                   "50000",
                   "127.0.0.2",
                   "6432",
                   "at 1700000000000001",
                   "at 1700000000000002",
                   "3",
                   "4",
                   "1",
                   "0xabc0",
                   "0xdef0",
                   "4711",
                   "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=prime256v1",
                   "psql",
                   "5",
                   "99"};

/// One connection in each state, with its place in this list as id.
std::vector<SocketRow> all_states() {
  std::vector<SocketRow> rows;
  for (const SocketState state :
       {SocketState::ClLogin, SocketState::ClActive, SocketState::ClIdle, SocketState::ClWaiting,
        SocketState::ClActiveCancelReq, SocketState::ClWaitingCancelReq, SocketState::SvLogin, SocketState::SvActive,
        SocketState::SvIdle, SocketState::SvUsed, SocketState::SvTested, SocketState::SvActiveCancel,
        SocketState::SvBeingCanceled}) {
    SocketRow row;
    row.state = state;
    row.id = rows.size();
    rows.push_back(row);
  }
  return rows;
}

/// Type, state and id of each row.
std::vector<Row> states_in(const std::string& bytes) {
  std::vector<Row> states;
  for (const Row& row : read_table(bytes).rows) states.push_back({row[0], row[4], row[20]});
  return states;
}

}  // namespace

TEST_CASE("SHOW CLIENTS has 21 columns, SHOW SERVERS two of ours more", "[admin]") {
  std::string clients, servers;
  append_show_clients(clients, std::vector{full_row()}, fake_time);
  SocketRow server = full_row();
  server.state = SocketState::SvUsed;
  server.host = "db1";
  server.role = "standby";
  append_show_servers(servers, std::vector{server}, fake_time);
  CHECK(kColumns.size() == 21);
  CHECK(read_table(clients).columns == kColumns);
  CHECK(read_table(clients).rows == std::vector<Row>{kFullRow});
  std::vector<std::string> columns = kColumns;
  columns.insert(columns.end(), {"host t", "role t"});
  CHECK(read_table(servers).columns == columns);
  Row expected = kFullRow;
  expected[0] = "S";
  expected[4] = "used";
  expected.insert(expected.end(), {"db1", "standby"});
  CHECK(read_table(servers).rows == std::vector<Row>{expected});
}

TEST_CASE("SHOW SOCKETS has seven more", "[admin]") {
  std::vector<std::string> columns = kColumns;
  columns.insert(columns.end(), kBufferColumns.begin(), kBufferColumns.end());
  Row expected = kFullRow;
  expected[4] = "cl_active";
  for (const char* value : {"1", "2", "3", "4", "0", "6", "7"}) expected.emplace_back(value);
  std::string sockets, active;
  append_show_sockets(sockets, std::vector{full_row()}, fake_time);
  append_show_active_sockets(active, std::vector{full_row()}, fake_time);
  CHECK(sockets == active);
  CHECK(read_table(sockets).columns == columns);
  CHECK(read_table(sockets).rows == std::vector<Row>{expected});
}

TEST_CASE("what is unknown about a connection has a word, no null", "[admin]") {
  SocketRow row;
  row.state = SocketState::ClWaiting;
  row.addr = "unix";
  std::string out;
  append_show_clients(out, std::vector{row}, fake_time);
  CHECK(read_table(out).rows ==
        std::vector<Row>{{"C", "(nouser)", "(nodb)", "none", "waiting", "unix", "0", "", "0", "at 0", "at 0",
                          "0", "0",        "0",      "0x0",  "",        "0",    "",  "", "0", "0"}});
  row.replication = Replication::Physical;
  out.clear();
  append_show_clients(out, std::vector{row}, fake_time);
  CHECK(read_table(out).rows[0][3] == "physical");
}

TEST_CASE("each command lists its own states", "[admin]") {
  const auto rows = all_states();
  std::string clients, servers, sockets;
  append_show_clients(clients, rows, fake_time);
  append_show_servers(servers, rows, fake_time);
  append_show_sockets(sockets, rows, fake_time);
  CHECK(states_in(clients) == std::vector<Row>{{"C", "active", "1"},
                                               {"C", "idle", "2"},
                                               {"C", "waiting", "3"},
                                               {"C", "active_cancel_req", "4"},
                                               {"C", "waiting_cancel_req", "5"}});
  CHECK(states_in(servers) == std::vector<Row>{{"S", "new", "6"},
                                               {"S", "active", "7"},
                                               {"S", "idle", "8"},
                                               {"S", "used", "9"},
                                               {"S", "tested", "10"},
                                               {"S", "active_cancel", "11"},
                                               {"S", "being_canceled", "12"}});
  CHECK(states_in(sockets) == std::vector<Row>{{"C", "cl_login", "0"},
                                               {"C", "cl_active", "1"},
                                               {"C", "cl_active", "2"},
                                               {"C", "cl_waiting", "3"},
                                               {"S", "sv_login", "6"},
                                               {"S", "sv_active", "7"},
                                               {"S", "sv_idle", "8"},
                                               {"S", "sv_used", "9"},
                                               {"S", "sv_tested", "10"}});
}

TEST_CASE("SHOW ACTIVE_SOCKETS lists those with bytes in a buffer", "[admin]") {
  auto rows = all_states();
  rows[1].pkt_avail = 1;
  rows[4].pkt_avail = 1;  // in no list of SHOW SOCKETS
  rows[8].send_avail = 1;
  rows[9].pkt_remain = 1;  // the rest of a message that has not come yet
  std::string out;
  append_show_active_sockets(out, rows, fake_time);
  CHECK(states_in(out) == std::vector<Row>{{"C", "cl_active", "1"}, {"S", "sv_idle", "8"}});
}

TEST_CASE("numbers too large for their column", "[admin]") {
  SocketRow row = full_row();
  row.recv_pos = 1ull << 40;
  row.remote_pid = ~0ull;
  row.wait = std::chrono::hours(24 * 365 * 100);
  row.id = 1ull << 40;
  std::string out;
  append_show_sockets(out, std::vector{row}, fake_time);
  const auto table = read_table(out);
  CHECK(table.rows[0][21] == "2147483647");
  CHECK(table.rows[0][16] == "2147483647");
  CHECK(table.rows[0][11] == "2147483647");
  CHECK(table.rows[0][20] == "1099511627776");  // an id must stay unique
}

TEST_CASE("no connections, no rows", "[admin]") {
  std::string out;
  append_show_clients(out, {}, fake_time);
  CHECK(read_table(out).rows.empty());
}
