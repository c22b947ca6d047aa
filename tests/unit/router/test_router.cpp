#include <catch2/catch.hpp>

#include <random>

#include "router/router.hpp"

using namespace pgweir::router;

namespace {

constexpr HostId kA{0};
constexpr HostId kB{1};
constexpr HostId kC{2};

Verdict of(StatementClass cls) {
  return {cls, ClassReason::Select, TransactionKind::None, AccessMode::Default};
}
const Verdict kRead = of(StatementClass::Read);
const Verdict kWrite = of(StatementClass::Write);
const Verdict kBegin{StatementClass::TransactionControl, ClassReason::Transaction, TransactionKind::Begin,
                     AccessMode::Default};
const Verdict kBeginReadOnly{StatementClass::TransactionControl, ClassReason::Transaction, TransactionKind::Begin,
                             AccessMode::ReadOnly};

TimePoint at(int seconds) {
  return TimePoint{} + std::chrono::seconds(seconds);
}

/// A primary and two standbys that are good up to second 100.
struct Rig {
  Rig() {
    table.hosts.resize(3);
    table.hosts[0].role = HostRole::Primary;
    table.hosts[0].health = HostHealth::Up;
    table.primary = kA;
    for (const std::size_t i : {1U, 2U}) {
      table.hosts[i].role = HostRole::Standby;
      table.hosts[i].health = HostHealth::Up;
      table.hosts[i].refusal = ReadRefusal::None;
      table.hosts[i].caught_up_to = at(100);
    }
    policy.read_write_split = true;
  }
  RouteDecision route(const Verdict& verdict, RouteWish hint = RouteWish::Auto) {
    return decide({verdict, hint}, session, table, policy, database, outstanding, random++);
  }
  std::string where(const Verdict& verdict, RouteWish hint = RouteWish::Auto) {
    const RouteDecision decision = route(verdict, hint);
    const std::string reason(reason_name(decision.reason));
    if (decision.kind == RouteKind::Anywhere) return "anywhere " + reason;
    if (decision.kind == RouteKind::Wait) return "wait " + reason;
    return (decision.role == HostRole::Primary ? "primary " : "standby ") + reason;
  }
  HostTable table;
  RoutePolicy policy;
  SessionRoute session;
  WriteToken database;
  std::vector<std::uint32_t> outstanding;
  std::uint64_t random = 0;
};

}  // namespace

TEST_CASE("reads go to standbys, all else to the primary") {
  Rig rig;
  CHECK(rig.where(kRead) == "standby read");
  CHECK(rig.where(kBeginReadOnly) == "standby read");
  CHECK(rig.where(kWrite) == "primary statement");
  CHECK(rig.where(kBegin) == "primary statement");
  CHECK(rig.where(of(StatementClass::Unknown)) == "primary statement");
  CHECK(rig.where(of(StatementClass::SessionState)) == "primary statement");
  CHECK(rig.where({StatementClass::TransactionControl, ClassReason::Transaction, TransactionKind::SetTransaction,
                   AccessMode::ReadOnly}) == "primary statement");
}

TEST_CASE("without a standby that takes reads the primary does, and without either the client waits") {
  Rig rig;
  rig.table.hosts[1].refusal = ReadRefusal::LagBytes;
  rig.table.hosts[2].refusal = ReadRefusal::NotUp;
  CHECK(rig.where(kRead) == "primary no_standby");
  rig.table.primary.reset();
  CHECK(rig.where(kRead) == "wait no_standby");
  CHECK(rig.where(kWrite) == "wait statement");
  rig.table.hosts[1].refusal = ReadRefusal::None;
  CHECK(rig.where(kRead) == "standby read");
}

TEST_CASE("hints and the session's wish override") {
  Rig rig;
  CHECK(rig.where(kRead, RouteWish::Primary) == "primary hint_primary");
  CHECK(rig.where(kWrite, RouteWish::Standby) == "standby hint_standby");
  rig.session.wish = RouteWish::Primary;
  CHECK(rig.where(kRead) == "primary hint_primary");
  CHECK(rig.where(kRead, RouteWish::Standby) == "standby hint_standby");
  rig.session.wish = RouteWish::Standby;
  rig.session.own_writes.write_acknowledged(at(500));
  CHECK(rig.where(kRead) == "standby hint_standby");
  rig.table.hosts[1].refusal = rig.table.hosts[2].refusal = ReadRefusal::LagTime;
  CHECK(rig.where(kRead) == "primary no_standby");
}

