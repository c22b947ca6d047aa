// Statement table, names of one client, and the statements of one server.
#include "protocol/prepared_statements.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "protocol/message_builder.hpp"

using namespace pgweir::protocol;
using namespace std::chrono_literals;
using namespace std::string_literals;

namespace {
constexpr HashKey kKey{1, 2};
const std::string kNoTypes = "\0\0"s;
const std::string kOneInt = "\0\1\0\0\0\x17"s;

Hash128 number(std::uint64_t n) {
  return {n, n * 7};
}
}  // namespace

TEST_CASE("equal statements share one object and one name", "[statements]") {
  StatementTable table(kKey);
  const StatementPtr a = table.intern("select 1", kNoTypes);
  const StatementPtr b = table.intern("select 1", kNoTypes);
  CHECK(a == b);
  CHECK(a->query() == "select 1");
  CHECK(a->parameter_types() == kNoTypes);
  CHECK(table.size() == 1);
  CHECK(table.intern("select 1", kOneInt)->key() != a->key());
  CHECK(table.intern("select 2", kNoTypes)->key() != a->key());
}

TEST_CASE("text and types do not run into one another", "[statements]") {
  StatementTable table(kKey);
  const StatementPtr a = table.intern("ab", "c");
  const StatementPtr b = table.intern("a", "bc");
  CHECK(a->key() != b->key());
}

TEST_CASE("the server-side name is the key in hexadecimal", "[statements]") {
  CHECK(statement_server_name({0x0123456789abcdefULL, 0xfedcba9876543210ULL}) ==
        "PGWEIR_fedcba98765432100123456789abcdef");
  StatementTable table(kKey);
  const StatementPtr a = table.intern("select 1", kNoTypes);
  CHECK(a->server_name() == statement_server_name(a->key()));
}

TEST_CASE("workers with the same key name a statement alike", "[statements]") {
  StatementTable one(kKey), two(kKey), stranger({9, 9});
  CHECK(one.intern("q", kNoTypes)->key() == two.intern("q", kNoTypes)->key());
  CHECK(one.intern("q", kNoTypes)->key() != stranger.intern("q", kNoTypes)->key());
}

TEST_CASE("a statement is forgotten with its last owner", "[statements]") {
  StatementTable table(kKey);
  StatementPtr a = table.intern("select 1", kNoTypes);
  StatementPtr b = a;
  a.reset();
  CHECK(table.size() == 1);
  b.reset();
  CHECK(table.size() == 0);
}

TEST_CASE("a statement may outlive its table", "[statements]") {
  StatementPtr kept;
  {
    StatementTable table(kKey);
    kept = table.intern("select 1", kNoTypes);
  }
  CHECK(kept->query() == "select 1");
}

TEST_CASE("a text that is prepared after a change of the schema is another statement", "[statements]") {
  StatementTable table(kKey), other_worker(kKey);
  const StatementPtr before = table.intern("select * from t", kNoTypes, 5);
  const StatementPtr after = table.intern("select * from t", kNoTypes, 5, 77);
  CHECK(after->key() != before->key());
  CHECK(table.intern("select * from t", kNoTypes, 5, 77) == after);
  CHECK(table.intern("select * from t", kNoTypes, 5) == before);
  CHECK(other_worker.intern("select * from t", kNoTypes, 5, 77)->key() == after->key());
  CHECK(table.intern("select * from t", kNoTypes, 77, 5)->key() != after->key());
}

TEST_CASE("a result is known by the names and types of its columns", "[statements]") {
  const auto description = [](const std::vector<Column>& columns) {
    std::string message;
    append_row_description(message, columns);
    return message.substr(kHeaderSize);
  };
  const std::string usual = description({{.name = "a", .type_oid = 23}, {.name = "b", .type_oid = 25}});
  const std::uint64_t shape = result_shape(usual);
  CHECK(shape != 0);
  CHECK(result_shape(description({{.name = "a", .type_oid = 23}})) != shape);
  CHECK(result_shape(description({{.name = "b", .type_oid = 23}, {.name = "a", .type_oid = 25}})) != shape);
  CHECK(result_shape(description({{.name = "a", .type_oid = 20}, {.name = "b", .type_oid = 25}})) != shape);
  CHECK(result_shape(description({{.name = "ab", .type_oid = 23}, {.name = "", .type_oid = 25}})) != shape);
  const std::size_t first = 2 + 2;  // behind the number of columns and the first one's name
  const auto with = [&](std::size_t offset) {
    std::string changed = usual;
    changed.at(first + offset) = 1;
    return result_shape(changed);
  };
  CHECK(with(13) != shape);  // type modifier
  CHECK(with(3) == shape);   // table
  CHECK(with(5) == shape);   // its column
  CHECK(with(17) == shape);  // format
  const std::uint64_t none = result_shape({}), empty = result_shape(description({}));
  CHECK(none != 0);
  CHECK(empty != 0);
  CHECK(none != empty);
  for (std::size_t size = 1; size < usual.size(); ++size) CHECK(result_shape(usual.substr(0, size)) == 0);
  CHECK(result_shape(usual + "x") == 0);
}

