// The ledger against what PostgreSQL does: skipping to Sync, COPY, undoing, growth, and when a server is free.
#include "protocol/reply_ledger.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace pgweir::protocol;

namespace {

using Kind = ReplyKind;

class Bench {
 public:
  ReplyLedger ledger;
  std::vector<std::uint32_t> skipped;

  Bench& push(Kind kind, std::uint32_t serial = 0) {
    if (serial == 0) {
      ledger.push(kind);
      return *this;
    }
    ReplyEntry entry;
    entry.kind = kind;
    entry.unnamed_serial = serial;
    ledger.push(std::move(entry), note());
    return *this;
  }
  void fail() { ledger.fail(note()); }
  [[nodiscard]] std::vector<Kind> kinds() const {
    std::vector<Kind> all;
    ledger.for_each([&](const ReplyEntry& entry) { all.push_back(entry.kind); });
    return all;
  }

 private:
  ReplyLedger::Skipped note() {
    return [this](ReplyEntry& entry) { skipped.push_back(entry.unnamed_serial); };
  }
};

using Kinds = std::vector<Kind>;
using Serials = std::vector<std::uint32_t>;

}  // namespace

TEST_CASE("a simple query is owed until ReadyForQuery", "[ledger]") {
  Bench b;
  CHECK(b.ledger.idle());
  b.push(Kind::Query);
  CHECK_FALSE(b.ledger.idle());
  CHECK_FALSE(b.ledger.unsynced());
  b.ledger.drop_front();
  CHECK(b.ledger.idle());
}

TEST_CASE("extended messages are not over before their Sync", "[ledger]") {
  for (const Kind kind : {Kind::Parse, Kind::Bind, Kind::Describe, Kind::Execute, Kind::Close, Kind::LocalParse,
                          Kind::LocalClose, Kind::HiddenParse, Kind::HiddenClose}) {
    Bench b;
    b.push(kind);
    b.ledger.drop_front();
    CHECK(b.ledger.empty());
    CHECK(b.ledger.unsynced());
    CHECK_FALSE(b.ledger.idle());
    b.push(Kind::Sync);
    b.ledger.drop_front();
    CHECK(b.ledger.idle());
  }
}

TEST_CASE("a simple query or a function call ends an unsynced sequence too", "[ledger]") {
  for (const Kind kind : {Kind::Query, Kind::FunctionCall, Kind::HiddenQuery}) {
    Bench b;
    b.push(Kind::Parse).push(kind);
    CHECK_FALSE(b.ledger.unsynced());
    b.ledger.drop_front();
    b.ledger.drop_front();
    CHECK(b.ledger.idle());
  }
}

TEST_CASE("an error skips the rest of the pipeline up to Sync, newest undone first", "[ledger]") {
  Bench b;
  b.push(Kind::Parse, 1).push(Kind::Bind, 2).push(Kind::Execute, 3).push(Kind::Sync, 4).push(Kind::Parse, 5);
  b.fail();
  CHECK(b.skipped == Serials{3, 2, 1});
  CHECK(b.kinds() == Kinds{Kind::Sync, Kind::Parse});
  CHECK_FALSE(b.ledger.skipping());
  b.ledger.drop_front();
  CHECK_FALSE(b.ledger.idle());
}

TEST_CASE("a simple query in the pipeline is skipped as well", "[ledger]") {
  Bench b;
  b.push(Kind::Bind, 1).push(Kind::Query, 2).push(Kind::FunctionCall, 3).push(Kind::Sync, 4);
  b.fail();
  CHECK(b.skipped == Serials{3, 2, 1});
  CHECK(b.kinds() == Kinds{Kind::Sync});
}

TEST_CASE("after an error what comes before the Sync is skipped when it is sent", "[ledger]") {
  Bench b;
  b.push(Kind::Parse, 1);
  b.fail();
  CHECK(b.ledger.skipping());
  CHECK(b.ledger.empty());
  CHECK_FALSE(b.ledger.idle());
  b.push(Kind::Query, 2).push(Kind::Bind, 3).push(Kind::LocalClose, 4).push(Kind::CopyEnd);
  b.push(Kind::Query);
  CHECK(b.skipped == Serials{1, 2, 3, 4});
  CHECK(b.ledger.empty());
  b.push(Kind::Sync);
  CHECK_FALSE(b.ledger.skipping());
  CHECK(b.kinds() == Kinds{Kind::Sync});
  CHECK_FALSE(b.ledger.idle());
  b.ledger.drop_front();
  CHECK(b.ledger.idle());
}

