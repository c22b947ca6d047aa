// Taking over from a process that runs already (online restart, -R): asks it over its Unix socket to suspend, receives
// its sockets with SHOW FDS, and sends it away. It may be pgweir, which tells all that its sessions know, or PgBouncer.
// Blocking: nobody is served yet.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "proxy/core/admin_data.hpp"
#include "proxy/io/listener.hpp"

namespace pgweir::io {

class Takeover {
 public:
  /// Null, with a word in the log, if nobody answers at the Unix socket of `spec`. Throws std::runtime_error if
  /// somebody does who cannot be taken over from; it goes on then. `suspend_timeout`: how long it may take to come to
  /// rest.
  [[nodiscard]] static std::unique_ptr<Takeover> begin(const ListenSpec& spec,
                                                       std::chrono::microseconds suspend_timeout);
  ~Takeover();
  Takeover(const Takeover&) = delete;
  Takeover& operator=(const Takeover&) = delete;

  [[nodiscard]] const std::vector<core::FdRow>& rows() const { return rows_; }
  /// Ends the other process, and waits until it has let go of the sockets and of the pidfile.
  void finish(const std::string& pidfile);

 private:
  explicit Takeover(int fd) : fd_(fd) {}
  void log_in();
  void run(const std::string& command, std::chrono::microseconds patience);
  void take_message(char type, const std::string& body);

  int fd_;
  std::string in_;
  std::vector<std::shared_ptr<const int>> descriptors_;
  std::vector<std::vector<std::optional<std::string>>> values_;  ///< rows of the present result
  std::vector<std::shared_ptr<const int>> taken_;                ///< their descriptors
  bool ready_ = false;
  std::string error_;
  std::vector<core::FdRow> rows_;
};

}  // namespace pgweir::io
