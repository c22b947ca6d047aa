// The whole relay of one worker under scripts: clients and servers that say anything in any order, over pipes that may
// be short, with connects that fail, time that passes and ends in mid-message. Nothing crashes, no internal rule
// breaks, buffers stay bounded, peers are sent whole messages, what belongs to one client never reaches another nor
// comes between its messages on a server, and in the end nothing is left of anybody.
//
// Input: three bytes for the plan, then records: what, with whom and how, a count, and that many bytes of text.
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/message_builder.hpp"
#include "tests/fuzz/fuzz_check.hpp"
#include "tests/fuzz/relay_world.hpp"

namespace pgweir::fuzz {
namespace {

using namespace pgweir::protocol;
using std::chrono::milliseconds;

/// A script is cut short behind this many events, so that no input takes long.
constexpr std::size_t kEventsMax = 4000;

constexpr std::array<std::string_view, 24> kSql{
    "ECHO",       "BEGIN",          "COMMIT",        "ROLLBACK",    "ROWS4",          "FAIL",
    "SLEEP",      "COPYIN",         "COPYOUT",       "RESET ALL",   "DISCARD ALL",    "DEALLOCATE ALL",
    "NOTICE",     "NOTIFY",         "DEALLOCATE s1", "EXECUTE s1",  "ROWS?",          "SYNTAX",
    "BEGIN;ECHO", "COMMIT;BEGIN;E", "ECHO 1;FAIL",   "COPYIN;ECHO", "DISCARD ALL; X", ""};
constexpr std::array<std::string_view, 16> kConsole{"SHOW POOLS", "SHOW CLIENTS", "SHOW SERVERS",    "SHOW SOCKETS",
                                                    "PAUSE",      "RESUME",       "PAUSE db",        "RESUME db",
                                                    "KILL db",    "RECONNECT",    "DISABLE db",      "ENABLE db",
                                                    "WAIT_CLOSE", "RELOAD",       "SET verbose = 1", "SHOW STATS"};
constexpr std::array<std::string_view, 4> kNames{"", "s1", "s2", "s3"};
constexpr std::array<std::string_view, 8> kTags{"SELECT 1", "DISCARD ALL", "DEALLOCATE ALL", "SET",
                                                "RESET",    "DEALLOCATE",  "COPY 1",         "BEGIN"};
constexpr std::array<std::string_view, 8> kStates{"42601", "26000", "42P05", "57P01",
                                                  "57P03", "28P01", "0A000", "57014"};
constexpr std::array<std::string_view, 6> kParameters{"DateStyle",     "client_encoding", "application_name",
                                                      "IntervalStyle", "in_hot_standby",  "server_version"};
constexpr std::array<int, 8> kMilliseconds{1, 100, 1000, 5000, 11000, 31000, 121000, 700000};

template <class Table>
auto pick(const Table& table, unsigned number) {
  return table[number % table.size()];
}

/// Settings by what decides them: loading a configuration takes longer than most scripts.
std::shared_ptr<const core::Settings> settings_for(unsigned modes, unsigned options) {
  static std::map<std::pair<unsigned, unsigned>, std::shared_ptr<const core::Settings>> known;
  std::shared_ptr<const core::Settings>& entry = known[{modes % 12, options}];
  if (entry) return entry;
  constexpr std::array<const char*, 3> kModes{"transaction", "session", "statement"};
  constexpr std::array<const char*, 4> kStatements{"200", "0", "1", "2"};
  std::string text = "[databases]\ndb = host=127.0.0.1\nshared = host=127.0.0.1 dbname=db user=forced";
  if ((options & 1) != 0) text += " connect_query='ECHO connected'";
  text += "\n[pgbouncer]\nauth_type = trust\nadmin_users = admin\nlog_connections = 0\nlog_disconnections = 0\n";
  text += std::string("pool_mode = ") + kModes[modes % 3] + "\nmax_prepared_statements = " + kStatements[modes / 3 % 4];
  text += (options & 2) != 0 ? "\ndefault_pool_size = 2" : "\ndefault_pool_size = 1";
  text += (options & 4) != 0 ? "\nserver_tls_sslmode = prefer" : "\nserver_tls_sslmode = disable";
  if ((options & 8) != 0) text += "\nserver_check_delay = 0\nserver_check_query = ECHO check";
  if ((options & 16) != 0) text += "\nserver_reset_query_always = 1";
  if ((options & 32) != 0) {
    text += "\nquery_timeout = 20\nidle_transaction_timeout = 10\nquery_wait_timeout = 30\nclient_idle_timeout = 100";
  }
  if ((options & 64) != 0) text += "\nmax_packet_size = 2048\nserver_lifetime = 0";
  if ((options & 128) != 0)
    text += "\nignore_startup_parameters = extra_float_digits\nmin_pool_size = 0\nserver_round_robin = 1";
  text += '\n';
  const core::LoadResult loaded = core::load_config(
      "main.ini",
      [&](const std::string&) {
        return boost::system::result<std::string, std::string>(boost::system::in_place_value, text);
      },
      nullptr);
  for (const core::Problem& problem : loaded.problems) std::fprintf(stderr, "%s\n", to_string(problem).c_str());
  check(loaded.config != nullptr, "a configuration without mistakes");
  auto made = std::make_shared<core::Settings>();
  made->config = loaded.config;
  made->users = std::make_shared<const std::map<std::string, std::string, std::less<>>>(
      std::map<std::string, std::string, std::less<>>{{"u1", "pw"}, {"u2", "pw"}, {"admin", "pw"}, {"forced", "pw"}});
  made->tracked = std::make_shared<const TrackedNames>(loaded.config->track_extra_parameters.items);
  entry = made;
  return entry;
}

RelayPlan plan_of(std::string_view in) {
  const auto byte = [&](std::size_t i) { return i < in.size() ? static_cast<unsigned char>(in[i]) : 0U; };
  constexpr std::array<std::size_t, 4> kPipes{65536, 40, 500, 5000};
  constexpr std::array<std::size_t, 4> kReads{16384, 13, 301, 4096};
  RelayPlan plan;
  plan.settings = settings_for(byte(0), byte(1));
  plan.pipe_max = pick(kPipes, byte(2));
  plan.read_max = pick(kReads, byte(2) >> 2);
  plan.shared_names = plan.settings->config->pool_mode != core::PoolMode::Session &&
                      plan.settings->config->max_prepared_statements == 0;
  plan.auto_connect = (byte(2) & 16) == 0;
  plan.auto_work = (byte(2) & 32) == 0;
  return plan;
}

class Script {
 public:
  explicit Script(std::string_view in) : world_(plan_of(in)), rest_(in.substr(std::min<std::size_t>(in.size(), 3))) {}