TEST_CASE("errors of simple queries, function calls and Sync skip nothing", "[ledger]") {
  for (const Kind kind : {Kind::Query, Kind::FunctionCall, Kind::Sync, Kind::HiddenQuery, Kind::HiddenSync}) {
    Bench b;
    b.push(kind).push(Kind::Parse, 1).push(Kind::Sync);
    b.fail();
    CHECK(b.skipped.empty());
    CHECK(b.kinds() == Kinds{kind, Kind::Parse, Kind::Sync});
    CHECK_FALSE(b.ledger.skipping());
  }
}

TEST_CASE("a hidden Sync ends the skipping", "[ledger]") {
  Bench b;
  b.push(Kind::HiddenParse, 1).push(Kind::HiddenSync).push(Kind::Query);
  b.fail();
  CHECK(b.skipped == Serials{1});
  CHECK(b.kinds() == Kinds{Kind::HiddenSync, Kind::Query});
}

TEST_CASE("an error with nothing owed changes nothing", "[ledger]") {
  Bench b;
  b.fail();
  CHECK(b.ledger.idle());
}

TEST_CASE("Sync is ignored while a COPY by simple query reads data", "[ledger]") {
  Bench b;
  b.push(Kind::Query);
  (void)b.ledger.begin_copy_in();
  CHECK(b.ledger.copying_in());
  b.push(Kind::Sync).push(Kind::Sync);
  CHECK(b.kinds() == Kinds{Kind::Query});
  b.push(Kind::CopyEnd);
  CHECK_FALSE(b.ledger.copying_in());
  CHECK(b.kinds() == Kinds{Kind::Query});
  b.push(Kind::Sync);  // behind the data it counts
  CHECK(b.kinds() == Kinds{Kind::Query, Kind::Sync});
  b.ledger.drop_front();
  b.ledger.drop_front();
  CHECK(b.ledger.idle());
}

TEST_CASE("the Sync sent along with the Execute of a COPY is read as part of the data", "[ledger]") {
  Bench b;
  b.push(Kind::Parse).push(Kind::Bind).push(Kind::Execute).push(Kind::Sync);
  b.ledger.drop_front();
  b.ledger.drop_front();
  (void)b.ledger.begin_copy_in();
  CHECK(b.kinds() == Kinds{Kind::Execute});
  CHECK(b.ledger.unsynced());
  b.push(Kind::CopyEnd);
  b.ledger.drop_front();  // CommandComplete
  CHECK(b.ledger.empty());
  CHECK_FALSE(b.ledger.idle());
  b.push(Kind::Sync);
  b.ledger.drop_front();
  CHECK(b.ledger.idle());
}

TEST_CASE("a whole COPY sent ahead of the server's answer", "[ledger]") {
  Bench b;
  b.push(Kind::Query).push(Kind::CopyEnd).push(Kind::Query);
  CHECK(b.kinds() == Kinds{Kind::Query, Kind::CopyEnd, Kind::Query});
  (void)b.ledger.begin_copy_in();
  CHECK_FALSE(b.ledger.copying_in());
  CHECK(b.kinds() == Kinds{Kind::Query, Kind::Query});

  Bench e;
  e.push(Kind::Execute).push(Kind::Sync).push(Kind::CopyEnd).push(Kind::Sync);
  e.ledger.begin_copy_in();
  CHECK_FALSE(e.ledger.copying_in());
  CHECK(e.kinds() == Kinds{Kind::Execute, Kind::Sync});
  CHECK_FALSE(e.ledger.unsynced());
}

