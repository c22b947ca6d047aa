// The relay: what one transaction costs from the bytes that were read to those that are to be written, with sockets
// that take everything. It is all of a transaction's work besides system calls, TLS and the choice of what to do next.
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bench/micro/support.hpp"
#include "pool/pool_manager.hpp"
#include "protocol/message_builder.hpp"
#include "proxy/core/admin_data.hpp"
#include "proxy/core/config.hpp"
#include "proxy/core/connection.hpp"
#include "proxy/core/worker_core.hpp"
#include "proxy/io/openssl_crypto.hpp"

namespace {

using namespace pgweir;
using bench::Count;

/// Where a session's bytes go: nowhere.
class Drain final : public core::Port {
 public:
  explicit Drain(core::Connection** session) : session_(session) {}
  void bind(core::Connection& session) override { *session_ = &session; }
  std::size_t write(std::span<const core::ByteView> pieces) override {
    std::size_t total = 0;
    for (const core::ByteView piece : pieces) total += piece.size();
    return total;
  }
  void set_interest(bool, bool, bool) override {}
  void start_tls_server(core::ByteView) override { throw std::logic_error("no TLS here"); }
  void start_tls_client(const core::ServerTarget&) override { throw std::logic_error("no TLS here"); }
  [[nodiscard]] bool is_tls() const override { return false; }
  [[nodiscard]] std::string tls_info() const override { return {}; }
  [[nodiscard]] std::string tls_server_end_point() const override { return {}; }
  void close() override { *session_ = nullptr; }

 private:
  core::Connection** session_;
};

/// A process of one worker without sockets.
class Process final : public core::Host {
 public:
  pool::PoolManager pools{pool::ManagerSettings{}};
  std::vector<pool::ServerId> connects;
  std::vector<core::Task> tasks;

  pool::PoolManager& lock_pools() override { return pools; }
  void unlock_pools() override {}
  void open_server(pool::ServerId server, const core::ServerTarget&) override { connects.push_back(server); }
  void abandon_server(pool::ServerId) override {}
  void open_cancel(std::uint64_t, const core::ServerTarget&) override {}
  void abandon_cancel(std::uint64_t) override {}
  [[nodiscard]] bool check_password(pool::ClientId, core::PasswordQuestion) override { return false; }
  void abandon_password(pool::ClientId) override {}
  void derive_key(std::uint64_t, core::KeyQuestion) override {}
  [[nodiscard]] bool find_host_name(pool::ClientId, const std::string&) override { return false; }
  void detach(core::Port&) override {}
  void attach(core::Port&) override {}
  void post(pool::WorkerId, core::Task task) override { tasks.push_back(std::move(task)); }
  [[nodiscard]] pool::WorkerId worker_count() const override { return 1; }
  [[nodiscard]] std::uint64_t next_number() override { return ++numbers_; }
  void process_command(const core::ProcessCommand&) override {}
  [[nodiscard]] core::TimePoint clock() override { return {}; }
  void log(core::LogLevel, std::string) override {}
  [[nodiscard]] protocol::Crypto& crypto() override { return crypto_; }
  [[nodiscard]] std::int64_t wall_clock_us() override { return 0; }
  [[nodiscard]] std::string format_time(std::int64_t) override { return {}; }
  [[nodiscard]] std::int64_t own_uid() const override { return 0; }
  [[nodiscard]] std::string user_name(std::int64_t) override { return {}; }
  [[nodiscard]] core::DnsReport dns_report() override { return {}; }
  [[nodiscard]] std::string host_name() override { return {}; }
  [[nodiscard]] std::vector<core::FdRow> listening_sockets() override { return {}; }
  [[nodiscard]] bool tls_available() const override { return false; }

