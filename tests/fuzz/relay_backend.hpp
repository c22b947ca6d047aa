// One honest PostgreSQL backend, as far as a relay can tell: message flow, statements and portals, transactions, COPY,
// errors and skipping to Sync, over a tiny SQL, and whatever else it may be sent. It also looks at what the proxy makes
// of its clients' messages: they are framed, and none of one client comes between those of another.
//
// Texts of a client carry its tag, and rows repeat the text and the parameters of what they answer. A script can make
// the backend lie, that is send what it likes; from then on only the framing is looked at.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgweir::fuzz {

/// The tag of client 'A' or 'B'. No input can spell it: the bytes '@' and '=' are taken out of what scripts send.
inline std::string tag_of(char client) {
  return std::string("@=tag") + client + "=";
}
/// Bit 0 for the tag of A in `text`, bit 1 for that of B.
unsigned tags_in(std::string_view text);

class Backend {
 public:
  enum class Step : std::uint8_t { NeedInput, Progress, Sleeping, Closed };

  explicit Backend(std::uint32_t pid) : pid_(pid) {}

  void input(std::string_view bytes) { in_.append(bytes); }
  /// Handles one message.
  Step step();
  /// Ends a SLEEP, by itself or because of a cancel request.
  void wake(bool canceled);
  /// Something was sent in its name.
  void lie() { honest_ = false; }
  [[nodiscard]] std::string take_output();
  /// The process that a cancel request which it got was for.
  [[nodiscard]] std::optional<std::uint32_t> cancels() const { return cancels_; }
  [[nodiscard]] std::uint32_t pid() const { return pid_; }

 private:
  using Values = std::map<std::string, std::string>;
  /// SQLSTATE of a failure; its text is the SQL.
  using Outcome = std::optional<const char*>;
  struct Portal {
    std::string sql, parameters;
  };

  Step take_startup();
  void greet();
  void check_owner(std::string_view body);
  void handle(char type, std::string_view body);
  void handle_copy(char type);
  void handle_extended(char type, std::string_view body);
  void run_query(std::string_view body);
  void continue_query();
  void end_query();
  Outcome run(const std::string& sql, const std::string& parameters, bool extended, std::int32_t max_rows);
  Outcome run_transaction(std::string_view sql);
  Outcome run_session(const std::string& sql);
  Outcome run_rows(std::string_view sql, const std::string& text, std::int32_t max_rows);
  void set(std::string_view sql);
  Outcome parse(std::string_view body);
  Outcome bind(std::string_view body);
  Outcome describe(std::string_view body);
  Outcome close(std::string_view body);
  Outcome execute(std::string_view body);
  void end_copy(bool ok);
  void row(std::string_view text);
  void complete(std::string_view tag);
  void fail(const char* sqlstate, bool extended);
  void ready();
  void flush();

  std::uint32_t pid_;
  std::string in_, held_, out_;
  bool started_ = false, honest_ = true, closed_ = false;
  bool skip_ = false, copy_ = false, extended_ = false, sleeping_ = false;
  char status_ = 'I';
  unsigned owner_ = 0;  ///< whose work is under way, as from tags_in()
  std::string running_;
  std::vector<std::string> rest_;  ///< statements of the simple query still to run
  std::map<std::string, std::string, std::less<>> statements_;
  std::map<std::string, Portal, std::less<>> portals_;
  Values defaults_{{"application_name", ""}, {"client_encoding", "UTF8"}, {"DateStyle", "ISO, MDY"}};
  Values values_ = defaults_, saved_ = defaults_, told_ = defaults_;
  std::optional<std::uint32_t> cancels_;
};

}  // namespace pgweir::fuzz
