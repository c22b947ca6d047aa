#include "router/parse_tree.hpp"

#include <pg_query.h>

namespace pgweir::router {

// Field numbers change between versions of the library; the schema is that of 15.
static_assert(PG_VERSION_NUM / 10000 == 15);

struct ParseTree::Result {
  PgQueryProtobufParseResult value;
};

ParseTree::ParseTree(const std::string& text) : result_(new Result{pg_query_parse_protobuf(text.c_str())}) {
  parsed_ = result_->value.error == nullptr;
  if (parsed_) bytes_ = std::string_view(result_->value.parse_tree.data, result_->value.parse_tree.len);
}

ParseTree::~ParseTree() {
  pg_query_free_protobuf_parse_result(result_->value);
  delete result_;
}

namespace {
const Field* find_field(MessageType type, std::uint64_t number) {
  for (const Field& field : kSchema[static_cast<std::size_t>(type)]) {
    if (field.number == number) return &field;
  }
  return nullptr;
}
constexpr std::uint64_t kVarint = 0;
constexpr std::uint64_t kLengthDelimited = 2;
}  // namespace

bool MessageReader::fail() {
  broken_ = true;
  rest_ = {};
  return false;
}

bool MessageReader::read_varint(std::uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(rest_.front());
    rest_.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
    if ((byte & 0x80U) == 0) return true;
  }
  return fail();
}

bool MessageReader::next(FieldValue& value) {
  if (rest_.empty()) return false;
  std::uint64_t tag = 0;
  if (!read_varint(tag)) return false;
  const Field* field = find_field(type_, tag >> 3U);
  if (field == nullptr) return fail();
  value = {field->number, field->kind, field->type, 0, {}};
  if (field->kind == FieldKind::Scalar) {
    if ((tag & 7U) == kVarint) return read_varint(value.scalar);
    // Repeated numbers are packed; nothing here reads them.
    if ((tag & 7U) != kLengthDelimited) return fail();
  } else if ((tag & 7U) != kLengthDelimited) {
    return fail();
  }
  std::uint64_t length = 0;
  if (!read_varint(length)) return false;
  if (length > rest_.size()) return fail();
  value.bytes = rest_.substr(0, static_cast<std::size_t>(length));
  rest_.remove_prefix(static_cast<std::size_t>(length));
  if (value.kind == FieldKind::Message && value.type == MessageType::Node) {
    // The oneof of a Node has one member or, for a null in a list, none.
    MessageReader inner(value.bytes, MessageType::Node);
    FieldValue member;
    if (inner.next(member)) {
      value.type = member.type;
      value.bytes = member.bytes;
    } else if (inner.broken()) {
      return fail();
    } else {
      value.bytes = {};
      value.type = MessageType::Node;
    }
  }
  return true;
}

}  // namespace pgweir::router