TEST_CASE("the types of parameters are found out once", "[statements]") {
  StatementTable table(kKey);
  const StatementPtr statement = table.intern("select $1", kNoTypes, 5, 77);
  CHECK(statement->known_types() == kNoTypes);
  statement->told_types = "types";
  CHECK(statement->known_types() == "types");
}

TEST_CASE("an outdated statement gets a new name for those who prepare it later", "[statements]") {
  StatementTable table(kKey);
  StatementPtr old = table.intern("select * from t", kNoTypes);
  const Hash128 old_key = old->key();
  table.outdate(*old, 5s);
  const StatementPtr fresh = table.intern("select * from t", kNoTypes);
  CHECK(fresh != old);
  CHECK(fresh->key() != old_key);
  CHECK(fresh->base() == old->base());
  CHECK(old->key() == old_key);
  CHECK(table.intern("select * from t", kNoTypes) == fresh);

  // The old one dies without taking the new one out of the table. Those who meet its error soon share the new one.
  table.outdate(*old, 5500ms);
  CHECK(table.intern("select * from t", kNoTypes) == fresh);
  old.reset();
  CHECK(table.intern("select * from t", kNoTypes) == fresh);

  table.outdate(*fresh, 5s);
  const StatementPtr third = table.intern("select * from t", kNoTypes);
  CHECK(third->key() != fresh->key());
  CHECK(third->key() != old_key);
}

TEST_CASE("whoever prepares an outdated statement again gets a name that no server can have", "[statements]") {
  StatementTable table(kKey), other_worker(kKey);
  const StatementPtr old = table.intern("select * from t", kNoTypes);
  const StatementPtr same = other_worker.intern("select * from t", kNoTypes);
  REQUIRE(old->key() == same->key());
  table.outdate(*old, 5s);
  const StatementPtr fresh = table.intern("select * from t", kNoTypes);
  // The table changes again. Another worker has not met the error yet, nor has a client that was idle since.
  other_worker.outdate(*same, 60s);
  CHECK(other_worker.intern("select * from t", kNoTypes)->key() != fresh->key());
  table.outdate(*old, 60s);
  CHECK(table.intern("select * from t", kNoTypes)->key() != fresh->key());
}

TEST_CASE("a name is found by its registration", "[statements]") {
  StatementTable table(kKey);
  ClientStatements names;
  const auto first = names.add("a", table.intern("1", kNoTypes));
  const auto second = names.add("b", table.intern("1", kNoTypes));
  REQUIRE(names.name_of(second) != nullptr);
  CHECK(*names.name_of(first) == "a");
  CHECK(*names.name_of(second) == "b");
  (void)names.remove("a");
  CHECK(names.name_of(first) == nullptr);
}

TEST_CASE("names of a client", "[statements]") {
  StatementTable table(kKey);
  ClientStatements names;
  CHECK(names.find("a") == nullptr);
  const auto first = names.add("a", table.intern("1", kNoTypes));
  REQUIRE(names.find("a") != nullptr);
  CHECK_FALSE(names.find("a")->confirmed);
  names.confirm("a", first + 1);
  CHECK_FALSE(names.find("a")->confirmed);
  names.confirm("a", first);
  CHECK(names.find("a")->confirmed);

  auto removed = names.remove("a");
  REQUIRE(removed);
  CHECK(removed->serial == first);
  CHECK(names.size() == 0);
  CHECK_FALSE(names.remove("a"));

  names.undo_remove("a", std::move(*removed));
  REQUIRE(names.find("a") != nullptr);
  CHECK(names.find("a")->serial == first);
}

