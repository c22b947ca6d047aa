// One PostgreSQL backend as far as a pooler can tell: the protocol's message flow, prepared statements, transactions
// with transactional SET, COPY, errors and skipping to Sync, over a tiny SQL. Used twice: as the servers behind the
// pooler, and as each client's private reference, which says what the client would have got from a server of its own.
//
// The SQL: ECHO token | SLEEP token | FAIL token | BEGIN | COMMIT | ROLLBACK | SET name='v' | SHOW name | RESET name |
// DISCARD ALL | DEALLOCATE ALL | DEALLOCATE name | EXECUTE name | COPYIN token | COPYOUT token n | ROWS token n bytes |
// SELECT pg_catalog.set_config(...) ; several separated by semicolons run as one implicit transaction. STREAM begins
// CopyBoth mode as START_REPLICATION does; it sends back what it gets.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgweir::sim {

using Parameters = std::map<std::string, std::string>;

class PgSession {
 public:
  enum class Step { NeedInput, Progress, Sleeping, Closed };

  PgSession();

  /// Parameters as from a start-up packet; they are what RESET goes back to.
  void start(const Parameters& startup);
  void input(std::string_view bytes) { in_.append(bytes); }
  /// Handles one message. Sleeping: call wake() before going on.
  Step step();
  /// Ends a SLEEP, by itself or because of a cancel request.
  void wake(bool canceled);
  /// A cancel request hits the statement that step() is about to run.
  void cancel_next() { cancel_next_ = true; }
  /// Bytes that the server has decided to send; the rest of an unfinished pipeline stays inside until Sync or Flush.
  [[nodiscard]] std::string take_output();
  /// ParameterStatus messages of the login.
  void append_report(std::string& out) const;

  [[nodiscard]] const Parameters& values() const { return values_; }
  [[nodiscard]] bool idle() const {
    return status_ == 'I' && in_.empty() && !skip_ && !copy_ && !stream_ && !sleeping_;
  }
  [[nodiscard]] char status() const { return status_; }
  [[nodiscard]] const std::string& running() const { return running_; }
  /// The next message, for people; empty if it is not complete.
  [[nodiscard]] std::string next() const;
  [[nodiscard]] std::size_t statements() const { return statements_.size(); }
  [[nodiscard]] static bool reported(const std::string& name);

 private:
  struct Failure {
    const char* sqlstate;
    std::string message;
  };
  using Outcome = std::optional<Failure>;

  void handle(char type, std::string_view body);
  void run_query(std::string sql);
  void continue_query();
  Outcome run(const std::string& sql, bool extended);
  Outcome run_utility(const std::string& sql);
  Outcome set(const std::string& name, const std::string& value);
  void row(const std::string& token);
  void complete(const std::string& tag);
  void error(const Failure& failure);
  void fail_extended(const Failure& failure);
  void end_implicit(bool ok);
  void ready();
  void parse(std::string_view body);
  void bind(std::string_view body);
  void describe(std::string_view body);
  void close(std::string_view body);
  void execute(std::string_view body);
  void end_copy(bool ok);
  void take_stream(char type, std::string_view body);
  void begin_statement();

  Parameters defaults_, values_, saved_, told_;
  std::map<std::string, std::string> statements_;
  std::map<std::string, std::string> portals_;
  std::string in_, out_, held_, running_;
  std::vector<std::string> rest_;  ///< statements of the simple query still to run
  char status_ = 'I';
  bool implicit_ = false;  ///< an implicit transaction block has begun
  bool skip_ = false, copy_ = false, stream_ = false, extended_ = false, sleeping_ = false, closed_ = false,
       cancel_next_ = false;
  std::string copy_token_;
};

}  // namespace pgweir::sim
