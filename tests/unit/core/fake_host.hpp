// A world for one WorkerCore: sockets that record what is written and take as many bytes as the test allows, a host
// that keeps connects, tasks and log lines until the test looks at them, and hashes that only have to be consistent.
// Nothing happens by itself: a test gives an event and reads what came out.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config_test.hpp"
#include "pool/pool_manager.hpp"
#include "protocol/message_builder.hpp"
#include "proxy/core/admin_data.hpp"
#include "proxy/core/worker_core.hpp"
#include "tests/fake_crypto.hpp"

namespace pgweir::core::test {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// What a test sees of a socket. Outlives the session.
struct Wire {
  static constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();
  Connection* session = nullptr;
  std::string written;
  std::size_t accept = kAll;  ///< bytes the socket still takes
  bool closed = false, read = true, write = false, hangup = false;
  bool tls = false, tls_started = false;
  std::optional<CertificateNames> certificate;  ///< shown in the handshake and verified

  /// What was written since the last look.
  std::string take() { return std::exchange(written, {}); }
};
using WirePtr = std::shared_ptr<Wire>;

class FakePort final : public Port {
 public:
  explicit FakePort(WirePtr wire) : wire_(std::move(wire)) {}
  ~FakePort() override { wire_->session = nullptr; }
  void bind(Connection& session) override { wire_->session = &session; }
  std::size_t write(std::span<const ByteView> pieces) override {
    REQUIRE_FALSE(wire_->closed);
    std::size_t total = 0;
    for (const ByteView piece : pieces) {
      const std::size_t n = std::min(piece.size(), wire_->accept);
      wire_->written.append(piece.substr(0, n));
      if (wire_->accept != Wire::kAll) wire_->accept -= n;
      total += n;
      if (n < piece.size()) break;
    }
    return total;
  }
  void set_interest(bool read, bool write, bool hangup) override {
    wire_->read = read;
    wire_->write = write;
    wire_->hangup = hangup;
  }
  void start_tls_server(ByteView) override { wire_->tls_started = true; }
  void start_tls_client(const ServerTarget&) override { wire_->tls_started = true; }
  [[nodiscard]] bool is_tls() const override { return wire_->tls; }
  [[nodiscard]] std::string tls_info() const override { return wire_->tls ? "TLSv1.3/fake" : ""; }
  [[nodiscard]] std::string tls_server_end_point() const override { return ""; }
  [[nodiscard]] std::optional<CertificateNames> verified_certificate() const override { return wire_->certificate; }
  void close() override { wire_->closed = true; }

 private:
  WirePtr wire_;
};

class FakeHost final : public Host {
 public:
  pool::PoolManager pools{pool::ManagerSettings{1, milliseconds(1), 100}};
  pgweir::test::FakeCrypto crypto_;
  std::deque<std::pair<pool::ServerId, ServerTarget>> connects;
  std::vector<pool::ServerId> abandoned;
  std::deque<std::uint64_t> cancel_connects;
  std::deque<ServerTarget> cancel_targets;
  std::vector<std::uint64_t> abandoned_cancels;
  std::deque<std::pair<pool::ClientId, PasswordQuestion>> questions;
  std::vector<pool::ClientId> abandoned_questions;
  std::deque<std::pair<pool::ClientId, std::string>> name_questions;
  bool refuses_questions = false;
  std::optional<std::pair<std::uint64_t, KeyQuestion>> derivation;  ///< under way
  bool derives_at_once = true;                                      ///< false: when World::derived says so
  std::deque<Task> tasks;
  std::vector<ProcessCommand> commands;
  std::vector<std::string> lines;
  std::uint64_t numbers_ = 0;
  TimePoint now{};
  bool tls = false;
  int locked = 0;

