#include "router/tree_walk.hpp"

#include <algorithm>

#include "router/builtin_functions.hpp"

namespace pgweir::router {

namespace {

using Trust = CatalogKnowledge::Trust;

// Deeper trees than this are not worth the stack.
constexpr int kMaxDepth = 1000;

std::string_view read_string(std::string_view bytes) {
  MessageReader reader(bytes, MessageType::String);
  FieldValue field;
  std::string_view text;
  while (reader.next(field)) text = field.bytes;
  return text;
}

bool is_temporary_schema(std::string_view schema) {
  return schema.starts_with("pg_temp") || schema.starts_with("pg_toast_temp");
}

}  // namespace

std::vector<std::string_view> read_names(std::string_view bytes, MessageType type, std::uint32_t field_number) {
  std::vector<std::string_view> names;
  MessageReader reader(bytes, type);
  FieldValue field;
  while (reader.next(field)) {
    if (field.number == field_number && field.kind == FieldKind::Message && field.type == MessageType::String) {
      names.push_back(read_string(field.bytes));
    }
  }
  return names;
}

bool TreeWalk::refuse(StatementClass cls, ClassReason reason) {
  refusal_ = {cls, reason, TransactionKind::None, AccessMode::Default};
  return false;
}

Verdict TreeWalk::prove(std::string_view query, ClassReason reason) {
  const bool proven = walk(query, MessageType::SelectStmt, 0) && check_local_relations();
  return proven ? Verdict{StatementClass::Read, reason, TransactionKind::None, AccessMode::Default} : refusal_;
}

Verdict TreeWalk::prove_options(std::string_view bytes, MessageType type) {
  const bool proven = walk(bytes, type, 0) && check_local_relations();
  return proven ? Verdict{StatementClass::Read, ClassReason::Select, TransactionKind::None, AccessMode::Default}
                : refusal_;
}

bool TreeWalk::walk(std::string_view bytes, MessageType type, int depth) {
  if (depth > kMaxDepth) return refuse(StatementClass::Unknown, ClassReason::TooDeep);
  if (!check_node(bytes, type)) return false;
  MessageReader reader(bytes, type);
  FieldValue field;
  while (reader.next(field)) {
    if (field.kind == FieldKind::Message && !visit_field(type, field, depth)) return false;
  }
  return !reader.broken() || refuse(StatementClass::Unknown, ClassReason::UnknownNode);
}

bool TreeWalk::visit_field(MessageType type, const FieldValue& field, int depth) {
  switch (field.type) {
    case MessageType::InsertStmt:
    case MessageType::DeleteStmt:
    case MessageType::UpdateStmt:
    case MessageType::MergeStmt:
      return refuse(StatementClass::Write, ClassReason::ModifyingCte);
    case MessageType::IntoClause:
      return refuse(StatementClass::Write, ClassReason::SelectInto);
    case MessageType::LockingClause:
      return refuse(StatementClass::Write, ClassReason::RowLock);
    case MessageType::Node:  // a null in a list
      return true;
    case MessageType::Other:
      return refuse(StatementClass::Unknown, ClassReason::UnknownNode);
    case MessageType::DefElem:
      // Options stand outside of queries; inside they would be something this walk does not know.
      if (type == MessageType::ExplainStmt || type == MessageType::CopyStmt) break;
      return refuse(StatementClass::Unknown, ClassReason::UnknownNode);
    default:
      break;
  }
  if (kSchema[static_cast<std::size_t>(field.type)].empty() && field.type != MessageType::AStar) {
    return refuse(StatementClass::Unknown, ClassReason::UnknownNode);
  }
  return walk(field.bytes, field.type, depth + 1);
}

bool TreeWalk::check_node(std::string_view bytes, MessageType type) {
  switch (type) {
    case MessageType::SelectStmt:
      if (knowledge_ != nullptr && !knowledge_->implicit_calls_are_safe()) {
        return refuse(StatementClass::Unknown, ClassReason::ImplicitCalls);
      }
      return true;
    case MessageType::FuncCall:
      return check_function(bytes);
    case MessageType::AExpr:
      return check_operator(bytes, type, fields::AExpr::name_);
    case MessageType::SubLink:
      return check_operator(bytes, type, fields::SubLink::oper_name_);
    case MessageType::SortBy:
      return check_operator(bytes, type, fields::SortBy::use_op_);
    case MessageType::TypeName:
      return check_type(bytes);
    case MessageType::RangeVar:
      return check_relation(bytes);
    case MessageType::ColumnRef:
      return check_attributes(bytes, type, fields::ColumnRef::fields_);
    case MessageType::AIndirection:
      return check_attributes(bytes, type, fields::AIndirection::indirection_);
    case MessageType::RangeTableSample:
      return check_sample_method(bytes);
    case MessageType::CaseExpr:
    case MessageType::JoinExpr:
      if (knowledge_ == nullptr) return refuse(StatementClass::Unknown, ClassReason::NoKnowledge);
      // CASE x WHEN, USING and NATURAL call it without naming it.
      if (knowledge_->operator_is_safe("=")) return true;
      return refuse(StatementClass::Unknown, ClassReason::UnsafeOperator);
    case MessageType::CommonTableExpr: {
      MessageReader reader(bytes, type);
      FieldValue field;
      while (reader.next(field)) {
        if (field.number == fields::CommonTableExpr::ctename_) common_tables_.push_back(field.bytes);
      }
      return true;
    }
    default:
      return true;
  }
}

bool TreeWalk::check_function(std::string_view bytes) {
  const auto names = read_names(bytes, MessageType::FuncCall, fields::FuncCall::funcname_);
  if (names.empty()) return refuse(StatementClass::Unknown, ClassReason::UnknownNode);
  if (names.size() > 1 && is_temporary_schema(names[names.size() - 2])) {
    return refuse(StatementClass::Unknown, ClassReason::TemporaryObject);
  }
  const std::string_view name = names.back();
  const FunctionTrait trait = function_trait(name);
  switch (trait) {
    case FunctionTrait::Writes:
      return refuse(StatementClass::Write, ClassReason::WritingFunction);
    case FunctionTrait::Session:
      return refuse(StatementClass::SessionState, ClassReason::SessionFunction);
    case FunctionTrait::AsksHost:
      return refuse(StatementClass::Unknown, ClassReason::HostFunction);
    case FunctionTrait::None:
    case FunctionTrait::FineOnStandby:
      break;
  }
  if (knowledge_ == nullptr) return refuse(StatementClass::Unknown, ClassReason::NoKnowledge);
  const auto trust = knowledge_->function(name);
  if (trust.other == Trust::Unsafe || (trust.builtin == Trust::Unsafe && trait != FunctionTrait::FineOnStandby)) {
    return refuse(StatementClass::Unknown, ClassReason::VolatileFunction);
  }
  if (trust.other == Trust::Unknown && trust.builtin == Trust::Unknown) {
    return refuse(StatementClass::Unknown, ClassReason::UnknownFunction);
  }
  // type(x) is a cast where no such function takes x.
  if (knowledge_->type(name) == Trust::Unsafe) return refuse(StatementClass::Unknown, ClassReason::UnsafeType);
  // to_regclass('t') and its kin: the name of a temporary table may stand in the literal.
  if (name.starts_with("to_reg") && !temporary_relations_.empty()) {
    return refuse(StatementClass::Unknown, ClassReason::TemporaryObject);
  }
  return true;
}

bool TreeWalk::check_operator(std::string_view bytes, MessageType type, std::uint32_t names_field) {
  const auto names = read_names(bytes, type, names_field);
  if (names.empty()) {
    if (type == MessageType::SortBy) return true;
    if (type == MessageType::AExpr) return refuse(StatementClass::Unknown, ClassReason::UnknownNode);
  }
  if (knowledge_ == nullptr) return refuse(StatementClass::Unknown, ClassReason::NoKnowledge);
  const auto safe = [&](std::string_view name) {
    return knowledge_->operator_is_safe(name) || refuse(StatementClass::Unknown, ClassReason::UnsafeOperator);
  };
  if (names.empty()) return safe("=");  // IN (SELECT …), or EXISTS, which calls none
  if (names.back().find("BETWEEN") != std::string_view::npos) {
    return safe("<") && safe(">") && safe("<=") && safe(">=");
  }
  return safe(names.back());
}

bool TreeWalk::check_type(std::string_view bytes) {
  const auto names = read_names(bytes, MessageType::TypeName, fields::TypeName::names_);
  if (names.empty()) return refuse(StatementClass::Unknown, ClassReason::UnsafeType);
  if (names.size() > 1 && is_temporary_schema(names[names.size() - 2])) {
    return refuse(StatementClass::Unknown, ClassReason::TemporaryObject);
  }
  if (knowledge_ == nullptr) return refuse(StatementClass::Unknown, ClassReason::NoKnowledge);
  // A name in a literal ('t'::regclass) may be that of a temporary table.
  if (names.back().starts_with("reg") && !temporary_relations_.empty()) {
    return refuse(StatementClass::Unknown, ClassReason::TemporaryObject);
  }
  if (knowledge_->type(names.back()) != Trust::Safe) return refuse(StatementClass::Unknown, ClassReason::UnsafeType);
  return true;
}

bool TreeWalk::check_relation(std::string_view bytes) {
  std::string_view schema;
  std::string_view name;
  MessageReader reader(bytes, MessageType::RangeVar);
  FieldValue field;
  while (reader.next(field)) {
    if (field.number == fields::RangeVar::schemaname_) schema = field.bytes;
    if (field.number == fields::RangeVar::relname_) name = field.bytes;
  }
  if (is_temporary_schema(schema)) return refuse(StatementClass::Unknown, ClassReason::TemporaryObject);
  if (std::find(temporary_relations_.begin(), temporary_relations_.end(), name) != temporary_relations_.end()) {
    return refuse(StatementClass::Unknown, ClassReason::TemporaryObject);
  }
  const Trust trust = knowledge_ == nullptr ? Trust::Unknown : knowledge_->relation(name);
  if (trust == Trust::Unsafe) return refuse(StatementClass::Unknown, ClassReason::UnsafeRelation);
  if (trust == Trust::Unknown) {
    if (!schema.empty()) return refuse(StatementClass::Unknown, ClassReason::UnknownRelation);
    unknown_relations_.push_back(name);
  }
  return true;
}

// A CTE may be named after it is used (in the text of the tree), hence at the end. A name that is a CTE's elsewhere in
// the statement and out of its scope here is a relation nobody knows: PostgreSQL will not know it either.
bool TreeWalk::check_local_relations() {
  for (const std::string_view name : unknown_relations_) {
    if (std::find(common_tables_.begin(), common_tables_.end(), name) == common_tables_.end()) {
      return refuse(StatementClass::Unknown,
                    knowledge_ == nullptr ? ClassReason::NoKnowledge : ClassReason::UnknownRelation);
    }
  }
  return true;
}

// row.name may be a call name(row): PostgreSQL tries that when there is no such column.
bool TreeWalk::check_attributes(std::string_view bytes, MessageType type, std::uint32_t names_field) {
  const auto names = read_names(bytes, type, names_field);
  const std::size_t first = type == MessageType::ColumnRef ? 1 : 0;
  for (std::size_t i = first; i < names.size(); ++i) {
    if (knowledge_ == nullptr) return refuse(StatementClass::Unknown, ClassReason::NoKnowledge);
    if (knowledge_->function(names[i]).attribute) {
      return refuse(StatementClass::Unknown, ClassReason::VolatileFunction);
    }
  }
  return true;
}

bool TreeWalk::check_sample_method(std::string_view bytes) {
  const auto names = read_names(bytes, MessageType::RangeTableSample, fields::RangeTableSample::method_);
  const bool known = !names.empty() && (names.back() == "bernoulli" || names.back() == "system");
  if (!known) return refuse(StatementClass::Unknown, ClassReason::SampleMethod);
  if (knowledge_ == nullptr) return refuse(StatementClass::Unknown, ClassReason::NoKnowledge);
  if (knowledge_->function(names.back()).other != Trust::Unknown) {
    return refuse(StatementClass::Unknown, ClassReason::SampleMethod);
  }
  return true;
}

}  // namespace pgweir::router
