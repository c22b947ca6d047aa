// What the log is told of the hosts of a group: each change once, in words. Pure; the lines go to the log in proxy/io.
#pragma once

#include <string>
#include <vector>

#include "proxy/core/port.hpp"
#include "router/host_tracker.hpp"

namespace pgweir::core {

struct HostLine {
  LogLevel level = LogLevel::Log;
  std::string text;

  friend bool operator==(const HostLine&, const HostLine&) = default;
};

class HostReporter {
 public:
  /// `databases`: whom the lines are about.
  explicit HostReporter(std::string databases) : databases_(std::move(databases)) {}
  void set_databases(std::string databases) { databases_ = std::move(databases); }

  /// What is new in `table`, the latest one; `events` are all since the call before.
  [[nodiscard]] std::vector<HostLine> lines(const router::HostTable& table,
                                            const std::vector<router::HostEvent>& events);

 private:
  struct Told {
    bool reads = false;
    std::string failure;
  };

  void tell_event(const router::HostTable& table, const router::HostEvent& event, std::vector<HostLine>& lines);
  void tell_failure(const router::HostState& host, Told& told, std::vector<HostLine>& lines) const;
  void tell_reads(const router::HostState& host, Told& told, std::vector<HostLine>& lines) const;

  std::string databases_;
  std::vector<Told> told_;  // by HostId
};

}  // namespace pgweir::core
