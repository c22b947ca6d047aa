// One connection to a PostgreSQL server through libpq that never blocks its thread: connects, asks one thing at a time,
// and notices while nothing is asked that the server has gone. It decides nothing about what to ask, and has no
// timeouts: whoever has waited long enough closes it.
#pragma once

#include <libpq-fe.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/core/monitor_plan.hpp"

namespace pgweir::io {

/// What went wrong with a connection or a query.
struct LibpqFailure {
  std::string sqlstate;         ///< empty if it is not the server that says so
  std::string text;             ///< one line, without libpq's advice
  bool refused = false;         ///< nobody listens there, or 57P03: it does not accept connections now
  bool needs_password = false;  ///< one was asked for, and none is known
};

/// Takes libpq's message apart: that of a failed connection (verbosity PQERRORS_VERBOSE), or a plain one.
[[nodiscard]] LibpqFailure parse_libpq_error(std::string_view message);

struct LibpqResultDeleter {
  void operator()(PGresult* result) const { ::PQclear(result); }
};
using LibpqResult = std::unique_ptr<PGresult, LibpqResultDeleter>;

/// All calls and callbacks on the thread of the io_context.
class LibpqConnection {
 public:
  using Opened = std::function<void(const LibpqFailure* failure)>;
  using Answered = std::function<void(LibpqResult result, const LibpqFailure* failure)>;
  using Lost = std::function<void(const std::string& text)>;

  explicit LibpqConnection(boost::asio::io_context& context);
  LibpqConnection(const LibpqConnection&) = delete;
  LibpqConnection& operator=(const LibpqConnection&) = delete;
  ~LibpqConnection();

  /// Starts a connection; one that is there is closed. `address`: the numeric address of host.host, empty for a Unix
  /// socket: libpq is not to look names up, which would block. `opened` is called once, later, unless closed before.
  void open(const core::HostPort& host, const std::string& address, const core::MonitorLogin& login, Opened opened);
  /// Of an open connection that is not being asked: sends one statement. `answered` is called once, later, unless
  /// closed before: with the rows, or with the failure, after which is_open() says whether the connection still stands.
  void ask(const std::string& statement, Answered answered);
  /// Called when the connection ends while nothing is being asked; it is closed by then.
  void on_lost(Lost lost) { lost_ = std::move(lost); }
  [[nodiscard]] bool is_open() const { return state_ == State::Idle; }
  /// Ends it. No callback comes any more.
  void close();

 private:
  enum class State : std::uint8_t { Closed, Connecting, Idle, Asking };

  void wait(boost::asio::posix::stream_descriptor::wait_type what, void (LibpqConnection::*next)());
  void later(std::function<void()> action);
  void poll_connect();
  void open_failed();
  void flush();
  void read_answer();
  void finish_answer();
  void watch();
  void idle_readable();
  static void on_notice(void* self, const PGresult* notice);

  boost::asio::io_context& context_;
  boost::asio::posix::stream_descriptor socket_;  // libpq owns the number: released, never closed
  PGconn* connection_ = nullptr;
  State state_ = State::Closed;
  PostgresPollingStatusType polling_ = PGRES_POLLING_WRITING;
  std::shared_ptr<char> life_;  // what waits for an earlier one finds it gone
  Opened opened_;
  Answered answered_;
  Lost lost_;
  LibpqResult result_;
  std::string last_words_;  // of a server that ends the connection: its FATAL
};

}  // namespace pgweir::io
