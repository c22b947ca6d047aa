// The walk over one parse tree: visits every node of a query and stops at the first that is not known to be harmless.
// Part of statement_class; nothing else needs it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "router/catalog_knowledge.hpp"
#include "router/parse_tree.hpp"
#include "router/statement_class.hpp"

namespace pgweir::router {

class TreeWalk {
 public:
  TreeWalk(const CatalogKnowledge* knowledge, std::span<const std::string> temporary_relations)
      : knowledge_(knowledge), temporary_relations_(temporary_relations) {}

  /// Read with `reason` if the query is proven one, else what stands against it. `query` is the message of a
  /// SelectStmt.
  [[nodiscard]] Verdict prove(std::string_view query, ClassReason reason);
  /// Visits a message outside of a query (options); its verdict is the same.
  [[nodiscard]] Verdict prove_options(std::string_view bytes, MessageType type);

 private:
  bool walk(std::string_view bytes, MessageType type, int depth);
  bool visit_field(MessageType type, const FieldValue& field, int depth);
  bool check_node(std::string_view bytes, MessageType type);
  bool check_function(std::string_view bytes);
  bool check_operator(std::string_view bytes, MessageType type, std::uint32_t names);
  bool check_type(std::string_view bytes);
  bool check_relation(std::string_view bytes);
  bool check_attributes(std::string_view bytes, MessageType type, std::uint32_t names);
  bool check_sample_method(std::string_view bytes);
  bool check_local_relations();
  bool refuse(StatementClass cls, ClassReason reason);

  const CatalogKnowledge* knowledge_;
  std::span<const std::string> temporary_relations_;
  std::vector<std::string_view> common_tables_;      // names of all CTEs of the statement
  std::vector<std::string_view> unknown_relations_;  // must be CTEs
  Verdict refusal_;
};

/// The strings of a repeated field of Nodes, such as a qualified name; other nodes in it are left out.
[[nodiscard]] std::vector<std::string_view> read_names(std::string_view bytes, MessageType type, std::uint32_t field);

}  // namespace pgweir::router