  void run() {
    clients_ = {world_.connect_client('A'), world_.connect_client('B')};
    while (rest_.size() >= 3 && world_.events() < kEventsMax) {
      const auto what = static_cast<unsigned char>(rest_[0]);
      how_ = static_cast<unsigned char>(rest_[1]);
      const std::size_t size = std::min<std::size_t>(static_cast<unsigned char>(rest_[2]), rest_.size() - 3);
      text_ = rest_.substr(3, size);
      rest_.remove_prefix(3 + size);
      // What only the proxy or a tag may spell.
      for (char& c : text_) {
        if (c == '@' || c == '=') c = '-';
      }
      record(what % 32);
      world_.settle_all();
    }
    world_.tear_down();
  }

 private:
  // ---- the parts of a record ----
  [[nodiscard]] bool second() const { return (how_ & 128) != 0; }
  [[nodiscard]] char name() const { return second() ? 'B' : 'A'; }
  WirePtr& client() { return clients_[second() ? 1 : 0]; }
  [[nodiscard]] WirePtr server() const { return world_.server(how_ >> 6); }
  [[nodiscard]] std::string sql() const {
    const std::string verb(pick(kSql, how_ & 31));
    return verb + ' ' + ((how_ & 32) != 0 ? "" : tag_of(name())) + text_;
  }
  /// For Parse: no tag where another client may rightly come to execute it.
  [[nodiscard]] std::string prepared_sql() const {
    return world_.plan().shared_names ? std::string(pick(kSql, how_ & 31)) + ' ' + text_ : sql();
  }
  [[nodiscard]] std::string_view statement() const { return kNames[how_ & 3]; }
  [[nodiscard]] std::string_view portal() const { return kNames[how_ >> 2 & 1]; }
  [[nodiscard]] char kind() const { return (how_ & 8) != 0 ? 'P' : 'S'; }