TEST_CASE("whether a Sync is owed does not depend on a stray CopyDone behind the COPY", "[ledger]") {
  Bench query;
  query.push(Kind::Query).push(Kind::Sync).push(Kind::CopyEnd).push(Kind::CopyEnd);
  query.ledger.begin_copy_in();
  CHECK_FALSE(query.ledger.unsynced());

  Bench execute;
  execute.push(Kind::Execute).push(Kind::Sync).push(Kind::CopyEnd).push(Kind::CopyEnd);
  execute.ledger.begin_copy_in();
  CHECK(execute.kinds() == Kinds{Kind::Execute, Kind::CopyEnd});
  CHECK(execute.ledger.unsynced());
}

TEST_CASE("a stray CopyDone has no effect but its place", "[ledger]") {
  Bench b;
  b.push(Kind::CopyEnd);
  CHECK_FALSE(b.ledger.unsynced());
  b.ledger.drop_front();
  CHECK(b.ledger.idle());
  b.push(Kind::Parse).push(Kind::CopyEnd);
  CHECK(b.ledger.unsynced());
}

TEST_CASE("two COPYs in one query take one CopyDone each", "[ledger]") {
  Bench b;
  b.push(Kind::Query).push(Kind::CopyEnd).push(Kind::CopyEnd);
  (void)b.ledger.begin_copy_in();
  CHECK(b.kinds() == Kinds{Kind::Query, Kind::CopyEnd});
  CHECK_FALSE(b.ledger.copying_in());
  (void)b.ledger.begin_copy_in();
  CHECK(b.kinds() == Kinds{Kind::Query});
  CHECK_FALSE(b.ledger.copying_in());
}

TEST_CASE("a COPY by simple query that fails is over at once", "[ledger]") {
  Bench b;
  b.push(Kind::Query);
  (void)b.ledger.begin_copy_in();
  b.fail();
  CHECK_FALSE(b.ledger.copying_in());
  CHECK(b.kinds() == Kinds{Kind::Query});
  b.push(Kind::CopyEnd).push(Kind::Query);  // too late, and dropped by the server
  CHECK(b.kinds() == Kinds{Kind::Query, Kind::CopyEnd, Kind::Query});
}

TEST_CASE("a COPY by Execute that fails skips to the next Sync", "[ledger]") {
  Bench b;
  b.push(Kind::Execute, 1);
  (void)b.ledger.begin_copy_in();
  b.fail();
  CHECK(b.skipped == Serials{1});
  CHECK(b.ledger.skipping());
  b.push(Kind::CopyEnd).push(Kind::Sync);
  CHECK(b.kinds() == Kinds{Kind::Sync});
  CHECK_FALSE(b.ledger.uncertain());
}

// The error and a Sync may cross: did the server read it in copy mode (ignored) or after the error (answered)?
TEST_CASE("a Sync ignored in a COPY that fails leaves the count of answers uncertain", "[ledger]") {
  Bench query;
  query.push(Kind::Query);
  query.ledger.begin_copy_in();
  query.push(Kind::Sync);
  CHECK_FALSE(query.ledger.uncertain());
  query.fail();
  CHECK(query.ledger.uncertain());

  Bench execute;
  execute.push(Kind::Execute).push(Kind::Sync);
  execute.ledger.begin_copy_in();
  execute.fail();
  CHECK(execute.ledger.uncertain());

  Bench ended;  // the end of the data was sent, but the server may have failed before
  ended.push(Kind::Execute);
  ended.ledger.begin_copy_in();
  ended.push(Kind::Sync).push(Kind::CopyEnd).push(Kind::Sync);
  ended.fail();
  CHECK(ended.ledger.uncertain());
  ended.ledger.clear();
  CHECK_FALSE(ended.ledger.uncertain());
}

TEST_CASE("a COPY that went well leaves nothing uncertain", "[ledger]") {
  Bench b;
  b.push(Kind::Execute).push(Kind::Sync);
  (void)b.ledger.begin_copy_in();
  b.push(Kind::CopyEnd).push(Kind::Sync);
  b.ledger.drop_front();
  b.fail();  // of the Sync: a deferred constraint
  CHECK_FALSE(b.ledger.uncertain());

  Bench q;
  q.push(Kind::Query);
  q.ledger.begin_copy_in();
  q.push(Kind::Sync).push(Kind::CopyEnd).push(Kind::Query);
  (void)q.ledger.pop();
  q.fail();
  CHECK_FALSE(q.ledger.uncertain());
}

