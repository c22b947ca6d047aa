#include "proxy/io/host_prober.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "proxy/core/config_values.hpp"
#include "proxy/core/host_group.hpp"
#include "proxy/io/clock.hpp"
#include "proxy/io/socket_options.hpp"

namespace pgweir::io {

namespace {

using std::chrono::steady_clock;

/// A storm of broken connections must not make a storm of probes.
constexpr std::chrono::milliseconds kShortestPause{20};
/// After a refused login: only an operator can change that, and each attempt is a line in PostgreSQL's log.
constexpr std::chrono::seconds kLoginPause{5};
constexpr const char* kRightsQuery = "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')";

constexpr int kProbeColumns = 9;

std::optional<std::string_view> cell(const PGresult* rows, int column) {
  if (::PQgetisnull(rows, 0, column) != 0) return std::nullopt;
  return std::string_view(::PQgetvalue(rows, 0, column), static_cast<std::size_t>(::PQgetlength(rows, 0, column)));
}

template <typename Number>
std::optional<Number> number(std::optional<std::string_view> text) {
  Number value{};
  if (!text) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return value;
}

}  // namespace

boost::system::result<router::ProbeAnswer, std::string> read_probe(const PGresult* rows) {
  const auto wrong = [](const std::string& what) {
    return boost::system::result<router::ProbeAnswer, std::string>(boost::system::in_place_error,
                                                                   "unexpected answer to the probe: " + what);
  };
  if (::PQntuples(rows) != 1 || ::PQnfields(rows) != kProbeColumns) return wrong("not one row of nine columns");
  const auto in_recovery = cell(rows, 0);
  if (in_recovery != "t" && in_recovery != "f") return wrong("no role");
  router::ProbeAnswer answer;
  answer.in_recovery = in_recovery == "t";
  const auto timeline = number<std::uint32_t>(cell(rows, 1));
  if (!timeline || *timeline == 0) return wrong("no timeline");
  answer.timeline = *timeline;
  router::Lsn* const positions[] = {&answer.insert_lsn, &answer.receive_lsn, &answer.replay_lsn};
  for (int i = 0; i < 3; ++i) {
    const auto text = cell(rows, 2 + i);
    if (!text) continue;
    const auto lsn = router::parse_lsn(*text);
    if (!lsn) return wrong("not a position: " + core::quoted(*text));
    *positions[i] = *lsn;
  }
  if (!answer.in_recovery && answer.insert_lsn.value == 0) return wrong("a primary without a position");
  if (const auto age = number<std::int64_t>(cell(rows, 5))) answer.replay_age = std::chrono::milliseconds(*age);
  const auto page_size = number<std::uint64_t>(cell(rows, 7)), segment_size = number<std::uint64_t>(cell(rows, 8));
  answer.insert_lsn = router::end_of_record(answer.insert_lsn, page_size.value_or(0), segment_size.value_or(0));
  // bigint in PostgreSQL, and meant without a sign.
  if (const auto system = number<std::int64_t>(cell(rows, 6))) {
    answer.system_identifier = static_cast<std::uint64_t>(*system);
  }
  return answer;
}

HostProber::HostProber(boost::asio::io_context& context, core::HostPort host, core::MonitorLogin login, Timing timing,
                       NameLookup lookup, Callbacks callbacks)
    : host_(std::move(host)),
      login_(std::move(login)),
      timing_(timing),
      lookup_(std::move(lookup)),
      callbacks_(std::move(callbacks)),
      connection_(context),
      next_(context),
      deadline_(context),
      random_(std::random_device{}()),
      alive_(std::make_shared<char>()) {
  connection_.on_lost([this](const std::string&) { callbacks_.lost(); });
}

void HostProber::start() {
  schedule(steady_clock::now());
}

void HostProber::probe_now() {
  if (busy_) {
    again_ = true;
  } else {
    schedule(begun_ + kShortestPause);
  }
}

void HostProber::probe_within(pool::Duration delay) {
  const auto at = std::max(steady_clock::now() + delay, begun_ + kShortestPause);
  if (busy_) {
    wish_ = std::min(wish_, at);
  } else if (at < due_) {
    schedule(at);
  }
}

void HostProber::follow_within(pool::Duration delay) {
  following_ = true;
  probe_within(delay);
}

void HostProber::set_login(const core::MonitorLogin& login) {
  if (login == login_) return;
  login_ = login;
  connect_anew();
}

void HostProber::addresses_changed(const std::string& name, const std::vector<std::string>& addresses) {
  if (name != host_.host || address_.empty()) return;
  if (std::find(addresses.begin(), addresses.end(), address_) == addresses.end()) connect_anew();
}

void HostProber::connect_anew() {
  stale_ = busy_;
  if (!busy_) connection_.close();
  probe_now();
}

void HostProber::schedule(steady_clock::time_point at) {
  due_ = at;
  next_.expires_at(at);
  next_.async_wait([this, alive = std::weak_ptr<char>(alive_)](const boost::system::error_code& error) {
    if (error || alive.expired() || busy_ || steady_clock::now() < due_) return;
    begin();
  });
}

void HostProber::begin() {
  busy_ = true;
  again_ = false;
  wish_ = steady_clock::time_point::max();
  begun_ = steady_clock::now();
  sent_at_ = core::router_time(monotonic_now());
  round_ = std::make_shared<char>();
  deadline_.expires_after(timing_.timeout);
  deadline_.async_wait([this, round = std::weak_ptr<char>(round_)](const boost::system::error_code& error) {
    if (error || round.expired()) return;
    connection_.close();
    fail({{}, fmt::format("no answer within {}", core::format_duration(timing_.timeout))});
  });
  if (connection_.is_open()) return ask();
  if (host_.is_unix()) return connect({});
  if (is_numeric_address(host_.host)) return connect(host_.host);
  lookup_(host_.host, [this, round = std::weak_ptr<char>(round_)](const ResolvedName& name) {
    if (round.expired()) return;
    if (!name.address) return fail({{}, "DNS lookup failed: " + name.failure});
    connect(address_host(*name.address));
  });
}

void HostProber::connect(const std::string& address) {
  rights_known_ = false;
  address_ = address;
  connection_.open(host_, address, login_, [this](const LibpqFailure* failure) { connected(failure); });
}

void HostProber::connected(const LibpqFailure* failure) {
  if (failure != nullptr) return fail(*failure);
  ask();
}

void HostProber::ask() {
  sent_at_ = core::router_time(monotonic_now());
  connection_.ask(std::string(router::probe_query()),
                  [this](const LibpqResult& rows, const LibpqFailure* failure) { answered(rows.get(), failure); });
}

void HostProber::answered(const PGresult* rows, const LibpqFailure* failure) {
  if (failure != nullptr) return fail(*failure);
  const auto answer = read_probe(rows);
  if (!answer) return fail({{}, answer.error()});
  callbacks_.answered(*answer, sent_at_);
  if (answer->in_recovery && !rights_known_) return ask_for_rights();
  finish(jittered(timing_.interval));
}

// Within the same probe, so that its deadline holds.
void HostProber::ask_for_rights() {
  connection_.ask(kRightsQuery, [this](const LibpqResult& rows, const LibpqFailure* failure) {
    if (failure != nullptr && !connection_.is_open()) return fail(*failure);
    rights_known_ = true;
    if (failure == nullptr && ::PQntuples(rows.get()) == 1 && cell(rows.get(), 0) == "f") {
      callbacks_.lacks_monitor_role();
    }
    finish(jittered(timing_.interval));
  });
}

void HostProber::fail(const LibpqFailure& failure) {
  const bool not_let_in =
      failure.sqlstate.starts_with("28") || failure.sqlstate == "3D000" || failure.sqlstate == "42501";
  const pool::Duration interval = jittered(timing_.interval);
  finish(not_let_in ? std::max<pool::Duration>(interval, kLoginPause) : interval);
  const auto kind = failure.refused               ? router::ProbeFailure::Refused
                    : failure.sqlstate == "53300" ? router::ProbeFailure::Busy
                                                  : router::ProbeFailure::Timeout;
  callbacks_.failed(kind, explain(failure), sent_at_);
}

void HostProber::finish(pool::Duration pause) {
  if (std::exchange(stale_, false)) connection_.close();
  if (std::exchange(following_, false)) pause += timing_.interval / 2;
  busy_ = false;
  round_.reset();
  deadline_.cancel();
  schedule(std::min(wish_, begun_ + (std::exchange(again_, false) ? kShortestPause : pause)));
}

// So that hosts that began together do not go on together.
pool::Duration HostProber::jittered(pool::Duration interval) {
  return interval * std::uniform_int_distribution<int>(900, 1100)(random_) / 1000;
}

std::string HostProber::explain(const LibpqFailure& failure) const {
  std::string text = failure.text;
  if (!failure.sqlstate.empty()) text += fmt::format(" ({})", failure.sqlstate);
  if (failure.needs_password) {
    text += fmt::format("; no plain-text password of {} is known", login_.user);
  }
  if (failure.sqlstate == "42501") {
    text += fmt::format(
        "; user {} needs CONNECT on database {} and EXECUTE on pg_control_system() and "
        "pg_control_checkpoint()",
        login_.user, login_.dbname);
  }
  return text;
}

}  // namespace pgweir::io
