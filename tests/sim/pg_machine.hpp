// One PostgreSQL session as a pure machine over a tiny SQL: messages in, messages out. It is used twice: behind the
// pooler as the server, and inside each client as the reference that says what a server of its own would have answered.
// It follows the protocol chapter's message flow: implicit and explicit transactions, 25P02, skipping to Sync, replies
// held back until Sync or Flush, COPY, transactional SET with ParameterStatus before ReadyForQuery.
//
// The SQL, several statements separated by semicolons:
//   ECHO t | ROWS t count width | SLEEP t | DIE t | ERROR t | NOTICE t | NOTIFY t | BEGIN | COMMIT | ROLLBACK
//   SET name='v' | SHOW name | RESET name | DISCARD ALL | DEALLOCATE ALL | DEALLOCATE name | EXECUTE name
//   COPYIN t | COPYOUT t count | SELECT pg_catalog.set_config('name','v',false)
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgweir::sim {

struct Message {
  char type = 0;
  std::string body{};
};

/// Takes the complete messages off the front of a byte stream.
[[nodiscard]] std::vector<Message> take_messages(std::string& bytes);
[[nodiscard]] std::string sqlstate_of(const Message& error);
[[nodiscard]] std::string text_of(const Message& error);
[[nodiscard]] std::string describe(const Message& message);

using Values = std::map<std::string, std::string>;

class PgMachine {
 public:
  enum class State {
    Reading,   ///< wants the next message
    Working,   ///< call advance()
    Sleeping,  ///< inside SLEEP: call wake()
    Dead,      ///< DIE: the server process ends without a word
    Ended,     ///< Terminate, or the protocol was broken by the client (`broken`)
  };

  PgMachine();

  /// `startup` becomes what RESET goes back to. The error if a value is refused.
  [[nodiscard]] std::optional<Message> start(const Values& startup);
  [[nodiscard]] std::vector<Message> report() const;

  [[nodiscard]] State state() const { return state_; }
  /// State must be Reading.
  void take(Message message);
  /// One statement further. State must be Working.
  void advance();
  /// The end of SLEEP, or of the slowness of another statement.
  void wake(bool canceled);
  /// A cancel request hits between two statements of a simple query. State must be Working.
  void cancel();
  /// From now on SET, set_config, RESET and DISCARD ALL take time, so that a cancel request can hit them.
  void make_slow() { slow_ = true; }
  /// The message is answered with 57014, as by somebody who canceled it before it was looked at. State: Reading.
  void refuse(const Message& message);
  /// What the server has decided to send.
  [[nodiscard]] std::deque<Message> take_output();

  [[nodiscard]] const Values& values() const { return values_; }
  /// The value that the client was told last, for reported parameters.
  [[nodiscard]] const Values& told() const { return told_; }
  [[nodiscard]] char status() const { return status_; }
  [[nodiscard]] bool copying() const { return copy_; }
  [[nodiscard]] bool skipping() const { return skip_; }
  /// Between transactions, with nothing held back or left to do.
  [[nodiscard]] bool at_rest() const;
  /// Text of the statement under way.
  [[nodiscard]] const std::string& running() const { return running_; }
  [[nodiscard]] bool broken() const { return broken_; }
  [[nodiscard]] const std::map<std::string, std::string>& statements() const { return statements_; }
  [[nodiscard]] static bool reported(const std::string& name);
  [[nodiscard]] static std::string canonical(const std::string& name);

 private:
  struct Failure {
    std::string sqlstate, message;
  };
  using Outcome = std::optional<Failure>;
  /// The protocol the statement runs under.
  enum class Via { Simple, Extended };

  void put(char type, std::string body = {});
  void flush();
  void error(const Failure& failure);
  void ready();
  void begin_implicit();
  void end_implicit(bool ok);
  void fail_pipeline(const Failure& failure);
  void fail_simple(const Failure& failure);
  void after_statement();
  void take_in_copy(const Message& message);
  void end_copy(const Failure* failure);
  void take_extended(const Message& message);
  void parse(const Message& message);
  void bind(const Message& message);
  void describe_target(const Message& message);
  void close(const Message& message);
  void execute(const Message& message);
  void function_call();
  Outcome run(const std::string& sql, Via via);
  Outcome run_utility(const std::vector<std::string>& word, const std::string& sql, Via via);
  Outcome run_transaction(const std::string& verb);
  Outcome set(const std::string& name, const std::string& value);
  Outcome forget(const std::string& name);
  void copy_out(const std::string& token, std::size_t count);
  void row(const std::string& value);
  void complete(const std::string& tag);

  State state_ = State::Reading;
  Values defaults_, values_, saved_, told_;
  std::map<std::string, std::string> statements_, portals_;
  std::deque<Message> out_, held_;
  std::size_t held_size_ = 0;
  std::deque<std::string> rest_;  ///< statements of the simple query still to run
  std::vector<std::string> notifications_;
  std::string running_;
  char status_ = 'I';
  bool implicit_ = false, skip_ = false, copy_ = false, broken_ = false, slow_ = false;
  std::string delayed_;  ///< the slow statement under way
  Via via_ = Via::Simple;
};

}  // namespace pgweir::sim