TEST_CASE("the ring grows and wraps around in order", "[ledger]") {
  Bench b;
  std::uint32_t in = 0;
  std::uint32_t out = 0;
  for (int round = 0; round < 300; ++round) {
    for (int i = 0; i < 5; ++i) b.push(Kind::Parse, ++in);
    for (int i = 0; i < (round % 2 == 0 ? 3 : 5); ++i) {
      REQUIRE(b.ledger.front().unnamed_serial == ++out);
      if (i % 2 == 0) {
        b.ledger.drop_front();
      } else {
        REQUIRE(b.ledger.pop().unnamed_serial == out);
      }
    }
  }
  REQUIRE(b.ledger.size() == in - out);
  b.ledger.for_each([&](const ReplyEntry& entry) { CHECK(entry.unnamed_serial == ++out); });
}

TEST_CASE("a reused place has nothing of its former entry", "[ledger]") {
  Bench b;
  for (int i = 0; i < 40; ++i) {
    ReplyEntry entry;
    entry.kind = Kind::HiddenParse;
    entry.unnamed_serial = 7;
    entry.quiet = true;
    entry.change = std::make_unique<StatementChange>();
    b.ledger.push(std::move(entry), {});
    b.ledger.drop_front();
  }
  for (int i = 0; i < 20; ++i) b.push(Kind::Query);
  b.ledger.for_each([](const ReplyEntry& entry) {
    CHECK(entry.unnamed_serial == 0);
    CHECK_FALSE(entry.quiet);
    CHECK(entry.change == nullptr);
    CHECK(entry.statement == nullptr);
  });
}

TEST_CASE("the ledger says when it is full", "[ledger]") {
  Bench b;
  for (std::size_t i = 0; i < ReplyLedger::kEntriesMax; ++i) {
    CHECK_FALSE(b.ledger.full());
    b.push(Kind::Parse);
  }
  CHECK(b.ledger.full());
  b.ledger.drop_front();
  CHECK_FALSE(b.ledger.full());
  b.ledger.clear();
  CHECK(b.ledger.idle());
}

TEST_CASE("an entry that may be skipped is not pushed in the short way", "[ledger]") {
  const auto entry_of = [](Kind kind, std::uint32_t serial) {
    ReplyEntry entry;
    entry.kind = kind;
    entry.unnamed_serial = serial;
    return entry;
  };
  Bench b;
  ReplyEntry parse = entry_of(Kind::Parse, 7);
  REQUIRE(b.ledger.try_push(parse));
  CHECK(b.ledger.front().unnamed_serial == 7);
  CHECK(b.ledger.unsynced());
  b.fail();
  CHECK(b.ledger.skipping());
  ReplyEntry skipped = entry_of(Kind::Bind, 8);
  CHECK_FALSE(b.ledger.try_push(skipped));
  CHECK(skipped.unnamed_serial == 8);
  CHECK(b.ledger.empty());
  b.push(Kind::Sync);
  b.ledger.drop_front();
  b.push(Kind::Query);
  (void)b.ledger.begin_copy_in();
  ReplyEntry end = entry_of(Kind::CopyEnd, 0);
  CHECK_FALSE(b.ledger.try_push(end));
  CHECK(b.ledger.copying_in());
}

TEST_CASE("the memory of a long pipeline is given back when nothing is owed", "[ledger]") {
  Bench b;
  for (std::size_t round = 0; round < 3; ++round) {
    for (std::uint32_t i = 1; i <= 1000; ++i) b.push(Kind::Parse, i);
    b.push(Kind::Sync);
    b.ledger.trim();  // too early: nothing happens
    for (std::uint32_t i = 1; i <= 1000; ++i) {
      REQUIRE(b.ledger.front().unnamed_serial == i);
      b.ledger.drop_front();
    }
    b.ledger.drop_front();
    b.ledger.trim();
    CHECK(b.ledger.idle());
    b.push(Kind::Query);
    CHECK(b.kinds() == Kinds{Kind::Query});
    b.ledger.drop_front();
  }
}
