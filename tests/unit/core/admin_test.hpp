// Takes the console's answers apart without the code under test, so that tests compare columns and rows as text.
#pragma once

#include <catch2/catch.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace admin_test {

struct Message {
  char type = 0;
  std::string body;
};

inline std::size_t big_endian(std::string_view bytes, std::size_t at, std::size_t size) {
  REQUIRE(at + size <= bytes.size());
  std::size_t value = 0;
  for (std::size_t i = 0; i < size; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

inline std::vector<Message> split(std::string_view bytes) {
  std::vector<Message> messages;
  while (!bytes.empty()) {
    const std::size_t length = big_endian(bytes, 1, 4);
    REQUIRE(length >= 4);
    REQUIRE(length + 1 <= bytes.size());
    messages.push_back({bytes[0], std::string(bytes.substr(5, length - 4))});
    bytes.remove_prefix(length + 1);
  }
  return messages;
}

/// "name t" and so on, with the letters of the reference. Anything unusual about a column fails the test.
inline std::vector<std::string> read_columns(std::string_view body) {
  std::vector<std::string> columns;
  std::size_t at = 2;
  for (std::size_t count = big_endian(body, 0, 2); count > 0; --count) {
    const std::size_t end = body.find('\0', at);
    REQUIRE(end != std::string_view::npos);
    const std::string name(body.substr(at, end - at));
    at = end + 1;
    REQUIRE(big_endian(body, at, 4) == 0);                // table
    REQUIRE(big_endian(body, at + 4, 2) == 0);            // attribute number
    REQUIRE(big_endian(body, at + 12, 4) == 0xFFFFFFFF);  // type modifier
    REQUIRE(big_endian(body, at + 16, 2) == 0);           // text format
    const auto type = std::pair(big_endian(body, at + 6, 4), big_endian(body, at + 10, 2));
    at += 18;
    if (type == std::pair<std::size_t, std::size_t>(25, 0xFFFF)) {
      columns.push_back(name + " t");
    } else if (type == std::pair<std::size_t, std::size_t>(23, 4)) {
      columns.push_back(name + " i");
    } else if (type == std::pair<std::size_t, std::size_t>(20, 8)) {
      columns.push_back(name + " q");
    } else if (type == std::pair<std::size_t, std::size_t>(1700, 0xFFFF)) {
      columns.push_back(name + " n");
    } else if (type == std::pair<std::size_t, std::size_t>(17, 0xFFFF)) {
      columns.push_back(name + " b");
    } else {
      FAIL("unexpected type of column " << name);
    }
  }
  REQUIRE(at == body.size());
  return columns;
}

using Row = std::vector<std::string>;

/// Nulls read as "<null>".
inline Row read_row(std::string_view body) {
  Row row;
  std::size_t at = 2;
  for (std::size_t count = big_endian(body, 0, 2); count > 0; --count) {
    const std::size_t length = big_endian(body, at, 4);
    at += 4;
    if (length == 0xFFFFFFFF) {
      row.emplace_back("<null>");
      continue;
    }
    REQUIRE(at + length <= body.size());
    row.emplace_back(body.substr(at, length));
    at += length;
  }
  REQUIRE(at == body.size());
  return row;
}

struct Table {
  std::vector<std::string> columns;
  std::vector<Row> rows;
};

/// RowDescription, DataRows, CommandComplete "SHOW" and nothing else.
inline Table read_table(std::string_view bytes) {
  const std::vector<Message> messages = split(bytes);
  REQUIRE(messages.size() >= 2);
  REQUIRE(messages.front().type == 'T');
  REQUIRE(messages.back().type == 'C');
  REQUIRE(messages.back().body == std::string("SHOW\0", 5));
  Table table;
  table.columns = read_columns(messages.front().body);
  for (std::size_t i = 1; i + 1 < messages.size(); ++i) {
    REQUIRE(messages[i].type == 'D');
    table.rows.push_back(read_row(messages[i].body));
    REQUIRE(table.rows.back().size() == table.columns.size());
  }
  return table;
}

}  // namespace admin_test
