// A result set of the console under construction: RowDescription, then rows filled in from left to right, then
// CommandComplete. Used by the admin_format*.cpp files only; decides how values become text, not which there are.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/message_builder.hpp"

namespace pgweir::core {

/// A column of the given type. `name` lives as long as the column.
[[nodiscard]] protocol::Column text_column(std::string_view name);
[[nodiscard]] protocol::Column int4_column(std::string_view name);
[[nodiscard]] protocol::Column int8_column(std::string_view name);
[[nodiscard]] protocol::Column numeric_column(std::string_view name);
[[nodiscard]] protocol::Column bytea_column(std::string_view name);

class AdminResult {
 public:
  /// Appends the RowDescription to `out`, which outlives this object.
  AdminResult(std::string& out, std::span<const protocol::Column> columns);
  AdminResult(std::string& out, std::initializer_list<protocol::Column> columns)
      : AdminResult(out, std::span(columns.begin(), columns.size())) {}

  // The next value of the row. Text ends at its first NUL: PostgreSQL's text type cannot hold one.
  AdminResult& text(std::string_view value);
  AdminResult& text(const std::optional<std::string>& value);
  AdminResult& text(const std::string& value) { return text(std::string_view(value)); }
  AdminResult& text(const char* value) { return text(std::string_view(value)); }
  AdminResult& null();
  /// Clamped to the range of int4.
  AdminResult& int4(std::int64_t value);
  AdminResult& int4(std::uint64_t value);
  AdminResult& int4(int value) { return int4(std::int64_t{value}); }
  AdminResult& int4(std::uint32_t value) { return int4(std::uint64_t{value}); }
  AdminResult& int4(bool value) { return int4(std::int64_t{value}); }
  /// As it is; for int8 and numeric columns.
  AdminResult& number(std::int64_t value);
  AdminResult& number(std::uint64_t value);
  /// Raw bytes for a bytea column.
  AdminResult& bytes(const std::optional<std::string>& value);

  /// Sends the row. It has exactly as many values as there are columns: aborts otherwise.
  void end_row();
  /// CommandComplete.
  void finish();

 private:
  AdminResult& add(std::string value);

  std::string& out_;
  std::size_t columns_;
  std::vector<std::optional<std::string>> values_;
  std::vector<std::optional<std::string_view>> views_;
};

}  // namespace pgweir::core
