// PostgreSQL's own parser (libpg_query, the grammar of PostgreSQL 15) behind two small types: ParseTree owns the tree
// of one text in its protobuf form, MessageReader hops over the fields of one message of it. The tree is read where it
// lies: no unpacking, no allocation per node, and what the schema does not name comes back as MessageType::Other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace pgweir::router {

enum class FieldKind : std::uint8_t { Scalar, Text, Message };
enum class MessageType : std::uint8_t;

/// One field a message may have; `type` counts for FieldKind::Message only.
struct Field {
  std::uint32_t number;
  FieldKind kind;
  MessageType type;
};

#include "router/parse_tree_schema.inc"

/// The parse tree of one text. Allocates inside libpg_query, which keeps its state per thread: any thread may parse,
/// and several may at once.
class ParseTree {
 public:
  /// Parses `text` up to its first NUL byte. The caller bounds length and nesting: the parser recurses.
  explicit ParseTree(const std::string& text);
  ~ParseTree();
  ParseTree(const ParseTree&) = delete;
  ParseTree& operator=(const ParseTree&) = delete;

  /// A ParseResult message; empty if PostgreSQL's grammar refuses the text. Valid as long as this object.
  [[nodiscard]] std::string_view bytes() const { return bytes_; }
  [[nodiscard]] bool parsed() const { return parsed_; }

 private:
  struct Result;
  Result* result_;
  std::string_view bytes_;
  bool parsed_ = false;
};

/// A field that is present. proto3 leaves out what has its default: 0, false, "".
struct FieldValue {
  std::uint32_t number = 0;
  FieldKind kind = FieldKind::Scalar;
  MessageType type{};        ///< of a Message; the wrapping Node is already taken off
  std::uint64_t scalar = 0;  ///< of a Scalar
  std::string_view bytes;    ///< of Text and Message
};

/// Reads the fields of one message in order.
class MessageReader {
 public:
  MessageReader(std::string_view bytes, MessageType type) : rest_(bytes), type_(type) {}

  /// False at the end and when the bytes are not what the schema says: then broken().
  [[nodiscard]] bool next(FieldValue& value);
  [[nodiscard]] bool broken() const { return broken_; }

 private:
  bool read_varint(std::uint64_t& value);
  bool fail();

  std::string_view rest_;
  MessageType type_;
  bool broken_ = false;
};

}  // namespace pgweir::router
