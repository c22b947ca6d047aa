// A client of the pooler. It makes requests by chance, keeps a PgMachine of its own as the reference, and insists that
// the replies are those of the reference: its own rows, in order, each once, under its own parameters and statement
// names. Only a cancel request of its own, a fault, or a limit of time may change that, and each leaves a trace that is
// checked too.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proxy/core/config.hpp"
#include "tests/sim/link.hpp"
#include "tests/sim/pg_machine.hpp"
#include "tests/sim/scenario.hpp"

namespace pgweir::sim {

class Simulation;

/// Sends one cancel request and waits for the end of its connection, or not.
class CancelSender final : public Peer {
 public:
  CancelSender(Simulation& simulation, const std::string& key, std::string name);
  void on_link() override;
  [[nodiscard]] bool done() const { return done_; }

 private:
  std::shared_ptr<Link> link_;
  std::string out_;
  bool done_ = false;
};

class SimClient final : public Peer {
 public:
  SimClient(Simulation& simulation, int number, const ClientTraits& traits);

  void start();
  void on_link() override;
  [[nodiscard]] bool done() const { return done_; }
  /// Since when it waits for a reply; nothing if it does not.
  [[nodiscard]] std::optional<TimePoint> waiting_since() const;
  [[nodiscard]] int number() const { return number_; }
  [[nodiscard]] std::string name() const;
  [[nodiscard]] std::string state_text() const;

 private:
  enum class Phase { Off, Login, Idle, Busy, Leaving, Failed };

  // ---- connection (sim_client.cpp) ----
  void connect();
  void choose_startup(std::string& packet);
  void flush();
  void read();
  void take(Message message);
  void take_login(const Message& message);
  void take_fatal(const Message& message);
  [[nodiscard]] bool fatal_allowed(const std::string& sqlstate, const std::string& text) const;
  void closed();
  void end_session();
  void vanish();
  void say_goodbye();
  template <class What>
  void later(Duration delay, What what);

  // ---- replies (client_replies.cpp) ----
  void compare(const Message& message);
  void advance_reference(bool canceled);
  void collect();
  void check_view();
  void try_settle();
  [[nodiscard]] static bool equal(const Message& expected, const Message& got);

  // ---- requests (client_requests.cpp) ----
  void next_burst();
  void burst();
  void burst_in_transaction();
  void burst_simple();
  void burst_parameters();
  void burst_pipeline();
  void burst_prepare();
  void burst_copy();
  void burst_cancel();
  void burst_transaction();
  void burst_statement_sql();
  void finish_copy();
  void add_unit(std::string& bytes);
  void add_unnamed(std::string& bytes);
  void add_named(std::string& bytes);
  void say(const std::string& bytes);
  void say_query(const std::string& sql);
  void send_cancel();
  [[nodiscard]] std::string token();
  [[nodiscard]] std::string statement_text();
  [[nodiscard]] bool may_name() const;

  Simulation& simulation_;
  World& world_;
  Random& random_;
  int number_;
  ClientTraits traits_;
  int sessions_left_;

  // Of the present connection:
  std::shared_ptr<Link> link_;
  Phase phase_ = Phase::Off;
  bool done_ = false;
  int connection_ = 0;
  int bursts_left_ = 0;
  int tokens_ = 0;
  std::string database_, user_, key_;
  core::PoolMode mode_ = core::PoolMode::Session;
  bool named_ = false;               ///< named statements may be used
  bool refused_ = false;             ///< the start-up packet must be refused
  bool sent_begin_ = false;          ///< in statement mode, where it ends the connection
  bool reset_sent_ = false;          ///< the next burst must wait for RESET's effect
  bool unnamed_doubtful_ = false;    ///< a Parse of it may have been skipped, or it was too long to be kept
  bool unnamed_in_burst_ = false, error_in_burst_ = false;
  bool open_pipeline_ = false;       ///< a Flush, but no Sync yet
  bool read_planned_ = false, write_stalled_ = false;
  int cancels_ = 0;
  std::string in_, out_;
  PgMachine reference_;
  Values view_;                      ///< parameters as told by ParameterStatus
  std::deque<Message> pending_;      ///< sent, not yet seen by the reference
  std::deque<Message> expected_;     ///< the reference's replies that did not come yet
  std::string last_burst_;
  TimePoint since_{};
  std::vector<std::unique_ptr<CancelSender>> cancel_senders_;
};

}  // namespace pgweir::sim
