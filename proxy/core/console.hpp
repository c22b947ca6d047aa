// One connection to the admin console: reads commands, collects what SHOW prints from the pools and all workers, and
// has actions carried out. The language is admin_command, the tables are admin_format; here is who does what when. A
// command whose answer takes time (PAUSE, RELOAD, SHOW over several workers) holds back the commands behind it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "proxy/core/admin_command.hpp"
#include "proxy/core/console_statements.hpp"
#include "proxy/core/port.hpp"
#include "proxy/core/report.hpp"

namespace pgweir::core {

class ClientSession;

class Console {
 public:
  /// `admin`: of admin_users; otherwise only SHOW is allowed.
  Console(ClientSession& client, bool admin);
  ~Console();

  void welcome(std::uint64_t cancel_key);
  std::size_t consume(ByteView in);
  /// A cancel request for this connection: ends a pending PAUSE by resuming everything.
  void interrupt();
  /// A wait of PoolManager::wait_for is over; false if it is not this console's.
  bool wait_over(std::uint64_t token);
  void process_command_done(const std::string& error, const std::string& notice);
  // ---- SWITCHOVER (console_switchover.cpp) ----
  /// A worker holds what needs the primary of `group`.
  void writes_are_held(const std::string& group);
  /// A new snapshot of the hosts of `group`. False: it need not be told of others.
  [[nodiscard]] bool hosts_changed(const std::string& group, const std::shared_ptr<const router::HostTable>& table);
  [[nodiscard]] TimePoint deadline() const;
  void on_timer(TimePoint now);

 private:
  struct Switchover {
    enum class Step : std::uint8_t { Holding, Draining, Replaying, Promoting };
    Step step = Step::Holding;
    std::string group, primary_name;
    router::HostId primary{};
    std::vector<std::string> to_drain;  ///< databases with these hosts
    router::TimePoint drained_at{};
    TimePoint deadline{};
    pool::WorkerId workers_to_tell = 0;
  };

  void run(std::string_view sql);
  void act(const AdminCommand& command);
  void show(const AdminCommand& command);
  void show_collected(ShowWhat what, const WorkerReport& report);
  void pause(const AdminCommand& command);
  void resume(const AdminCommand& command);
  void kill(const AdminCommand& command);
  void kill_client(const AdminCommand& command);
  void reconnect(const AdminCommand& command);
  void set_disabled(const AdminCommand& command, bool disabled);
  void wait_close(const AdminCommand& command);
  void suspend(const AdminCommand& command);
  void switchover(const AdminCommand& command);
  void drain_next();
  void end_switchover();
  void show_fds(bool with_state);
  /// PgBouncer's condition for sending descriptors: the process talks to one of its own user.
  [[nodiscard]] bool is_own_user() const;
  void send_fds(std::vector<FdRow> rows, bool with_state);
  void shut_down(const AdminCommand& command);
  [[nodiscard]] bool check_database(const AdminCommand& command, const char* verb);
  [[nodiscard]] bool all_paused();
  void log_issued(const AdminCommand& command);
  void hold(const AdminCommand& command);
  void done(std::string_view tag);
  void error(std::string_view text, std::string_view sqlstate = "08P01");
  void extended(char type, ByteView body);
  void answer(std::string& out);
  void send(ByteView out);

  void show_databases(std::string& out);
  void show_pools(std::string& out);
  void show_hosts(std::string& out);
  void show_users(std::string& out);
  void show_lists(std::string& out, const DnsReport& dns);
  void show_mem(std::string& out, const MemoryUse& use);
  void show_peers(std::string& out);
  void show_peer_pools(std::string& out);

  ClientSession& client_;
  ConsoleStatements statements_;
  bool admin_;
  bool busy_ = false;        ///< a command's answer is pending
  bool pausing_ = false;     ///< ... and it is a PAUSE, which a cancel request resumes
  bool suspended_ = false;   ///< this console has asked for SUSPEND; without it all goes on
  std::string held_tag_;     ///< tag of the pending answer
  std::uint64_t token_ = 0;  ///< of the pending wait
  std::uint64_t request_ = 0;
  std::unique_ptr<Switchover> switchover_;
};

}  // namespace pgweir::core