 private:
  io::OpensslCrypto crypto_;
  std::uint64_t numbers_ = 0;
};

std::shared_ptr<const core::Settings> some_settings() {
  const std::string text =
      "[databases]\ndb = host=127.0.0.1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = trust\n"
      "pool_mode = transaction\nserver_tls_sslmode = disable\n";
  const auto loaded = core::load_config(
      "main.ini",
      [&](const std::string&) -> boost::system::result<std::string, std::string> {
        return {boost::system::in_place_value, text};
      },
      nullptr);
  if (!loaded.config) throw std::runtime_error("the configuration is wrong");
  auto settings = std::make_shared<core::Settings>();
  settings->config = std::make_shared<const core::Config>(*loaded.config);
  settings->users = std::make_shared<const std::map<std::string, std::string, std::less<>>>(
      std::map<std::string, std::string, std::less<>>{{"u", ""}});
  settings->tracked = std::make_shared<const protocol::TrackedNames>(std::vector<std::string>{});
  return settings;
}

std::string server_greeting() {
  std::string out;
  protocol::append_authentication_ok(out);
  for (const auto& [name, value] :
       std::vector<std::pair<const char*, const char*>>{{"server_version", "15.5"},
                                                        {"client_encoding", "UTF8"},
                                                        {"DateStyle", "ISO, MDY"},
                                                        {"TimeZone", "UTC"},
                                                        {"application_name", ""},
                                                        {"standard_conforming_strings", "on"}}) {
    protocol::append_parameter_status(out, name, value);
  }
  protocol::append_backend_key_data(out, 4711, "KEY!");
  protocol::append_ready_for_query(out, 'I');
  return out;
}

/// One client and the one server of its pool, logged in.
class Pair {
 public:
  Pair() : core_(0, process_, some_settings(), core::ProcessKeys{{1, 2}, "mock key"}) {
    core_.set_now(pool::TimePoint(std::chrono::seconds(1000)));
    core_.client_accepted(std::make_unique<Drain>(&client_), {"127.0.0.1", 40000, "127.0.0.1", 6432, false, 0, -1});
    core_.run_pending();
    std::string startup;
    const std::vector<std::pair<std::string_view, std::string_view>> parameters{{"user", "u"}, {"database", "db"}};
    protocol::append_startup_message(startup, 196608, parameters);
    from_client(startup);
    if (process_.connects.size() != 1) throw std::runtime_error("no server was asked for");
    core_.server_connected(process_.connects[0], std::make_unique<Drain>(&server_),
                           {"127.0.0.1", 5432, "127.0.0.1", 50000, false, 0, -1});
    core_.run_pending();
    from_server(server_greeting());
  }
  ~Pair() {
    for (core::Connection** end : {&client_, &server_}) {
      if (*end != nullptr) (*end)->on_hangup("the benchmark is over");
      core_.run_pending();
      core_.end_batch();
    }
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  void from_client(const std::string& bytes) { hear(client_, bytes); }
  void from_server(const std::string& bytes) { hear(server_, bytes); }

 private:
  void hear(core::Connection* session, const std::string& bytes) {
    if (session == nullptr) throw std::runtime_error("the connection is closed");
    session->receive(bytes);
    core_.run_pending();
    while (!process_.tasks.empty()) {
      for (const core::Task& task : std::exchange(process_.tasks, {})) task(core_);
      core_.run_pending();
    }
    core_.end_batch();
  }

  Process process_;
  core::WorkerCore core_;
  core::Connection *client_ = nullptr, *server_ = nullptr;
};

std::string row(std::string_view text) {
  const std::optional<std::string_view> value(text);
  std::string out;
  protocol::append_data_row(out, {&value, 1});
  return out;
}

std::string end_of_reply() {
  std::string out;
  protocol::append_command_complete(out, "SELECT 1");
  protocol::append_ready_for_query(out, 'I');
  return out;
}

void run(benchmark::State& state, Pair& pair, const std::string& request, const std::string& reply) {
  for (int i = 0; i < 100; ++i) {
    pair.from_client(request);
    pair.from_server(reply);
  }
  const Count count(state, request.size() + reply.size());
  for (auto _ : state) {
    pair.from_client(request);
    pair.from_server(reply);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(request.size() + reply.size()));
}

/// pgbench -S: a query and a row of four bytes.
void relay_simple(benchmark::State& state) {
  Pair pair;
  std::string request, reply;
  protocol::append_query(request, "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;");
  const protocol::Column column{"abalance", 23, 4};
  protocol::append_row_description(reply, {&column, 1});
  run(state, pair, request, reply + row("1234") + end_of_reply());
}
BENCHMARK(relay_simple);

/// A hundred rows of 100 bytes in one reply.
void relay_hundred_rows(benchmark::State& state) {
  Pair pair;
  std::string request, reply;
  protocol::append_query(request, "SELECT body FROM t");
  const protocol::Column column{"body"};
  protocol::append_row_description(reply, {&column, 1});
  for (int i = 0; i < 100; ++i) reply += row(std::string(100, 'x'));
  run(state, pair, request, reply + end_of_reply());
}
BENCHMARK(relay_hundred_rows);

/// Bind, Describe, Execute and Sync of a statement that both sides have.
void relay_prepared(benchmark::State& state) {
  Pair pair;
  std::string parse, parsed, request, reply;
  protocol::append_parse(parse, "s1", "SELECT abalance FROM pgbench_accounts WHERE aid = $1", {});
  protocol::append_sync(parse);
  protocol::append_parse_complete(parsed);
  protocol::append_ready_for_query(parsed, 'I');
  pair.from_client(parse);
  pair.from_server(parsed);
  const std::optional<std::string_view> parameter("4711");
  protocol::append_bind_text(request, "", "s1", {&parameter, 1});
  protocol::append_describe(request, 'P', "");
  protocol::append_execute(request, "", 0);
  protocol::append_sync(request);
  const protocol::Column column{"abalance", 23, 4};
  protocol::append_bind_complete(reply);
  protocol::append_row_description(reply, {&column, 1});
  run(state, pair, request, reply + row("1234") + end_of_reply());
}
BENCHMARK(relay_prepared);

/// 64 kB in the middle of a COPY to the client, in messages of 1 kB.
void relay_copy_out(benchmark::State& state) {
  Pair pair;
  std::string request, begin, data;
  protocol::append_query(request, "COPY t TO STDOUT");
  pair.from_client(request);
  begin = std::string("H\0\0\0\7\0\0\0", 8);
  pair.from_server(begin);
  while (data.size() < 65'536) protocol::append_copy_data(data, std::string(1000, 'x'));
  for (int i = 0; i < 100; ++i) pair.from_server(data);
  const Count count(state, data.size());
  for (auto _ : state) pair.from_server(data);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(data.size()));
}
BENCHMARK(relay_copy_out);

}  // namespace
