#include "router/router.hpp"

#include <array>

namespace pgweir::router {

namespace {

using std::string_view_literals::operator""sv;

constexpr std::array kTargetWords = {"any"sv,     "read-write"sv, "read-only"sv,
                                     "primary"sv, "standby"sv,    "prefer-standby"sv};
constexpr std::array kRouteReasonNames = {
    "no_routing"sv,    "target_primary"sv, "target_standby"sv, "hint_primary"sv, "hint_standby"sv,     "statement"sv,
    "session_state"sv, "serializable"sv,   "read"sv,           "no_standby"sv,   "read_your_writes"sv,
};
static_assert(kRouteReasonNames.size() == static_cast<std::size_t>(RouteReason::ReadYourWrites) + 1);

// A read that fails on one host after another stops here and tells the client.
constexpr int kAttemptsMax = 3;

RouteDecision to_primary(const HostTable& hosts, RouteReason reason) {
  if (!hosts.primary) return {RouteKind::Wait, {}, HostRole::Primary, reason};
  return {RouteKind::Host, *hosts.primary, HostRole::Primary, reason};
}

/// Counts and picks standbys that take reads and, where tokens are given, show what was written.
class StandbyChoice {
 public:
  StandbyChoice(const HostTable& hosts, const WriteToken* own, const WriteToken* shared)
      : hosts_(hosts), own_(own), shared_(shared) {
    for (std::size_t i = 0; i < hosts.hosts.size(); ++i) {
      if (!hosts.hosts[i].takes_reads()) continue;
      any_takes_reads_ = true;
      if (fits(hosts.hosts[i])) ++count_;
    }
  }

  [[nodiscard]] bool any_takes_reads() const { return any_takes_reads_; }

  /// The less busy of two picked at random: close to the best choice, and no herd runs to the host that was idle last.
  [[nodiscard]] std::optional<HostId> pick(std::span<const std::uint32_t> outstanding, std::uint64_t random) const {
    if (count_ == 0) return std::nullopt;
    const HostId first = nth(random % count_);
    if (count_ == 1) return first;
    // Any of the others, each as likely.
    const std::uint64_t step = 1 + (random / count_) % (count_ - 1);
    const HostId second = nth((random % count_ + step) % count_);
    return load(outstanding, second) < load(outstanding, first) ? second : first;
  }

 private:
  [[nodiscard]] bool fits(const HostState& host) const {
    return host.takes_reads() && (own_ == nullptr || own_->shown_by(host)) &&
           (shared_ == nullptr || shared_->shown_by(host));
  }
  [[nodiscard]] HostId nth(std::uint64_t n) const {
    for (std::size_t i = 0; i < hosts_.hosts.size(); ++i) {
      if (fits(hosts_.hosts[i]) && n-- == 0) return static_cast<HostId>(i);
    }
    return HostId{};
  }
  static std::uint32_t load(std::span<const std::uint32_t> outstanding, HostId host) {
    const auto index = static_cast<std::size_t>(host);
    return index < outstanding.size() ? outstanding[index] : 0;
  }