TEST_CASE("undoing concerns only the registration it was made for", "[statements]") {
  StatementTable table(kKey);
  ClientStatements names;
  const auto first = names.add("a", table.intern("1", kNoTypes));
  auto removed = names.remove("a");
  REQUIRE(removed);
  const auto second = names.add("a", table.intern("2", kNoTypes));
  CHECK(second != first);
  names.undo_add("a", first);
  REQUIRE(names.find("a") != nullptr);
  names.undo_remove("a", std::move(*removed));
  CHECK(names.find("a")->serial == second);
  names.undo_add("a", second);
  CHECK(names.find("a") == nullptr);
  names.undo_add("a", second);
  CHECK(names.size() == 0);
}

TEST_CASE("DISCARD ALL spares statements whose Parse came behind it", "[statements]") {
  StatementTable table(kKey);
  ClientStatements names;
  names.confirm("old", names.add("old", table.intern("1", kNoTypes)));
  (void)names.add("new", table.intern("2", kNoTypes));
  names.clear_confirmed();
  CHECK(names.find("old") == nullptr);
  CHECK(names.find("new") != nullptr);
  CHECK(table.size() == 1);
}

TEST_CASE("a server's statements leave in the order of their last use", "[statements]") {
  ServerStatements server;
  CHECK_FALSE(server.touch(number(1)));
  for (std::uint64_t n = 1; n <= 3; ++n) server.add(number(n), 0, 1s);
  CHECK(server.size() == 3);
  CHECK_FALSE(server.evict_over(3));
  CHECK(server.touch(number(1)));
  server.add(number(4), 0, 1s);
  CHECK(server.evict_over(3) == number(2));
  CHECK_FALSE(server.evict_over(3));
  server.add(number(3), 0, 1s);  // adding again is a use
  CHECK(server.evict_over(2) == number(1));
  CHECK(server.evict_over(0) == number(4));
  CHECK(server.evict_over(0) == number(3));
  CHECK_FALSE(server.evict_over(0));
}

TEST_CASE("a server's statements have the results that are known of them", "[statements]") {
  ServerStatements server;
  server.add(number(1), 7, 1s);
  server.add(number(1), 8, 1s);  // is there already
  server.add_oldest(number(2));
  REQUIRE(server.touch(number(1)) != nullptr);
  CHECK(*server.touch(number(1)) == 7);
  CHECK(*server.touch(number(2)) == kAnyShape);
  CHECK(server.describe(number(2), 9) == kAnyShape);
  CHECK(*server.touch(number(2)) == 9);
  CHECK_FALSE(server.describe(number(3), 9));
}

TEST_CASE("what a server parsed just before the schema changed may have been parsed after", "[statements]") {
  ServerStatements server;
  server.add(number(1), 7, 1s);
  server.add(number(2), 7, 10s);
  server.add(number(3), 7, 11500ms);
  server.add(number(4), 7, 12s);
  server.doubt_recent(12s);
  CHECK(*server.touch(number(1)) == 7);
  CHECK(*server.touch(number(2)) == kAnyShape);
  CHECK(*server.touch(number(3)) == kAnyShape);
  CHECK(*server.touch(number(4)) == kAnyShape);
  CHECK(server.describe(number(4), 8) == kAnyShape);
  server.doubt_recent(12s);
  CHECK(*server.touch(number(4)) == 8);
  server.add(number(6), 0, 12s);
  CHECK(server.describe(number(6), 8) == 0U);
  server.doubt_recent(12s);
  CHECK(*server.touch(number(6)) == 8);  // which is what the server has said
  server.add(number(5), 7, 13s);
  server.doubt_recent(20s);
  CHECK(*server.touch(number(5)) == 7);
}

TEST_CASE("a statement that was not closed after all goes first", "[statements]") {
  ServerStatements server;
  server.add(number(1), 0, 1s);
  server.add(number(2), 0, 1s);
  CHECK(server.evict_over(1) == number(1));
  server.add_oldest(number(1));
  server.add_oldest(number(2));  // present already: keeps its place
  CHECK(server.size() == 2);
  CHECK(server.evict_over(1) == number(1));
  server.remove(number(2));
  server.remove(number(2));
  CHECK(server.size() == 0);
  server.add(number(5), 0, 1s);
  server.clear();
  CHECK_FALSE(server.touch(number(5)));
}
