#include "proxy/core/host_reporter.hpp"

#include <fmt/format.h>

namespace pgweir::core {

using router::HostEvent;
using router::HostHealth;
using router::HostRole;
using router::HostState;
using router::HostTable;
using router::ReadRefusal;

std::vector<HostLine> HostReporter::lines(const HostTable& table, const std::vector<HostEvent>& events) {
  told_.resize(table.hosts.size());
  std::vector<HostLine> lines;
  for (const HostEvent& event : events) tell_event(table, event, lines);
  for (std::size_t i = 0; i < table.hosts.size(); ++i) {
    tell_failure(table.hosts[i], told_[i], lines);
    tell_reads(table.hosts[i], told_[i], lines);
  }
  return lines;
}

void HostReporter::tell_event(const HostTable& table, const HostEvent& event, std::vector<HostLine>& lines) {
  const HostState& host = table.host(event.host);
  const auto tell = [&](LogLevel level, std::string text) {
    lines.push_back({level, fmt::format("{}: {}", databases_, text)});
  };
  switch (event.kind) {
    case HostEvent::Kind::PrimaryIs:
      return tell(LogLevel::Log, fmt::format("primary is {} (timeline {})", host.name, host.timeline));
    case HostEvent::Kind::PrimaryLost:
      return tell(LogLevel::Warning,
                  fmt::format("primary {} is lost{}{}", host.name, host.reason.empty() ? "" : ": ", host.reason));
    case HostEvent::Kind::Fenced:
      return tell(LogLevel::Warning, fmt::format("{} is fenced: {}", host.name, host.reason));
    case HostEvent::Kind::Conflict:
      return tell(LogLevel::Warning,
                  fmt::format("{} says primary on timeline {}, and so do others: nobody takes writes", host.name,
                              host.timeline));
    case HostEvent::Kind::Up:
      return tell(LogLevel::Log,
                  fmt::format("{} is up: {} on timeline {}", host.name,
                              host.role == HostRole::Standby ? "a standby" : "says primary", host.timeline));
    case HostEvent::Kind::Down:
      told_[static_cast<std::size_t>(event.host)].failure = host.reason;
      return tell(LogLevel::Warning, fmt::format("{} is down: {}", host.name, host.reason));
    case HostEvent::Kind::ReadsOff:
    case HostEvent::Kind::ReadsOn:
      return;  // see tell_reads()
  }
}

// A single probe without an answer is nothing to speak of while the host counts as up.
void HostReporter::tell_failure(const HostState& host, Told& told, std::vector<HostLine>& lines) const {
  const bool failing =
      host.health == HostHealth::Down || (host.health == HostHealth::Unknown && host.reason != router::kNotAskedYet);
  if (!failing) {
    told.failure.clear();
  } else if (told.failure != host.reason) {
    told.failure = host.reason;
    lines.push_back({LogLevel::Warning, fmt::format("{}: {} cannot be asked: {}", databases_, host.name, host.reason)});
  }
}

// A suspicion lasts until the next answer, mostly a matter of milliseconds: what comes of it is told. That a host which
// is down or the primary takes no reads as a standby goes without saying.
void HostReporter::tell_reads(const HostState& host, Told& told, std::vector<HostLine>& lines) const {
  if (host.refusal == ReadRefusal::Suspect || host.takes_reads() == told.reads) return;
  told.reads = host.takes_reads();
  if (told.reads) {
    lines.push_back({LogLevel::Log, fmt::format("{}: {}: reads on", databases_, host.name)});
  } else if (host.refusal != ReadRefusal::NoStandby && host.refusal != ReadRefusal::NotUp) {
    lines.push_back({LogLevel::Warning, fmt::format("{}: {}: reads off: {}", databases_, host.name, host.reason)});
  }
}

}  // namespace pgweir::core
