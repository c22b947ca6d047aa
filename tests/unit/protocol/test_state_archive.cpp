#include <catch2/catch.hpp>

#include "protocol/prepared_statements.hpp"
#include "protocol/reply_ledger.hpp"
#include "protocol/session_parameters.hpp"
#include "protocol/state_archive.hpp"

namespace pgweir::protocol {

namespace {

const HashKey kKey{1, 2};

struct Fields {
  bool yes = false;
  char letter = 0;
  std::uint64_t large = 0;
  std::int64_t negative = 0;
  ReplyKind kind = ReplyKind::Query;
  std::string text{};
  std::optional<std::string> there{}, missing{};
  std::chrono::steady_clock::time_point moment{};
  void transfer(StateArchive& archive) { archive(yes, letter, large, negative, kind, text, there, missing, moment); }
  friend bool operator==(const Fields&, const Fields&) = default;
};

Fields some_fields() {
  Fields fields{.yes = true, .letter = 'E', .large = ~std::uint64_t{0}, .negative = -5, .kind = ReplyKind::Mistake};
  fields.text = std::string("a\0b", 3);
  fields.there = "";
  fields.moment += std::chrono::microseconds(123456789);
  return fields;
}

}  // namespace

TEST_CASE("what was written is read again", "[archive]") {
  StateArchive out;
  Fields before = some_fields(), after;
  after.missing = "to be cleared";
  before.transfer(out);
  const std::string bytes = out.take();
  StateArchive in(bytes);
  after.transfer(in);
  CHECK(in.complete());
  CHECK(after == before);
}

TEST_CASE("bytes that are cut short are noticed wherever the cut is", "[archive]") {
  StateArchive out;
  some_fields().transfer(out);
  const std::string bytes = out.take();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    StateArchive in(ByteView(bytes).substr(0, size));
    Fields fields;
    fields.transfer(in);
    CHECK_FALSE(in.complete());
  }
  StateArchive longer{ByteView(bytes)};
  CHECK_FALSE(longer.complete());
}

TEST_CASE("a count never exceeds the bytes that are left", "[archive]") {
  StateArchive out;
  (void)out.count(1'000'000'000);
  const std::string bytes = out.take();
  StateArchive in(bytes);
  CHECK(in.count(0) == 0);
  CHECK(in.failed());
}

TEST_CASE("statements keep their server-side names in another table", "[archive]") {
  StatementTable before(kKey), after(kKey);
  ClientStatements client, taken;
  StatementPtr outdated = before.intern("SELECT 1", "");
  before.outdate(*outdated, std::chrono::seconds(1));
  const StatementPtr fresh = before.intern("SELECT 1", "");
  REQUIRE(fresh->key() != outdated->key());
  client.confirm("a", client.add("a", outdated));
  client.add("b", fresh);
  fresh->told_types = "types";
  fresh->result = {6, 7};
  client.find("b")->shape = 5;
  StateArchive out;
  client.transfer(out, before);
  const std::string bytes = out.take();
  StateArchive in(bytes);
  taken.transfer(in, after);
  REQUIRE(in.complete());
  REQUIRE(taken.size() == 2);
  CHECK(taken.find("a")->statement->server_name() == outdated->server_name());
  CHECK(taken.find("a")->confirmed);
  CHECK(taken.find("b")->statement->server_name() == fresh->server_name());
  CHECK_FALSE(taken.find("b")->confirmed);
  CHECK(taken.find("a")->shape == 0);
  CHECK(taken.find("b")->shape == 5);
  CHECK(taken.find("b")->statement->told_types == "types");
  CHECK(taken.find("b")->statement->result.schema == 0);  // which is for the other process to find out
  CHECK(taken.find("b")->serial == client.find("b")->serial);
  CHECK(taken.add("c", after.intern("SELECT 2", "")) == client.add("c", before.intern("SELECT 2", "")));
  CHECK(after.size() == 3);
}

TEST_CASE("what one worker was told of a statement, another one of the process before need not know", "[archive]") {
  StatementTable one(kKey), other(kKey), after(kKey);
  StatementPtr unknown = one.intern("SELECT 1", "");
  StatementPtr known = other.intern("SELECT 1", "");
  known->told_types = "types";
  StateArchive out;
  one.transfer(out, unknown);
  other.transfer(out, known);
  const std::string bytes = out.take();
  StateArchive in(bytes);
  StatementPtr first, second;
  after.transfer(in, first);
  after.transfer(in, second);
  REQUIRE(in.complete());
  CHECK(first == second);
  CHECK(first->told_types == "types");
}

TEST_CASE("a ledger goes on with what it owes", "[archive]") {
  StatementTable before(kKey), after(kKey);
  ReplyLedger ledger, taken;
  for (int i = 0; i < 5; ++i) {  // so that the ring has wrapped
    ledger.push(ReplyKind::Query);
    ledger.drop_front();
  }
  for (int i = 0; i < 6; ++i) ledger.push(ReplyKind::Query);
  ReplyEntry entry;
  entry.kind = ReplyKind::Parse;
  entry.change = std::make_unique<StatementChange>();
  entry.change->client_name = "mine";
  entry.change->removed = {before.intern("SELECT 3", ""), 7, true};
  entry.statement = before.intern("SELECT 4", "types");
  ledger.push(std::move(entry), {});
  StateArchive out;
  ledger.transfer(out, before);
  const std::string bytes = out.take();
  StateArchive in(bytes);
  taken.transfer(in, after);
  REQUIRE(in.complete());
  REQUIRE(taken.size() == 7);
  CHECK(taken.unsynced());
  for (int i = 0; i < 6; ++i) CHECK(taken.pop().kind == ReplyKind::Query);
  const ReplyEntry last = taken.pop();
  CHECK(last.kind == ReplyKind::Parse);
  CHECK(last.change->client_name == "mine");
  CHECK(last.change->removed.statement->query() == "SELECT 3");
  CHECK(last.statement->parameter_types() == "types");
  taken.push(ReplyKind::Sync);
  CHECK_FALSE(taken.idle());
  taken.drop_front();
  CHECK(taken.idle());
}

TEST_CASE("servers' statements keep their order of use", "[archive]") {
  ServerStatements before, after;
  for (std::uint64_t i = 1; i <= 3; ++i) before.add({i, i}, i + 1, {});
  CHECK(before.touch({1, 1}));
  StateArchive out;
  before.transfer(out);
  const std::string bytes = out.take();
  StateArchive in(bytes);
  after.transfer(in);
  REQUIRE(in.complete());
  REQUIRE(after.touch({1, 1}) != nullptr);
  CHECK(*after.touch({1, 1}) == 2);
  CHECK(after.evict_over(2) == Hash128{2, 2});
  CHECK(after.evict_over(1) == Hash128{3, 3});
}

TEST_CASE("parameters find their place by name", "[archive]") {
  const TrackedNames before({"IntervalStyle", "search_path"}), after({"search_path"});
  auto set = std::make_shared<ParameterSet>();
  set->values.resize(before.size());
  set->values[TrackedNames::kTimeZone] = "UTC";
  set->values[*before.find("search_path")] = "app";
  set->values[*before.find("IntervalStyle")] = "iso_8601";
  ParameterSetPtr first = set, second;
  StateArchive out;
  transfer(out, first, before);
  const std::string bytes = out.take();
  StateArchive in(bytes);
  transfer(in, second, after);
  REQUIRE(in.complete());
  REQUIRE(second->values.size() == after.size());
  CHECK(second->values[TrackedNames::kTimeZone] == "UTC");
  CHECK(second->values[*after.find("search_path")] == "app");
}

}  // namespace pgweir::protocol