TEST_CASE("what binds a session to the primary") {
  Rig rig;
  rig.session.serializable = true;
  CHECK(rig.where(kRead) == "primary serializable");
  rig.session.serializable = false;
  rig.policy.serializable = true;
  CHECK(rig.where(kRead) == "primary serializable");
  CHECK(rig.where(kBeginReadOnly) == "primary serializable");
  CHECK(rig.where(kRead, RouteWish::Standby) == "primary serializable");
  rig.policy.serializable = false;
  rig.session.bound_to_primary = true;
  CHECK(rig.where(kRead) == "primary session_state");
  CHECK(rig.where(kRead, RouteWish::Standby) == "primary session_state");
}

TEST_CASE("who has written reads on the primary until a standby shows it") {
  Rig rig;
  rig.session.own_writes.write_acknowledged(at(100));
  CHECK(rig.where(kRead) == "primary read_your_writes");
  rig.table.hosts[2].caught_up_to = at(101);
  for (int i = 0; i < 20; ++i) CHECK(rig.route(kRead).host == kC);
  rig.table.primary.reset();
  rig.session.own_writes.write_acknowledged(at(200));
  CHECK(rig.where(kRead) == "wait read_your_writes");
  rig.policy.read_your_writes = ReadYourWrites::Off;
  CHECK(rig.where(kRead) == "standby read");
}

TEST_CASE("the writes of others count for the whole database only if asked for") {
  Rig rig;
  rig.database.write_acknowledged(at(150));
  CHECK(rig.where(kRead) == "standby read");
  rig.policy.read_your_writes = ReadYourWrites::Database;
  CHECK(rig.where(kRead) == "primary read_your_writes");
  rig.policy.read_your_writes = ReadYourWrites::Off;
  CHECK(rig.where(kRead) == "standby read");
}

TEST_CASE("target_session_attrs") {
  Rig rig;
  rig.policy.read_write_split = false;
  CHECK(rig.where(kRead) == "anywhere no_routing");
  const auto with = [&](const char* word) {
    rig.policy.attrs = *parse_target_session_attrs(word);
    CHECK(to_string(rig.policy.attrs) == word);
    return rig.where(kWrite);
  };
  CHECK(with("any") == "anywhere no_routing");
  CHECK(with("read-write") == "primary target_primary");
  CHECK(with("primary") == "primary target_primary");
  CHECK(with("read-only") == "standby target_standby");
  CHECK(with("standby") == "standby target_standby");
  CHECK(with("prefer-standby") == "standby target_standby");
  rig.table.hosts[1].refusal = rig.table.hosts[2].refusal = ReadRefusal::LagBytes;
  CHECK(with("standby") == "wait target_standby");
  CHECK(with("read-only") == "wait target_standby");
  CHECK(with("prefer-standby") == "primary no_standby");
  rig.table.primary.reset();
  CHECK(with("primary") == "wait target_primary");
  CHECK(with("prefer-standby") == "wait no_standby");
  CHECK_FALSE(parse_target_session_attrs("Primary"));
  CHECK_FALSE(parse_target_session_attrs("master"));
  CHECK_FALSE(parse_target_session_attrs(""));
}

TEST_CASE("the less busy of two standbys is taken") {
  Rig rig;
  rig.outstanding = {0, 5, 4};
  for (int i = 0; i < 50; ++i) REQUIRE(rig.route(kRead).host == kC);
  rig.outstanding = {0, 3};
  for (int i = 0; i < 50; ++i) REQUIRE(rig.route(kRead).host == kC);
  rig.outstanding.clear();
  int to_b = 0;
  for (int i = 0; i < 1000; ++i) to_b += rig.route(kRead).host == kB ? 1 : 0;
  CHECK(to_b > 400);
  CHECK(to_b < 600);
}

TEST_CASE("two of many are picked evenly, and never twice the same") {
  Rig rig;
  rig.table.hosts.resize(8);
  for (std::size_t i = 1; i < 8; ++i) rig.table.hosts[i] = rig.table.hosts[1];
  rig.outstanding.assign(8, 0);
  rig.outstanding[3] = 9;  // the busiest: taken only if it were picked twice
  std::mt19937_64 random(1);
  std::array<int, 8> taken{};
  for (int i = 0; i < 6000; ++i) {
    rig.random = random();
    ++taken[static_cast<std::size_t>(rig.route(kRead).host)];
  }
  CHECK(taken[0] == 0);
  CHECK(taken[3] == 0);
  for (const std::size_t i : {1U, 2U, 4U, 5U, 6U, 7U}) {
    CHECK(taken[i] > 800);
    CHECK(taken[i] < 1200);
  }
}

