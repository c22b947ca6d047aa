// The extended query protocol on the console: prepared statements and portals over the commands of admin_command. Runs
// nothing itself. It says which command is to be run, and turns the answer that simple query protocol would give into
// the messages that the client asked for. Follows "Extended Query" of the PostgreSQL manual; commands take no
// parameters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/wire.hpp"

namespace pgweir::core {

using protocol::ByteView;

class ConsoleStatements {
 public:
  enum class Next : std::uint8_t {
    Send,       ///< `out`; the message is dealt with
    Run,        ///< `sql` after sending `out`; its whole answer goes through finish()
    BadPacket,  ///< the message is malformed
  };
  struct Step {
    Next next = Next::Send;
    std::string out;
    std::string sql;
  };

  /// True for the message types of the extended query protocol that on_message() takes.
  [[nodiscard]] static bool handles(char type);
  [[nodiscard]] Step on_message(char type, ByteView body);
  /// After an error everything but Sync is passed over.
  [[nodiscard]] bool skipping() const { return failed_; }
  /// A command of on_message() is being run.
  [[nodiscard]] bool running() const { return running_ != Running::Nothing; }
  /// `answer`: whole messages up to ReadyForQuery. Gives what the client gets in their place.
  [[nodiscard]] std::string finish(ByteView answer);
  /// A simple query replaces the unnamed statement and portal.
  void on_simple_query();

 private:
  enum class Running : std::uint8_t { Nothing, DescribeStatement, DescribePortal, Execute };
  struct Portal {
    std::string sql;
    std::vector<std::uint16_t> formats;  ///< as in Bind: none, one for all, or one for each column
    std::vector<std::uint32_t> types;    ///< of the columns, once it has run
    std::string answer;                  ///< rows and CommandComplete, in text format
    std::size_t at = 0;                  ///< what of it is still to be sent
    bool has_run = false;
  };

  [[nodiscard]] Step parse(ByteView body);
  [[nodiscard]] Step bind(ByteView body);
  [[nodiscard]] Step describe(ByteView body);
  [[nodiscard]] Step execute(ByteView body);
  [[nodiscard]] Step close(ByteView body);
  [[nodiscard]] Step sync();
  [[nodiscard]] Step fail(std::string_view sqlstate, std::string_view text);
  void fetch(Portal& portal, std::int32_t max_rows, std::string& out);

  std::map<std::string, std::string, std::less<>> statements_;
  std::map<std::string, Portal, std::less<>> portals_;
  bool failed_ = false;
  Running running_ = Running::Nothing;
  std::string target_;  ///< name of the portal that is being run or described
  std::int32_t max_rows_ = 0;
};

}  // namespace pgweir::core