  template <class Append, class... Args>
  void send(Append append, Args&&... args) {
    std::string out;
    append(out, std::forward<Args>(args)...);
    client()->peer_send(out);
  }

  void record(unsigned what) {
    if (what < 16) return client_message(what);
    switch (what) {
      case 16:
        return send(append_terminate);
      case 17:
        return client()->peer_close((how_ & 1) != 0);
      case 18:
        client()->peer_close((how_ & 1) != 0);
        world_.settle_all();
        client() = world_.connect_client(name());
        return start_up();
      case 19:
        return cancel();
      case 20:
      case 21:
        if (const WirePtr there = server()) (void)world_.work(*there, 1 + (how_ & 15));
        return;
      case 22:
      case 23:
        return lie();
      case 24:
        if (const WirePtr there = server()) there->peer_close((how_ & 1) != 0);
        return;
      case 25:
        return world_.connect_server((how_ & 7) != 0);
      case 26:
        if (const WirePtr there = world_.cancel(how_ >> 6)) there->peer_close((how_ & 1) != 0);
        return world_.connect_cancel((how_ & 3) != 0);
      case 27:
        return world_.advance(milliseconds(pick(kMilliseconds, how_)));
      case 28:
        client()->stalled = !client()->stalled;
        return;
      case 29:
        if (const WirePtr there = server()) there->stalled = !there->stalled;
        return;
      case 30:
        if (const WirePtr there = server()) there->backend->wake((how_ & 1) != 0);
        return;
      default:
        return pipeline();
    }
  }

  // ---- what clients say ----

  void start_up() {
    const bool admin = (how_ & 3) == 3;
    std::vector<std::pair<std::string_view, std::string_view>> parameters{{"user", admin             ? "admin"
                                                                                   : (how_ & 3) == 2 ? "u2"
                                                                                                     : "u1"},
                                                                          {"database", admin             ? "pgbouncer"
                                                                                       : (how_ & 4) != 0 ? "shared"
                                                                                                         : "db"}};
    if ((how_ & 8) != 0) parameters.emplace_back("application_name", text_);
    if ((how_ & 16) != 0) parameters.emplace_back("DateStyle", "German");
    if ((how_ & 32) != 0) parameters.emplace_back("options", text_);
    send(append_startup_message, (how_ & 64) != 0 ? 196610U : 196608U, parameters);
  }

  void client_message(unsigned what) {
    switch (what) {
      case 0:
        return client()->peer_send(text_);
      case 1:
        return start_up();
      case 2:
      case 3:
        return send(append_query, sql());
      case 4:
        return send(append_parse, kNames[how_ >> 6 & 1], prepared_sql(), std::string_view());
      case 5: {
        const std::string tagged = tag_of(name()) + text_;
        const std::optional<std::string_view> parameter = tagged;
        return send(append_bind_text, portal(), statement(), std::span(&parameter, 1));
      }
      case 6:
        return send(append_describe, kind(), kind() == 'S' ? statement() : portal());
      case 7:
        return send(append_execute, portal(), how_ & 3);
      case 8:
        return send(append_close, kind(), kind() == 'S' ? statement() : portal());
      case 9:
        return send(append_sync);
      case 10:
        return send(append_flush);
      case 11:
        return copy();
      case 12:
        return client()->peer_send("F" + std::string("\0\0\0\x0e\0\0\0\1\0\0\0\0\0\0", 14));
      case 13:
        return send(append_query, pick(kConsole, how_));
      case 14:
        text_ += std::string((how_ & 31) * 600, 'x');
        how_ &= 128;
        return send(append_query, sql());
      default:
        return parameter_query();
    }
  }

  void copy() {
    if ((how_ & 3) == 0) return send(append_copy_done);
    if ((how_ & 3) == 1) return send(append_copy_fail, text_);
    send(append_copy_data, tag_of(name()) + text_);
  }

