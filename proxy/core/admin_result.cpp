// Values of console result sets as text; see admin_result.hpp.
#include "proxy/core/admin_result.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <utility>

namespace pgweir::core {

namespace {

constexpr std::int32_t kInt4Min = std::numeric_limits<std::int32_t>::min();
constexpr std::int32_t kInt4Max = std::numeric_limits<std::int32_t>::max();

// Type OIDs and lengths of pg_type.
constexpr std::uint32_t kByteaOid = 17;
constexpr std::uint32_t kInt8Oid = 20;
constexpr std::uint32_t kInt4Oid = 23;
constexpr std::uint32_t kTextOid = 25;
constexpr std::uint32_t kNumericOid = 1700;

std::string hex(std::string_view raw) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text = "\\x";
  for (const char c : raw) {
    const auto byte = static_cast<unsigned char>(c);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

protocol::Column text_column(std::string_view name) {
  return {name, kTextOid, -1};
}
protocol::Column int4_column(std::string_view name) {
  return {name, kInt4Oid, 4};
}
protocol::Column int8_column(std::string_view name) {
  return {name, kInt8Oid, 8};
}
protocol::Column numeric_column(std::string_view name) {
  return {name, kNumericOid, -1};
}
protocol::Column bytea_column(std::string_view name) {
  return {name, kByteaOid, -1};
}

AdminResult::AdminResult(std::string& out, std::span<const protocol::Column> columns)
    : out_(out), columns_(columns.size()) {
  values_.reserve(columns_);
  views_.reserve(columns_);
  protocol::append_row_description(out, columns);
}

AdminResult& AdminResult::add(std::string value) {
  values_.emplace_back(std::move(value));
  return *this;
}

AdminResult& AdminResult::text(std::string_view value) {
  return add(std::string(value.substr(0, value.find('\0'))));
}

AdminResult& AdminResult::text(const std::optional<std::string>& value) {
  return value ? text(std::string_view(*value)) : null();
}

AdminResult& AdminResult::null() {
  values_.emplace_back(std::nullopt);
  return *this;
}

AdminResult& AdminResult::int4(std::int64_t value) {
  return add(std::to_string(std::clamp<std::int64_t>(value, kInt4Min, kInt4Max)));
}

AdminResult& AdminResult::int4(std::uint64_t value) {
  return add(std::to_string(std::min<std::uint64_t>(value, kInt4Max)));
}

AdminResult& AdminResult::number(std::int64_t value) {
  return add(std::to_string(value));
}

AdminResult& AdminResult::number(std::uint64_t value) {
  return add(std::to_string(value));
}

AdminResult& AdminResult::bytes(const std::optional<std::string>& value) {
  return value ? add(hex(*value)) : null();
}

void AdminResult::end_row() {
  if (values_.size() != columns_) std::abort();
  for (const auto& value : values_) views_.emplace_back(value);
  protocol::append_data_row(out_, views_);
  values_.clear();
  views_.clear();
}

void AdminResult::finish() {
  protocol::append_command_complete(out_, "SHOW");
}

}  // namespace pgweir::core