TEST_CASE("only a proven read is ever run again") {
  RoutePolicy policy;
  FailedStatement read;
  read.role = HostRole::Standby;
  read.verdict = kRead;
  read.first_of_transaction = true;
  const auto retry = [&](FailureKind failure, auto&&... change) {
    FailedStatement one = read;
    one.failure = failure;
    (change(one), ...);
    return may_retry(one, policy);
  };
  const auto on_primary = [](FailedStatement& one) { one.role = HostRole::Primary; };
  CHECK(retry(FailureKind::ReadOnlyTransaction) == Retry::OnPrimaryAndLearn);
  CHECK(retry(FailureKind::RecoveryConflict) == Retry::OnPrimary);
  CHECK(retry(FailureKind::ConnectionLost) == Retry::Elsewhere);
  CHECK(retry(FailureKind::Serializable) == Retry::OnPrimary);
  CHECK(retry(FailureKind::Serializable, on_primary) == Retry::No);
  CHECK(retry(FailureKind::Other) == Retry::No);
  CHECK(retry(FailureKind::ReadOnlyTransaction, on_primary) == Retry::No);
  CHECK(retry(FailureKind::ConnectionLost, on_primary) == Retry::Elsewhere);
  for (const FailureKind failure :
       {FailureKind::ReadOnlyTransaction, FailureKind::RecoveryConflict, FailureKind::ConnectionLost}) {
    CHECK(retry(failure, [](auto& one) { one.reply_delivered = true; }) == Retry::No);
    CHECK(retry(failure, [](auto& one) { one.first_of_transaction = false; }) == Retry::No);
    CHECK(retry(failure, [](auto& one) { one.more_was_sent = true; }) == Retry::No);
    for (const Verdict& verdict : {kWrite, kBegin, kBeginReadOnly, of(StatementClass::Unknown)}) {
      CHECK(retry(failure, [&](auto& one) { one.verdict = verdict; }) == Retry::No);
    }
  }
  // What is lost again and again stops; a standby's refusal is a mistake of ours and comes only once.
  const auto third = [](FailedStatement& one) { one.attempts = 3; };
  CHECK(retry(FailureKind::RecoveryConflict, third) == Retry::No);
  CHECK(retry(FailureKind::ConnectionLost, third) == Retry::No);
  CHECK(retry(FailureKind::ReadOnlyTransaction, third) == Retry::OnPrimaryAndLearn);
  policy.retry_reads = false;
  CHECK(retry(FailureKind::ReadOnlyTransaction) == Retry::OnPrimaryAndLearn);
  CHECK(retry(FailureKind::RecoveryConflict) == Retry::No);
  CHECK(retry(FailureKind::ConnectionLost) == Retry::No);
}

TEST_CASE("failures by code and text") {
  CHECK(classify_failure("25006", "cannot execute INSERT in a read-only transaction", "") ==
        FailureKind::ReadOnlyTransaction);
  CHECK(classify_failure("40001", "canceling statement due to conflict with recovery", "") ==
        FailureKind::RecoveryConflict);
  CHECK(classify_failure("40001", "could not serialize access due to concurrent update", "") == FailureKind::Other);
  CHECK(classify_failure("0A000", "translated", "GetSerializableTransactionSnapshot") == FailureKind::Serializable);
  CHECK(classify_failure("0A000", "cannot use serializable mode in a hot standby", "") == FailureKind::Serializable);
  CHECK(classify_failure("0A000", "cached plan must not change result type", "RevalidateCachedQuery") ==
        FailureKind::Other);
  CHECK(classify_failure("57P01", "", "") == FailureKind::RecoveryConflict);
  CHECK(classify_failure("57P02", "", "") == FailureKind::RecoveryConflict);
  CHECK(classify_failure("57P03", "", "") == FailureKind::RecoveryConflict);
  CHECK(classify_failure("57014", "", "") == FailureKind::Other);
  CHECK(classify_failure("", "", "") == FailureKind::Other);
}