  const HostTable& hosts_;
  const WriteToken* own_;
  const WriteToken* shared_;
  std::uint64_t count_ = 0;
  bool any_takes_reads_ = false;
};

}  // namespace

std::optional<TargetSessionAttrs> parse_target_session_attrs(std::string_view word) {
  for (std::size_t i = 0; i < kTargetWords.size(); ++i) {
    if (kTargetWords[i] == word) return static_cast<TargetSessionAttrs>(i);
  }
  return std::nullopt;
}

std::string_view to_string(TargetSessionAttrs attrs) {
  return kTargetWords[static_cast<std::size_t>(attrs)];
}

std::string_view reason_name(RouteReason reason) {
  return kRouteReasonNames[static_cast<std::size_t>(reason)];
}

RouteDecision decide(const RouteRequest& request, const SessionRoute& session, const HostTable& hosts,
                     const RoutePolicy& policy, const WriteToken& database_writes,
                     std::span<const std::uint32_t> outstanding, std::uint64_t random) {
  const bool own = policy.read_your_writes != ReadYourWrites::Off;
  const bool shared = policy.read_your_writes == ReadYourWrites::Database;
  const StandbyChoice fresh(hosts, own ? &session.own_writes : nullptr, shared ? &database_writes : nullptr);
  const auto to_standby = [&](const StandbyChoice& choice, RouteReason reason, bool else_primary) -> RouteDecision {
    if (const auto host = choice.pick(outstanding, random)) {
      return {RouteKind::Host, *host, HostRole::Standby, reason};
    }
    if (!else_primary) return {RouteKind::Wait, {}, HostRole::Standby, reason};
    return to_primary(hosts, choice.any_takes_reads() ? RouteReason::ReadYourWrites : RouteReason::NoStandby);
  };

  if (!policy.read_write_split) {
    switch (policy.attrs) {
      case TargetSessionAttrs::Any:
        return {RouteKind::Anywhere, {}, HostRole::Unknown, RouteReason::NoRouting};
      case TargetSessionAttrs::ReadWrite:
      case TargetSessionAttrs::Primary:
        return to_primary(hosts, RouteReason::TargetPrimary);
      case TargetSessionAttrs::ReadOnly:
      case TargetSessionAttrs::Standby:
        // Whoever asks for a standby by name accepts its lag within the limits: nothing could be fresher for him.
        return to_standby(StandbyChoice(hosts, nullptr, nullptr), RouteReason::TargetStandby, false);
      case TargetSessionAttrs::PreferStandby:
        return to_standby(fresh, RouteReason::TargetStandby, true);
    }
  }

  const RouteWish wish = request.hint != RouteWish::Auto ? request.hint : session.wish;
  if (wish == RouteWish::Primary) return to_primary(hosts, RouteReason::HintPrimary);
  // What the session keeps on the primary is not elsewhere, whatever anybody wishes.
  if (session.bound_to_primary) return to_primary(hosts, RouteReason::SessionState);
  // Nor is what a standby refuses.
  if (wish == RouteWish::Standby && !policy.serializable) {
    return to_standby(StandbyChoice(hosts, nullptr, nullptr), RouteReason::HintStandby, true);
  }
  if (request.verdict.cls != StatementClass::Read && !begins_read_only(request.verdict)) {
    return to_primary(hosts, RouteReason::Statement);
  }
  if (session.serializable || policy.serializable) return to_primary(hosts, RouteReason::Serializable);
  return to_standby(fresh, RouteReason::Read, true);
}

FailureKind classify_failure(std::string_view sqlstate, std::string_view message, std::string_view routine) {
  if (sqlstate == "25006") return FailureKind::ReadOnlyTransaction;
  if (sqlstate == "40001" && message.find("conflict with recovery") != std::string_view::npos) {
    return FailureKind::RecoveryConflict;
  }
  if (sqlstate == "0A000" &&
      (routine == "GetSerializableTransactionSnapshot" || message == "cannot use serializable mode in a hot standby")) {
    return FailureKind::Serializable;
  }
  if (sqlstate == "57P01" || sqlstate == "57P02" || sqlstate == "57P03") return FailureKind::RecoveryConflict;
  return FailureKind::Other;
}

Retry may_retry(const FailedStatement& failed, const RoutePolicy& policy) {
  if (failed.verdict.cls != StatementClass::Read || !failed.first_of_transaction || failed.reply_delivered ||
      failed.more_was_sent) {
    return Retry::No;
  }
  const bool too_often = failed.attempts >= kAttemptsMax;
  switch (failed.failure) {
    case FailureKind::ReadOnlyTransaction:
      // On a primary it is the client's own read-only transaction. On a standby it was our mistake, however many
      // servers have been lost before, and it is the last time that a standby sees it.
      return failed.role == HostRole::Standby ? Retry::OnPrimaryAndLearn : Retry::No;
    case FailureKind::Serializable:
      return failed.role == HostRole::Standby ? Retry::OnPrimary : Retry::No;
    case FailureKind::RecoveryConflict:
      if (!policy.retry_reads || too_often) return Retry::No;
      return failed.role == HostRole::Standby ? Retry::OnPrimary : Retry::Elsewhere;
    case FailureKind::ConnectionLost:
      return policy.retry_reads && !too_often ? Retry::Elsewhere : Retry::No;
    case FailureKind::Other:
      break;
  }
  return Retry::No;
}

}  // namespace pgweir::router
