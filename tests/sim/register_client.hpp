// A client of a database that is spread over the hosts of a cluster. It writes registers and reads them, in every way
// that the protocol has, and knows of each reply what it may look like: the messages from a PgSession of its own, the
// values from the history. An error is right only if something can have happened to a server that has its request.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/sim/history.hpp"
#include "tests/sim/messages.hpp"
#include "tests/sim/register_sql.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

struct RegisterPlan {
  std::string database;
  std::string server_database;  ///< its name on the servers
  Freshness freshness = Freshness::Session;
  bool writes = true;    ///< the database's servers take writes
  bool follows = false;  ///< its servers may be standbys even for what is no proven read
  bool split = true;     ///< its transactions are routed one by one
  bool pinned = false;   ///< has its server for as long as it is connected
  bool prepared = true;  ///< named statements are tracked
  bool retries = true;   ///< retry_reads
  int keys = 3;
  int requests = 40;
  unsigned abrupt = 0;     ///< per cent of requests in which the client vanishes
  Duration host_wait{};    ///< failover_wait_timeout
  Duration server_wait{};  ///< query_wait_timeout
};

class RegisterClient final : public Far {
 public:
  RegisterClient(World& world, int number, RegisterPlan plan);
  ~RegisterClient() override;

  void start();
  void on_bytes(const std::string& bytes) override;
  void on_end() override;
  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] std::string describe() const;
  /// Fails if its request has been waiting for a server for longer than it may.
  void check_deadline() const;

 private:
  enum class Wish { Auto, Primary, Standby };
  /// A server of its own, and what it does with requests.
  struct Reference {
    PgSession session;
    ReferenceData data;
    Reference() { session.attach(data, false); }
    Reference(const Reference& other) : session(other.session), data(other.data) { session.reattach(data); }
    Reference& operator=(const Reference& other) {
      session = other.session;
      data = other.data;
      session.reattach(data);
      return *this;
    }
  };
  /// An outcome that is right, and what it leads to.
  struct Outcome {
    std::vector<Message> messages;
    Reference after;
  };
  struct Read {
    std::string mark;
    int key;
    bool any_age;     ///< a hint sent it to a standby
    std::size_t own;  ///< how much this request writes before it
  };

  void connect();
  void login_message(const Message& message);
  void next_request();
  void choose_request();
  void request_in_block();
  void request_simple();
  void request_pipeline();
  void request_parameter();
  void request_burst();
  void request_whole_block();
  void request_wish();
  void request_copy_out();
  void request_copy_in();
  void request_cursor();
  void request_definition();
  [[nodiscard]] std::string copy_out_sql();
  void request_begin();
  void send_simple(const std::string& sql);
  void send(std::string bytes);
  [[nodiscard]] std::string read_sql();
  [[nodiscard]] std::string write_sql();
  [[nodiscard]] std::string special_sql();
  void add_simple(std::string& bytes, const std::string& sql);
  void add_parameterless(std::string& bytes, const std::string& sql);
  void add_prepared(std::string& bytes);
  void add_unnamed(std::string& bytes);
  [[nodiscard]] std::string mark(char kind);
  void note(const std::string& sql);
  void note_write(const std::string& value);
  void expect(const std::string& bytes);
  [[nodiscard]] Outcome run(const std::string& bytes, const ReferenceData::Course& course) const;
  [[nodiscard]] bool matches(const std::vector<Message>& expected, bool complete) const;
  void compare();
  void check_values(const Outcome& outcome) const;
  void check_value(const Read& read, const std::string& value, const Outcome& outcome) const;
  [[nodiscard]] bool writes() const { return plan_.writes && wish_ != Wish::Standby; }
  void check_conflict() const;
  void request_done();
  void fatal(const Message& message);
  [[nodiscard]] bool was_sent() const;
  [[nodiscard]] bool may_be_lost() const;
  [[nodiscard]] std::string show(const std::vector<Message>& messages) const;
  void leave(bool terminate);
  void end_life();

  World& world_;
  Cluster& cluster_;
  int number_;
  RegisterPlan plan_;
  std::shared_ptr<Link> link_;
  Reference reference_;
  std::vector<Outcome> outcomes_;
  std::vector<Message> got_;
  std::string in_, unsent_, request_;
  std::vector<std::string> marks_;              ///< of the request
  std::vector<Read> reads_;                     ///< of the request
  std::vector<Read> cursors_;                   ///< of the block
  std::vector<std::string> own_;                ///< values written by the request so far
  Wish wish_ = Wish::Auto;                      ///< pgweir.route
  std::optional<Required> required_;            ///< of the transaction
  bool read_only_ = false;                      ///< the block was begun so
  bool in_pieces_ = false;                      ///< the request was sent so
  std::uint64_t splits_before_ = 0;             ///< of the link, when the request began
  bool lone_read_ = false;                      ///< the request is one proven read outside of a block
  bool defines_ = false;                        ///< the request changes the catalogue
  bool copied_in_ = false, late_data_ = false;  ///< this request, or the one before it, is a COPY FROM STDIN
  int process_ = 0;                             ///< that got the request: another may not know that it is a read
  char asked_in_ = 'I';
  bool logged_in_ = false, done_ = false, busy_ = false;
  int left_, tokens_ = 0, life_ = 0;
  TimePoint since_;
};

}  // namespace pgweir::sim