  pool::PoolManager& lock_pools() override {
    REQUIRE(locked == 0);
    ++locked;
    return pools;
  }
  void unlock_pools() override { --locked; }
  void open_server(pool::ServerId server, const ServerTarget& target) override {
    connects.emplace_back(server, target);
  }
  void abandon_server(pool::ServerId server) override { abandoned.push_back(server); }
  void open_cancel(std::uint64_t token, const ServerTarget& target) override {
    cancel_connects.push_back(token);
    cancel_targets.push_back(target);
  }
  void abandon_cancel(std::uint64_t token) override { abandoned_cancels.push_back(token); }
  void derive_key(std::uint64_t number, KeyQuestion question) override {
    REQUIRE_FALSE(derivation);
    derivation = {number, std::move(question)};
  }
  [[nodiscard]] bool check_password(pool::ClientId client, PasswordQuestion question) override {
    if (refuses_questions) return false;
    questions.emplace_back(client, std::move(question));
    return true;
  }
  void abandon_password(pool::ClientId client) override { abandoned_questions.push_back(client); }
  [[nodiscard]] bool find_host_name(pool::ClientId client, const std::string& address) override {
    if (refuses_questions) return false;
    name_questions.emplace_back(client, address);
    return true;
  }
  void detach(Port&) override {}
  void attach(Port&) override {}
  void post(pool::WorkerId to, Task task) override {
    REQUIRE(to == 0);
    tasks.push_back(std::move(task));
  }
  [[nodiscard]] pool::WorkerId worker_count() const override { return 1; }
  [[nodiscard]] std::uint64_t next_number() override { return ++numbers_; }
  void process_command(const ProcessCommand& command) override { commands.push_back(command); }
  [[nodiscard]] TimePoint clock() override { return now; }
  void log(LogLevel, std::string text) override { lines.push_back(std::move(text)); }
  [[nodiscard]] protocol::Crypto& crypto() override { return crypto_; }
  [[nodiscard]] std::int64_t wall_clock_us() override { return 1'700'000'000'000'000; }
  [[nodiscard]] std::string format_time(std::int64_t us) override { return std::to_string(us); }
  [[nodiscard]] std::int64_t own_uid() const override { return 1000; }
  [[nodiscard]] core::DnsReport dns_report() override { return {}; }
  [[nodiscard]] std::string user_name(std::int64_t uid) override { return uid == 1001 ? "carol" : ""; }
  [[nodiscard]] std::string host_name() override { return "box"; }
  [[nodiscard]] std::vector<FdRow> listening_sockets() override { return {}; }
  [[nodiscard]] bool tls_available() const override { return tls; }

  [[nodiscard]] bool logged(std::string_view part) const {
    return std::any_of(lines.begin(), lines.end(),
                       [&](const std::string& line) { return line.find(part) != std::string::npos; });
  }
};

using Users = std::map<std::string, std::string, std::less<>>;

/// The configuration every test starts from; `more` goes into [pgbouncer], `databases` replaces the one entry.
inline std::string config_text(const std::string& more = "", const std::string& databases = "db = host=127.0.0.1\n") {
  return "[databases]\n" + databases +
         "[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = trust\npool_mode = transaction\n"
         "server_tls_sslmode = disable\nadmin_users = admin\nstats_users = stats\n" +
         more;
}

/// `hba` is the text of auth_hba_file, `ident` of auth_ident_file; for auth_type = hba.
inline std::shared_ptr<const Settings> make_settings(const std::string& text, Users users, const std::string& hba = {},
                                                     const std::string& ident = {}) {
  auto settings = std::make_shared<Settings>();
  settings->config = std::make_shared<const Config>(good(text));
  settings->ldap = shared_ldap_options(settings->config->auth_ldap_options);
  settings->users = std::make_shared<const Users>(std::move(users));
  settings->tracked = std::make_shared<const protocol::TrackedNames>(settings->config->track_extra_parameters.items);
  if (settings->config->auth_type == AuthType::Hba) {
    settings->hba = std::make_shared<const HbaSettings>(
        HbaSettings{parse_hba(hba, "hba", {}), parse_ident_maps(ident, "ident", {}), {}});
  }
  return settings;
}

/// One worker and the events of its sockets. Every event is followed by what WorkerCore asks for, and the pools are
/// checked after it.
class World {
 public:
  explicit World(const std::string& text = config_text(), Users users = {{"u", "pw"}, {"stats", "pw"}, {"admin", "pw"}},
                 const std::string& hba = {}, const std::string& ident = {})
      : settings_(make_settings(text, std::move(users), hba, ident)), core(0, host, settings_, keys()) {
    core.set_now(now);
    host.pools.set_peers(static_cast<std::uint16_t>(core.config().peer_id), peer_limits(core.config()), core.actions());
  }
  ~World() {
    // Sessions use the host while they end.
    for (const WirePtr& wire : wires_) hang_up(wire);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  FakeHost host;
  pool::TimePoint now{seconds(1000)};
  bool byte_by_byte = false;
  bool mid_batch = false;  ///< more events are at hand

 private:
  std::shared_ptr<const Settings> settings_;
  std::vector<WirePtr> wires_;

 public:
  WorkerCore core;

  // ---- events ----
  WirePtr connect(bool unix_socket = false, std::int64_t uid = -1) {
    const WirePtr wire = new_wire();
    PeerAddress address{"127.0.0.1", 40000, "127.0.0.1", 6432, unix_socket, 1, uid};
    core.client_accepted(std::make_unique<FakePort>(wire), address);
    settle();
    return wire;
  }
  void feed(const WirePtr& wire, std::string_view bytes) {
    const std::size_t step = byte_by_byte ? 1 : bytes.size();
    for (; !bytes.empty(); bytes.remove_prefix(std::min(step, bytes.size()))) {
      if (wire->session == nullptr || wire->closed) return;
      wire->session->receive(bytes.substr(0, step));
      settle();
    }
  }
  /// The socket takes `bytes` more.
  void drain(const WirePtr& wire, std::size_t bytes = Wire::kAll) {
    wire->accept = bytes;
    if (wire->session != nullptr && !wire->closed && wire->write) wire->session->writable();
    settle();
  }
  void hang_up(const WirePtr& wire) {
    if (wire->session != nullptr && !wire->closed) wire->session->on_hangup("closed by the test");
    settle();
  }
  /// The connect asked for longest ago succeeds. Nothing is answered yet.
  WirePtr server_connects() {
    REQUIRE_FALSE(host.connects.empty());
    const auto id = host.connects.front().first;
    host.connects.pop_front();
    const WirePtr wire = new_wire();
    core.server_connected(id, std::make_unique<FakePort>(wire), {"127.0.0.1", 5432, "127.0.0.1", 50000, false, 0, -1});
    settle();
    return wire;
  }
  /// ... and the server lets us in.
  WirePtr server_up(const std::string& greeting = server_greeting()) {
    const WirePtr wire = server_connects();
    wire->written.clear();
    feed(wire, greeting);
    return wire;
  }
  void server_fails(const std::string& text) {
    REQUIRE_FALSE(host.connects.empty());
    const auto id = host.connects.front().first;
    host.connects.pop_front();
    core.server_connect_failed(id, text, {});
    settle();
  }
  /// The password asked about longest ago is judged.
  void judged(bool right, const std::string& reason = "no") {
    REQUIRE_FALSE(host.questions.empty());
    const auto client = host.questions.front().first;
    host.questions.pop_front();
    core.password_checked(client, {right, reason});
    settle();
  }
  /// The key that is being derived is there.
  void derived() {
    const auto asked = std::exchange(host.derivation, std::nullopt);
    REQUIRE(asked);
    const auto& [number, question] = *asked;
    core.key_derived(number, host.crypto_.pbkdf2_sha256(question.password, question.salt, question.iterations));
    settle();
  }
  /// The same for the name of a client's host; empty: there is none.
  void host_named(const std::string& name) {
    REQUIRE_FALSE(host.name_questions.empty());
    const auto client = host.name_questions.front().first;
    host.name_questions.pop_front();
    core.host_name_found(client, name);
    settle();
  }
  WirePtr cancel_connects() {
    REQUIRE_FALSE(host.cancel_connects.empty());
    const std::uint64_t token = host.cancel_connects.front();
    host.cancel_connects.pop_front();
    const WirePtr wire = new_wire();
    core.cancel_connected(token, std::make_unique<FakePort>(wire));
    settle();
    return wire;
  }
  void advance(pool::Duration by) {
    now += by;
    core.set_now(now);
    host.pools.on_time(now, core.actions());
    core.on_time(now);
    settle();
  }
  void settle() {
    core.run_pending();
    while (!host.tasks.empty()) {
      const Task task = std::move(host.tasks.front());
      host.tasks.pop_front();
      task(core);
      core.run_pending();
    }
    if (!mid_batch) core.end_batch();
    REQUIRE(host.locked == 0);
    host.pools.check_invariants(now);
    if (host.derives_at_once && host.derivation) derived();
  }

  // ---- what peers say ----
  static std::string startup(std::vector<std::pair<std::string_view, std::string_view>> parameters,
                             std::uint32_t version = 196608) {
    std::string out;
    protocol::append_startup_message(out, version, parameters);
    return out;
  }
  static std::string server_greeting() {
    std::string out;
    protocol::append_authentication_ok(out);
    for (const auto& [name, value] :
         std::vector<std::pair<const char*, const char*>>{{"server_version", "15.5"},
                                                          {"client_encoding", "UTF8"},
                                                          {"DateStyle", "ISO, MDY"},
                                                          {"TimeZone", "UTC"},
                                                          {"application_name", ""},
                                                          {"standard_conforming_strings", "on"},
                                                          {"IntervalStyle", "postgres"}}) {
      protocol::append_parameter_status(out, name, value);
    }
    protocol::append_backend_key_data(out, 4711, "KEY!");
    protocol::append_ready_for_query(out, 'I');
    return out;
  }

  // ---- shortcuts ----
  /// A client that has logged in, its welcome taken off the wire. Answers a connect that the login may need.
  WirePtr client(const std::string& user = "u", const std::string& database = "db") {
    const WirePtr wire = connect();
    feed(wire, startup({{"user", user}, {"database", database}}));
    if (!host.connects.empty() && wire->written.empty()) server = server_up();
    REQUIRE(wire->written.size() > 6);
    REQUIRE(wire->written.substr(wire->written.size() - 6, 1) == "Z");
    welcome = wire->take();
    if (server) server->written.clear();
    return wire;
  }
  WirePtr server;       ///< the one that a login of client() opened last
  std::string welcome;  ///< of the client that logged in last

 private:
  static ProcessKeys keys() { return {{1, 2}, "mock key"}; }
  WirePtr new_wire() {
    wires_.push_back(std::make_shared<Wire>());
    return wires_.back();
  }
};

/// What a statement is called on the servers if it was prepared with the parameters of server_greeting().
inline std::string server_name_of(World& world, std::string_view sql) {
  const protocol::TrackedNames& names = *world.core.settings()->tracked;
  auto set = std::make_shared<protocol::ParameterSet>();
  set->values.resize(names.size());
  for (const auto& [name, value] :
       std::vector<std::pair<const char*, const char*>>{{"client_encoding", "UTF8"},
                                                        {"DateStyle", "ISO, MDY"},
                                                        {"TimeZone", "UTC"},
                                                        {"application_name", ""},
                                                        {"standard_conforming_strings", "on"},
                                                        {"IntervalStyle", "postgres"}}) {
    if (const auto index = names.find(name)) set->values[*index] = value;
  }
  const std::uint64_t reading = world.core.settings_hash({set, nullptr});
  return world.core.statement_table().intern(sql, std::string_view("\0\0", 2), reading)->server_name();
}

inline std::uint32_t idle(World& world) {
  return world.host.pools.totals().idle_servers;
}

// ---- messages, as short as tests want them ----

template <class Append, class... Args>
std::string made(Append append, Args&&... args) {
  std::string out;
  append(out, std::forward<Args>(args)...);
  return out;
}
inline std::string query(std::string_view sql) {
  return made(protocol::append_query, sql);
}
inline std::string parse(std::string_view name, std::string_view sql) {
  return made(protocol::append_parse, name, sql, std::string_view());
}
inline std::string bind_to(std::string_view statement, std::string_view portal = "") {
  return made(protocol::append_bind_text, portal, statement, std::span<const std::optional<std::string_view>>());
}
inline std::string describe(std::string_view name, char kind = 'S') {
  return made(protocol::append_describe, kind, name);
}
inline std::string close_of(std::string_view name, char kind = 'S') {
  return made(protocol::append_close, kind, name);
}
inline std::string execute(std::string_view portal = "") {
  return made(protocol::append_execute, portal, 0);
}
inline std::string synced() {
  return made(protocol::append_sync);
}
inline std::string flush() {
  return made(protocol::append_flush);
}
inline std::string terminate() {
  return made(protocol::append_terminate);
}
inline std::string ready(char status = 'I') {
  return made(protocol::append_ready_for_query, status);
}
inline std::string parsed() {
  return made(protocol::append_parse_complete);
}
inline std::string bound() {
  return made(protocol::append_bind_complete);
}
inline std::string closed() {
  return made(protocol::append_close_complete);
}
inline std::string complete(std::string_view tag) {
  return made(protocol::append_command_complete, tag);
}
inline std::string status(std::string_view name, std::string_view value) {
  return made(protocol::append_parameter_status, name, value);
}
inline std::string row(std::string_view value) {
  const std::optional<std::string_view> column = value;
  return made(protocol::append_data_row, std::span<const std::optional<std::string_view>>(&column, 1));
}
inline std::string row_description() {
  const protocol::Column column{"c"};
  return made(protocol::append_row_description, std::span<const protocol::Column>(&column, 1));
}
/// As a PostgreSQL server says it.
inline std::string server_error(std::string_view sqlstate, std::string_view text) {
  return made([](std::string& out, const protocol::ErrorText& error) { protocol::append_error(out, error); },
              protocol::ErrorText{.severity = "ERROR", .sqlstate = sqlstate, .message = text, .add_v = true});
}
/// As we say it when we close.
inline std::string fatal(std::string_view sqlstate, std::string_view text) {
  return made([](std::string& out, std::string_view state,
                 std::string_view message) { protocol::append_error(out, "FATAL", state, message); },
              sqlstate, text);
}
/// The key in a client's welcome, as it is counted in pool/cancel_key.hpp.
inline std::uint64_t key_in(std::string_view welcome) {
  while (!welcome.empty() && welcome[0] != 'K') welcome.remove_prefix(1 + protocol::load_u32(welcome.data() + 1));
  REQUIRE(welcome.size() >= 13);
  return (std::uint64_t{protocol::load_u32(welcome.data() + 5)} << 32) | protocol::load_u32(welcome.data() + 9);
}
inline std::string cancel_request(std::uint64_t key) {
  char secret[4];
  protocol::store_u32(secret, static_cast<std::uint32_t>(key));
  return made(protocol::append_cancel_request, static_cast<std::uint32_t>(key >> 32),
              std::string_view(secret, sizeof secret));
}
/// The CancelRequest for the client whose welcome this was.
inline std::string cancel_for(std::string_view welcome) {
  return cancel_request(key_in(welcome));
}
/// The types of the messages in `bytes`, in order; '!' for a torn one.
inline std::string types(std::string_view bytes) {
  std::string result;
  while (!bytes.empty()) {
    if (bytes.size() < 5) return result + '!';
    const std::size_t size = 1 + protocol::load_u32(bytes.data() + 1);
    if (size > bytes.size()) return result + '!';
    result.push_back(bytes[0]);
    bytes.remove_prefix(size);
  }
  return result;
}

}  // namespace pgweir::core::test