  void parameter_query() { send(append_query, "SET " + std::string(pick(kParameters, how_ & 7)) + "='" + text_ + "'"); }

  /// A statement from Parse to Sync; with 64 without the Sync, so that the next one joins it.
  void pipeline() {
    const unsigned how = how_;
    send(append_parse, statement(), prepared_sql(), std::string_view());
    const std::string tagged = tag_of(name()) + text_;
    const std::optional<std::string_view> parameter = tagged;
    send(append_bind_text, "", statement(), std::span(&parameter, 1));
    send(append_describe, 'P', "");
    send(append_execute, "", 0);
    if ((how & 64) == 0) send(append_sync);
  }

  void cancel() {
    const std::string key = client()->receiver->cancel_key();
    const WirePtr wire = world_.connect_client('C');
    std::string request;
    append_cancel_request(request, key.size() < 8 ? how_ : load_u32(key.data()),
                          key.size() < 8 ? std::string_view("none") : std::string_view(key).substr(4));
    wire->peer_send(request);
    if ((how_ & 1) != 0) wire->peer_close(false);
  }

  // ---- what servers say that should not ----

  void lie() {
    const WirePtr there = server();
    if (!there) return;
    there->backend->lie();
    // FATAL is the proxy's word.
    for (char& c : text_) {
      if (c == 'F') c = 'f';
    }
    std::string out;
    if (!lie_at_login(out) && !lie_about_query(out)) out = text_;
    there->peer_send(out);
  }

  bool lie_at_login(std::string& out) const {
    switch (how_ & 31) {
      case 0:
        append_authentication_ok(out);
        return true;
      case 1:
        append_authentication_cleartext(out);
        return true;
      case 2:
        append_authentication_md5(out, "salt");
        return true;
      case 3: {
        const std::string_view mechanisms[] = {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"};
        append_authentication_sasl(out, mechanisms);
        return true;
      }
      case 4:
        append_authentication_sasl_continue(out, text_);
        return true;
      case 5:
        append_parameter_status(out, pick(kParameters, text_.empty() ? 0 : text_[0] & 7), text_);
        return true;
      case 6:
        append_backend_key_data(out, 100, "KEY!");
        return true;
      default:
        return false;
    }
  }

  bool lie_about_query(std::string& out) const {
    const unsigned more = text_.empty() ? 0 : static_cast<unsigned char>(text_[0]);
    const std::optional<std::string_view> value = text_;
    switch (how_ & 31) {
      case 7:
        append_ready_for_query(out, 'I');
        return true;
      case 8:
        append_ready_for_query(out, 'T');
        return true;
      case 9:
        append_ready_for_query(out, 'E');
        return true;
      case 10:
      case 11:
        append_command_complete(out, pick(kTags, more));
        return true;
      case 12:
        append_row_description(out, std::array{Column{.name = "c"}});
        return true;
      case 13:
        append_data_row(out, {&value, 1});
        return true;
      case 14:
      case 15:
        append_error(out, "ERROR", pick(kStates, more), text_);
        return true;
      case 16:
        append_notice(out, "NOTICE", "00000", text_);
        return true;
      case 17:
        append_copy_data(out, text_);
        return true;
      case 18:  // one of the messages without a body
        out = std::string(1, std::string_view("123nsIcS")[more % 8]) + std::string("\0\0\0\4", 4);
        return true;
      case 19:  // COPY responses
        out = std::string(1, std::string_view("GHW")[more % 3]) + std::string("\0\0\0\7\0\0\0", 7);
        return true;
      case 20:
        append_negotiate_protocol_version(out, 196608, {});
        return true;
      case 21:  // the beginning of a long message
        out = std::string(1, std::string_view("DdTNE")[more % 5]) + std::string("\0\1\2\3", 4) + text_;
        return true;
      case 22:
        out = "S";
        return true;
      default:
        return false;
    }
  }

  RelayWorld world_;
  std::string_view rest_;
  std::string text_;
  unsigned how_ = 0;
  std::array<WirePtr, 2> clients_;
};

}  // namespace
}  // namespace pgweir::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pgweir::fuzz::Script(pgweir::fuzz::as_view(data, size)).run();
  return 0;
}
