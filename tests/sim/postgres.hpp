// The simulated PostgreSQL behind the pooler: accepts connects, runs one PgMachine per connection with delays, signals
// cancel requests, dies and shuts down when the faults say so, and counts its backends exactly as pg_stat_activity would.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/link.hpp"
#include "tests/sim/pg_machine.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

struct PostgresTraits {
  std::size_t connections_max = 100;
  double refuse = 0;         ///< chance that a connect fails
  double login_failure = 0;  ///< chance of 53300, 57P03 or 28P01 at login
  double death = 0;          ///< chance per statement that the backend crashes
  double shutdown = 0;       ///< chance per statement of 57P01 instead of its result
  bool slow_settings = false;  ///< SET and DISCARD ALL can be hit by a cancel request
  Duration work{200};        ///< longest time of an ordinary step
  Duration sleep{200'000};   ///< longest SLEEP
  Duration connect{2'000};   ///< longest connect
};

class Postgres;

class Backend final : public Peer {
 public:
  Backend(Postgres& postgres, std::shared_ptr<Link> link, std::uint32_t pid);
  void on_link() override;
  /// The signal of a cancel request.
  void cancel();
  /// Ends it with 57P01, as pg_terminate_backend does.
  void terminate();
  [[nodiscard]] const std::string& database() const { return database_; }
  [[nodiscard]] const std::string& user() const { return user_; }
  [[nodiscard]] std::uint32_t pid() const { return pid_; }
  [[nodiscard]] std::uint32_t secret() const { return secret_; }
  [[nodiscard]] bool is_session() const { return started_; }
  [[nodiscard]] bool gone() const { return gone_; }
  /// The pooler has let go of it without waiting for its end.
  [[nodiscard]] bool orphaned() const { return !link_->port_open(); }
  [[nodiscard]] const PgMachine& machine() const { return machine_; }

 private:
  void work_later();
  void work();
  void read();
  bool take_first_packet();
  void log_in(std::string_view body);
  void step();
  void write(const std::string& bytes);
  void send_fatal(const char* sqlstate, const char* text);
  void finish();
  void crash();

  Postgres& postgres_;
  World& world_;
  std::shared_ptr<Link> link_;
  std::uint32_t pid_, secret_;
  PgMachine machine_;
  std::string in_, out_, database_, user_;
  std::deque<Message> messages_;
  std::uint64_t sleep_ = 0;  ///< number of the SLEEP under way
  bool started_ = false, planned_ = false, finishing_ = false, gone_ = false, sleeping_ = false;
};

class Postgres {
 public:
  Postgres(World& world, PostgresTraits traits, LinkTraits link_traits);

  /// Connects after a while: `connected` gets the link, or nothing if it failed.
  void connect(std::function<void(std::shared_ptr<Link>)> connected);
  void stop_faults();
  /// Called when a cancel request hits a running statement: the backend and the text.
  std::function<void(std::uint32_t pid, const std::string&)> on_canceled;

  [[nodiscard]] World& world() { return world_; }
  [[nodiscard]] const PostgresTraits& traits() const { return traits_; }
  [[nodiscard]] const std::map<std::uint32_t, std::unique_ptr<Backend>>& backends() const { return backends_; }
  [[nodiscard]] std::size_t sessions() const;
  [[nodiscard]] bool disturbed() const { return disturbed_; }
  void note_disturbance() { disturbed_ = true; }
  void signal(std::uint32_t pid, std::uint32_t secret);
  /// Removes it at the end of the event.
  void reap(std::uint32_t pid);

 private:
  World& world_;
  PostgresTraits traits_;
  LinkTraits link_traits_;
  std::map<std::uint32_t, std::unique_ptr<Backend>> backends_;
  std::uint32_t last_pid_ = 1000;
  bool disturbed_ = false;
};

}  // namespace pgweir::sim
