#include "proxy/core/host_reporter.hpp"

#include <fmt/format.h>

namespace pgweir::core {

std::vector<HostLine> HostReporter::lines(const router::HostTable& table,
                                          const std::vector<router::HostEvent>& events) {
  told_.resize(table.hosts.size());
  std::vector<HostLine> lines;
  for (const router::HostEvent& event : events) tell_event(table, event, lines);
  for (std::size_t i = 0; i < table.hosts.size(); ++i) {
    tell_failure(table.hosts[i], told_[i], lines);
    tell_reads(table.hosts[i], told_[i], lines);
  }
  return lines;
}

void HostReporter::tell_event(const router::HostTable& table, const router::HostEvent& event,
                              std::vector<HostLine>& lines) {
  const router::HostState& host = table.host(event.host);
  const auto tell = [&](LogLevel level, std::string text) {
    lines.push_back({level, fmt::format("{}: {}", databases_, text)});
  };
  switch (event.kind) {
    case router::HostEvent::Kind::PrimaryIs:
      return tell(LogLevel::Log, fmt::format("primary is {} (timeline {})", host.name, host.timeline));
    case router::HostEvent::Kind::PrimaryLost:
      return tell(LogLevel::Warning,
                  fmt::format("primary {} is lost{}{}", host.name, host.reason.empty() ? "" : ": ", host.reason));
    case router::HostEvent::Kind::Fenced:
      return tell(LogLevel::Warning, fmt::format("{} is fenced: {}", host.name, host.reason));
    case router::HostEvent::Kind::Conflict:
      return tell(LogLevel::Warning,
                  fmt::format("{} says primary on timeline {}, and so do others: nobody takes writes", host.name,
                              host.timeline));
    case router::HostEvent::Kind::Up:
      // The same answer may have shown that it belongs to another cluster: what it is there does not matter.
      if (host.role == router::HostRole::Unknown) return tell(LogLevel::Log, fmt::format("{} is up", host.name));
      return tell(LogLevel::Log,
                  fmt::format("{} is up: {} on timeline {}", host.name,
                              host.role == router::HostRole::Standby ? "a standby" : "says primary", host.timeline));
    case router::HostEvent::Kind::Down:
      told_[static_cast<std::size_t>(event.host)].failure = host.reason;
      return tell(LogLevel::Warning, fmt::format("{} is down: {}", host.name, host.reason));
    case router::HostEvent::Kind::ReadsOff:
    case router::HostEvent::Kind::ReadsOn:
      return;  // see tell_reads()
  }
}

// A single probe without an answer is nothing to speak of while the host counts as up.
void HostReporter::tell_failure(const router::HostState& host, Told& told, std::vector<HostLine>& lines) const {
  const bool failing = host.health == router::HostHealth::Down ||
                       (host.health == router::HostHealth::Unknown && host.reason != router::kNotAskedYet);
  if (!failing) {
    told.failure.clear();
  } else if (told.failure != host.reason) {
    told.failure = host.reason;
    lines.push_back({LogLevel::Warning, fmt::format("{}: {} cannot be asked: {}", databases_, host.name, host.reason)});
  }
}

// A suspicion lasts until the next answer, mostly a matter of milliseconds: what comes of it is told. That a host which
// is down or the primary takes no reads as a standby goes without saying.
void HostReporter::tell_reads(const router::HostState& host, Told& told, std::vector<HostLine>& lines) const {
  if (host.refusal == router::ReadRefusal::Suspect || host.takes_reads() == told.reads) return;
  told.reads = host.takes_reads();
  if (told.reads) {
    lines.push_back({LogLevel::Log, fmt::format("{}: {}: reads on", databases_, host.name)});
  } else if (host.refusal != router::ReadRefusal::NoStandby && host.refusal != router::ReadRefusal::NotUp) {
    lines.push_back({LogLevel::Warning, fmt::format("{}: {}: reads off: {}", databases_, host.name, host.reason)});
  }
}

}  // namespace pgweir::core
