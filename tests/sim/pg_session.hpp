// One PostgreSQL backend as far as a pooler can tell: the protocol's message flow, prepared statements, transactions
// with transactional SET, COPY, errors and skipping to Sync, over a tiny SQL. Used twice: as the servers behind the
// pooler, and as each client's private reference, which says what the client would have got from a server of its own.
//
// The SQL: ECHO token | SLEEP token | FAIL token | BEGIN | COMMIT | ROLLBACK | SET name='v' | SHOW name | RESET name |
// DISCARD ALL | DEALLOCATE ALL | DEALLOCATE name | EXECUTE name | COPYIN token | COPYOUT token n | ROWS token n bytes |
// SELECT pg_catalog.set_config(...) ; several separated by semicolons run as one implicit transaction. STREAM begins
// CopyBoth mode as START_REPLICATION does; it sends back what it gets.
//
// What is about data is left to a Data. Where there is a Schema, TABLE name returns as many columns as the table has
// and ALTER name columns number changes that. Like a plan that PostgreSQL keeps, a prepared TABLE must not return
// others than when it was parsed.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pool/time.hpp"

namespace pgweir::sim {

using Parameters = std::map<std::string, std::string>;

class Schema;

/// Why a statement fails.
struct Failure {
  const char* sqlstate;
  std::string message;
  bool fatal = false;  ///< ends the connection
  bool late = false;   ///< only when it runs, behind its RowDescription
};

/// The statements that are about data, and their transactions: of a host of the cluster, or of a client's reference.
class Data {
 public:
  struct Result {
    std::optional<Failure> failure;
    std::vector<std::vector<std::string>> rows;
    std::string tag;
    bool copies = false;  ///< COPY TO STDOUT; one that fails late may have rows
  };
  virtual ~Data() = default;
  /// How many columns the statement returns, 0 for none. nullopt: it is not about data.
  [[nodiscard]] virtual std::optional<std::size_t> columns(const std::string& sql) const = 0;
  /// A transaction begins. True: it is read only, because the host recovers.
  virtual bool begin() = 0;
  virtual Result run(const std::string& sql, bool read_only) = 0;
  /// It is a COPY FROM STDIN: begin_copy, copy_line for each line, end_copy for its tag if all went well.
  [[nodiscard]] virtual bool copies_in(const std::string& sql) const = 0;
  [[nodiscard]] virtual std::optional<Failure> begin_copy(bool read_only) = 0;
  [[nodiscard]] virtual std::optional<Failure> copy_line(std::string_view line) = 0;
  [[nodiscard]] virtual std::string end_copy() = 0;
  /// The transaction ends. True: the client hears of it only after PgSession::commit_done.
  virtual bool end(bool commit) = 0;
};

class PgSession {
 public:
  /// Committing: call commit_done() before going on.
  enum class Step { NeedInput, Progress, Sleeping, Committing, Closed };

  PgSession();
  /// From now on there is data, and in_hot_standby is reported. The data must outlive the session.
  void attach(Data& data, bool in_hot_standby);
  /// From now on there are the tables of this schema, which must outlive the session; `clock` says what time it is.
  void know_schema(Schema& schema, std::function<pool::TimePoint()> clock) {
    schema_ = &schema;
    clock_ = std::move(clock);
  }
  /// There is another parameter.
  void know(const std::string& name, const std::string& value) { defaults_[name] = values_[name] = value; }
  /// Another session's data, of a copy of the session.
  void reattach(Data& data) { data_ = &data; }
  /// The host has been promoted, or was not yet when the session began.
  void set_hot_standby(bool on) { hot_standby_ = on; }
  /// What the other end has been told.
  [[nodiscard]] bool hot_standby_told() const { return hot_standby_told_; }
  void commit_done();

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
  /// A transaction has begun, of whatever kind.
  [[nodiscard]] bool in_transaction() const { return implicit_ || status_ != 'I'; }
  [[nodiscard]] char status() const { return status_; }
  [[nodiscard]] const std::string& running() const { return running_; }
  /// The next message, for people; empty if it is not complete.
  [[nodiscard]] std::string next() const;
  [[nodiscard]] std::size_t statements() const { return statements_.size(); }
  [[nodiscard]] bool has_statement(const std::string& name) const { return statements_.contains(name); }
  [[nodiscard]] static bool reported(const std::string& name);

 private:
  using Outcome = std::optional<Failure>;

  void handle(char type, std::string_view body);
  void call_function();
  void run_query(std::string sql);
  void continue_query();
  Outcome run(const std::string& sql, bool extended);
  Outcome run_data(const std::string& sql, bool extended, std::size_t columns);
  Outcome run_utility(const std::string& sql);
  void end_transaction(bool commit);
  [[nodiscard]] std::size_t columns_of(const std::string& sql) const;
  [[nodiscard]] Step pause() const;
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
  Outcome begin_data_copy();
  void begin_copy();
  void copy_data(std::string_view line);
  void end_copy(bool ok);
  void fail_copy(const Failure& failure);
  void take_stream(char type, std::string_view body);
  void begin_statement();
  [[nodiscard]] std::string with_columns(const std::string& sql) const;
  [[nodiscard]] Outcome revalidate(const std::string& sql) const;
  void run_table(const std::vector<std::string>& word);

  Parameters defaults_, values_, saved_, told_;
  std::map<std::string, std::string> statements_;
  std::map<std::string, std::string> portals_;
  std::string in_, out_, held_, running_;
  std::vector<std::string> rest_;  ///< statements of the simple query still to run
  char status_ = 'I';
  bool implicit_ = false;  ///< an implicit transaction block has begun
  bool skip_ = false, copy_ = false, stream_ = false, extended_ = false, sleeping_ = false, closed_ = false,
       cancel_next_ = false;
  bool data_copy_ = false;  ///< the COPY is about data
  Data* data_ = nullptr;
  Schema* schema_ = nullptr;
  std::function<pool::TimePoint()> clock_;
  bool read_only_ = false;  ///< of the transaction
  bool hot_standby_ = false, hot_standby_told_ = false;
  bool commit_wait_ = false, ready_due_ = false;
};

}  // namespace pgweir::sim
