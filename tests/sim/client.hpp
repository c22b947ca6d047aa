// A client of the simulated world. It makes requests by chance, sends the same bytes to the proxy and to a PostgreSQL
// of its own (a private PgSession), and insists on getting the same replies from both: its own rows, in order, each
// once, with its own parameters and prepared statements. Errors that end the connection are accepted where the seed has
// faults or limits that lead to them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/messages.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

struct ClientPlan {
  std::string database;
  bool transactions = true;     ///< not in statement mode
  bool prepared = true;         ///< named statements are tracked
  bool unnamed_follows = true;  ///< the unnamed statement may be used again after its Sync
  bool sleepy = false;          ///< mostly long queries, many of them canceled
  bool limits = false;          ///< some timeout may end a connection
  bool replicates = false;      ///< asks for a server of its own
  int requests = 20;
  unsigned abrupt = 2;  ///< per cent of requests in which the client vanishes
};

class Client final : public Far {
 public:
  Client(World& world, int number, ClientPlan plan);
  ~Client() override;

  void start();
  void on_bytes(const std::string& bytes) override;
  void on_end() override;
  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] TimePoint waiting_since() const { return since_; }
  [[nodiscard]] std::string describe() const;

 private:
  void connect();
  void login_message(const Message& message);
  void authenticate(std::string_view request);
  void next_request();
  void send(std::string bytes);
  void note_sent(const std::string& bytes);
  void choose_request();
  void request_in_transaction();
  void request_function_call();
  void request_parameters();
  void request_pipeline();
  void request_copy();
  void request_sleep();
  void request_stream();
  void simple(const std::string& sql);
  void expect_from(PgSession& model, const std::string& bytes);
  void compare();
  [[nodiscard]] bool matches(const std::vector<Message>& expected, bool complete) const;
  void request_done();
  void fatal(const Message& message);
  [[nodiscard]] bool closed_between_transactions(std::string_view text) const;
  void leave(bool terminate);
  void end_life();
  void cancel_later();
  void check_parameters();
  [[nodiscard]] std::string token();
  [[nodiscard]] std::string show(const std::vector<Message>& messages) const;

  void cancel_ended();

  /// The far end of a cancel request's connection.
  struct CancelEnd final : Far {
    explicit CancelEnd(Client& owner_client) : owner(owner_client) {}
    void on_bytes(const std::string&) override {}
    void on_end() override { owner.cancel_ended(); }
    Client& owner;
  };

  World& world_;
  CancelEnd cancel_end_{*this};
  std::shared_ptr<Link> cancel_link_;
  int number_;
  ClientPlan plan_;
  std::shared_ptr<Link> link_;
  PgSession model_;
  /// Outcomes that are right, each with the session it leads to. The first is the undisturbed one.
  struct Alternative {
    std::vector<Message> messages;
    PgSession after;
  };
  std::vector<Alternative> expected_;
  std::vector<Message> got_;
  std::string in_;
  std::string request_;  ///< for people
  char asked_in_ = 'I';  ///< transaction status that the last request met
  std::optional<protocol::ScramClient> scram_;
  std::string owner_;  ///< names this connection, if it replicates
  Parameters startup_, told_;
  std::string key_;
  bool logged_in_ = false, done_ = false, refused_ = false, busy_ = false, unnamed_copies_ = false;
  bool has_canceled_ = false;  ///< on this connection
  int left_;
  int tokens_ = 0;
  int requests_ = 0;
  int life_ = 0;  ///< counts connections, so that old events find nothing to do
  TimePoint since_;
};

}  // namespace pgweir::sim
