#include "router/statement_class.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "router/builtin_functions.hpp"
#include "router/parse_tree.hpp"
#include "router/statement_text.hpp"
#include "router/tree_walk.hpp"

namespace pgweir::router {

namespace {

using std::string_view_literals::operator""sv;

constexpr std::array kClassNames = {"read"sv, "write"sv, "transaction_control"sv, "session_state"sv, "unknown"sv};
constexpr std::array kClassReasonNames = {
    "select"sv,
    "show"sv,
    "explain"sv,
    "copy_to"sv,
    "cursor"sv,
    "empty"sv,
    "read_only_block"sv,
    "transaction"sv,
    "data_modification"sv,
    "modifying_cte"sv,
    "select_into"sv,
    "row_lock"sv,
    "ddl"sv,
    "procedure"sv,
    "notify"sv,
    "two_phase"sv,
    "explain_analyze"sv,
    "copy_file"sv,
    "hold_cursor"sv,
    "setting"sv,
    "session_command"sv,
    "writing_function"sv,
    "session_function"sv,
    "host_function"sv,
    "volatile_function"sv,
    "unknown_function"sv,
    "unsafe_operator"sv,
    "unsafe_type"sv,
    "unsafe_relation"sv,
    "unknown_relation"sv,
    "temporary_object"sv,
    "implicit_calls"sv,
    "host_setting"sv,
    "sample_method"sv,
    "mixed_statements"sv,
    "unknown_node"sv,
    "not_parsed"sv,
    "too_long"sv,
    "too_deep"sv,
    "unsafe_text"sv,
    "no_knowledge"sv,
    "learned"sv,
};
static_assert(kClassReasonNames.size() == static_cast<std::size_t>(ClassReason::Learned) + 1);

Verdict verdict(StatementClass cls, ClassReason reason) {
  return {cls, reason, TransactionKind::None, AccessMode::Default};
}

// What the library that is loaded must say of itself; the schema is made for it.
constexpr std::uint64_t kGrammarVersion = 15;

// Enumerators of the parse tree that are looked at.
constexpr std::uint64_t kBegin = 1;
constexpr std::uint64_t kStart = 2;
constexpr std::uint64_t kCommit = 3;
constexpr std::uint64_t kRollback = 4;
constexpr std::uint64_t kSavepoint = 5;
constexpr std::uint64_t kRollbackTo = 7;
constexpr std::uint64_t kSetMulti = 4;
constexpr std::uint64_t kCursorHold = 0x20;

struct Option {
  std::string_view name;
  std::string_view text;     // of a string constant
  std::uint64_t number = 0;  // of an integer constant; 0 where there is none
};

Option read_option(std::string_view bytes) {
  Option option;
  MessageReader reader(bytes, MessageType::DefElem);
  FieldValue field;
  while (reader.next(field)) {
    if (field.number == fields::DefElem::defname_) option.name = field.bytes;
    if (field.number != fields::DefElem::arg_ || field.type != MessageType::AConst) continue;
    MessageReader constant(field.bytes, MessageType::AConst);
    FieldValue value;
    while (constant.next(value)) {
      if (value.number == fields::AConst::sval_) {
        MessageReader string(value.bytes, MessageType::String);
        FieldValue content;
        while (string.next(content)) option.text = content.bytes;
      } else if (value.number == fields::AConst::ival_) {
        MessageReader integer(value.bytes, MessageType::Integer);
        FieldValue content;
        while (integer.next(content)) option.number = content.scalar;
      }
    }
  }
  return option;
}

// The modes of BEGIN and SET TRANSACTION. A standby refuses SERIALIZABLE, and a snapshot belongs to the host that
// exported it: neither is ReadOnly here. Of several access modes PostgreSQL takes the last; only unanimous ones count.
class ModeReader {
 public:
  void add(std::string_view option_bytes) {
    const Option option = read_option(option_bytes);
    if (option.name == "transaction_read_only") {
      (option.number != 0 ? read_only_ : read_write_) = true;
    } else if (option.name == "transaction_isolation") {
      if (option.text != "read committed" && option.text != "read uncommitted" && option.text != "repeatable read") {
        bound_to_primary_ = true;
      }
    } else if (option.name != "transaction_deferrable") {
      bound_to_primary_ = true;
    }
  }
  [[nodiscard]] AccessMode mode() const {
    if (read_write_ || bound_to_primary_) return AccessMode::ReadWrite;
    return read_only_ ? AccessMode::ReadOnly : AccessMode::Default;
  }

 private:
  bool read_only_ = false;
  bool read_write_ = false;
  bool bound_to_primary_ = false;
};

/// Classifies the statements of one text, one after the other.
class StatementReader {
 public:
  StatementReader(const CatalogKnowledge* knowledge, std::span<const std::string> temporary_relations)
      : knowledge_(knowledge), temporary_relations_(temporary_relations) {}

  Verdict classify(std::string_view bytes, MessageType type) {
    switch (type) {
      case MessageType::SelectStmt:
        return query(bytes, ClassReason::Select);
      case MessageType::VariableShowStmt:
        return show(bytes);
      case MessageType::ExplainStmt:
        return explain(bytes);
      case MessageType::CopyStmt:
        return copy(bytes);
      case MessageType::DeclareCursorStmt:
        return declare(bytes);
      case MessageType::TransactionStmt:
        return transaction(bytes);
      case MessageType::VariableSetStmt:
        return set(bytes);
      default:
        return other(type);
    }
  }

 private:
  Verdict query(std::string_view bytes, ClassReason reason) {
    return TreeWalk(knowledge_, temporary_relations_).prove(bytes, reason);
  }

  static Verdict other(MessageType type) {
    switch (type) {
      case MessageType::InsertStmt:
      case MessageType::UpdateStmt:
      case MessageType::DeleteStmt:
      case MessageType::MergeStmt:
        return verdict(StatementClass::Write, ClassReason::DataModification);
      case MessageType::CallStmt:
      case MessageType::DoStmt:
        return verdict(StatementClass::Write, ClassReason::Procedure);
      case MessageType::NotifyStmt:
        return verdict(StatementClass::Write, ClassReason::Notify);
      case MessageType::LockStmt:
        return verdict(StatementClass::Write, ClassReason::RowLock);
      case MessageType::CreateTableAsStmt:
        return verdict(StatementClass::Write, ClassReason::SelectInto);
      case MessageType::ListenStmt:
      case MessageType::UnlistenStmt:
      case MessageType::PrepareStmt:
      case MessageType::ExecuteStmt:
      case MessageType::DeallocateStmt:
      case MessageType::DiscardStmt:
      case MessageType::LoadStmt:
      case MessageType::FetchStmt:
      case MessageType::ClosePortalStmt:
      case MessageType::ConstraintsSetStmt:
        return verdict(StatementClass::SessionState, ClassReason::SessionCommand);
      default:
        return verdict(StatementClass::Write, ClassReason::Ddl);
    }
  }

  static Verdict show(std::string_view bytes) {
    MessageReader reader(bytes, MessageType::VariableShowStmt);
    FieldValue field;
    std::string name;
    while (reader.next(field)) name = field.bytes;
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (reader.broken()) return verdict(StatementClass::Unknown, ClassReason::UnknownNode);
    if (name.empty() || setting_asks_host(name)) return verdict(StatementClass::Unknown, ClassReason::HostSetting);
    return verdict(StatementClass::Read, ClassReason::Show);
  }

  // EXPLAIN ANALYZE runs the statement, whatever its value: ANALYZE OFF is not worth telling apart.
  Verdict explain(std::string_view bytes) {
    MessageReader reader(bytes, MessageType::ExplainStmt);
    FieldValue field;
    std::optional<FieldValue> inner;
    while (reader.next(field)) {
      if (field.number == fields::ExplainStmt::query_) {
        inner = field;
      } else if (field.type != MessageType::DefElem) {
        return verdict(StatementClass::Unknown, ClassReason::UnknownNode);
      } else if (read_option(field.bytes).name == "analyze") {
        return verdict(StatementClass::Unknown, ClassReason::ExplainAnalyze);
      }
    }
    if (reader.broken() || !inner) return verdict(StatementClass::Unknown, ClassReason::UnknownNode);
    if (inner->type == MessageType::SelectStmt) return query(inner->bytes, ClassReason::Explain);
    if (inner->type == MessageType::DeclareCursorStmt) {
      Verdict cursor = declare(inner->bytes);
      if (cursor.cls == StatementClass::Read) cursor.reason = ClassReason::Explain;
      return cursor;
    }
    return other(inner->type);
  }

  Verdict copy(std::string_view bytes) {
    MessageReader reader(bytes, MessageType::CopyStmt);
    FieldValue field;
    std::optional<FieldValue> inner;
    bool elsewhere = false;  // a table, a file, a program
    while (reader.next(field)) {
      if (field.number == fields::CopyStmt::is_from_) {
        return verdict(StatementClass::Write, ClassReason::DataModification);
      }
      if (field.number == fields::CopyStmt::query_) {
        inner = field;
      } else if (field.number != fields::CopyStmt::options_ || field.type != MessageType::DefElem) {
        elsewhere = true;
      }
    }
    if (elsewhere) return verdict(StatementClass::Unknown, ClassReason::CopyFile);
    if (reader.broken() || !inner) return verdict(StatementClass::Unknown, ClassReason::UnknownNode);
    if (inner->type == MessageType::SelectStmt) return query(inner->bytes, ClassReason::CopyTo);
    return other(inner->type);
  }

  Verdict declare(std::string_view bytes) {
    MessageReader reader(bytes, MessageType::DeclareCursorStmt);
    FieldValue field;
    std::optional<FieldValue> inner;
    bool hold = false;
    while (reader.next(field)) {
      if (field.number == fields::DeclareCursorStmt::query_) inner = field;
      if (field.number == fields::DeclareCursorStmt::options_) hold = (field.scalar & kCursorHold) != 0;
    }
    if (hold) return verdict(StatementClass::SessionState, ClassReason::HoldCursor);
    if (reader.broken() || !inner || inner->type != MessageType::SelectStmt) {
      return verdict(StatementClass::Unknown, ClassReason::UnknownNode);
    }
    return query(inner->bytes, ClassReason::Cursor);
  }

  static Verdict transaction(std::string_view bytes) {
    MessageReader reader(bytes, MessageType::TransactionStmt);
    FieldValue field;
    std::uint64_t kind = 0;
    ModeReader modes;
    while (reader.next(field)) {
      if (field.number == fields::TransactionStmt::kind_) kind = field.scalar;
      if (field.number == fields::TransactionStmt::options_) modes.add(field.bytes);
    }
    if (reader.broken()) return verdict(StatementClass::Unknown, ClassReason::UnknownNode);
    Verdict result = verdict(StatementClass::TransactionControl, ClassReason::Transaction);
    if (kind == kBegin || kind == kStart) {
      result.transaction = TransactionKind::Begin;
      result.mode = modes.mode();
    } else if (kind == kCommit || kind == kRollback) {
      result.transaction = TransactionKind::End;
    } else if (kind >= kSavepoint && kind <= kRollbackTo) {
      result.transaction = TransactionKind::Savepoint;
    } else {
      return verdict(StatementClass::Write, ClassReason::TwoPhase);
    }
    return result;
  }

  static Verdict set(std::string_view bytes) {
    MessageReader reader(bytes, MessageType::VariableSetStmt);
    FieldValue field;
    bool multi = false;
    std::string_view name;
    ModeReader modes;
    while (reader.next(field)) {
      if (field.number == fields::VariableSetStmt::kind_) multi = field.scalar == kSetMulti;
      if (field.number == fields::VariableSetStmt::name_) name = field.bytes;
      if (field.number == fields::VariableSetStmt::args_ && field.type == MessageType::DefElem) modes.add(field.bytes);
    }
    if (!multi || name != "TRANSACTION" || reader.broken()) {
      return verdict(StatementClass::SessionState, ClassReason::Setting);
    }
    Verdict result = verdict(StatementClass::TransactionControl, ClassReason::Transaction);
    result.transaction = TransactionKind::SetTransaction;
    result.mode = modes.mode();
    return result;
  }

  const CatalogKnowledge* knowledge_;
  std::span<const std::string> temporary_relations_;
};

/// Puts the verdicts of several statements in one text together. A block is a read from BEGIN READ ONLY, or from BEGIN
/// and SET TRANSACTION READ ONLY right after it, up to its end; outside of such a block every statement must be a read.
class TextVerdict {
 public:
  void add(const Verdict& part) {
    ++parts_;
    if (parts_ == 1) first_ = part;
    if (refused_ || accept(part)) return;
    refused_ = true;
    if (part.cls != StatementClass::TransactionControl && part.cls != StatementClass::Read) refusal_ = part;
  }

  [[nodiscard]] Verdict result() const {
    if (parts_ == 0) return verdict(StatementClass::Read, ClassReason::Empty);
    if (parts_ == 1) return first_;
    if (refused_) return refusal_;
    if (block_ == Block::Undecided) return verdict(StatementClass::Unknown, ClassReason::MixedStatements);
    return verdict(StatementClass::Read, had_block_ ? ClassReason::ReadOnlyBlock : first_.reason);
  }

 private:
  enum class Block : std::uint8_t { None, Undecided, ReadOnly };

  bool accept(const Verdict& part) {
    if (part.cls == StatementClass::TransactionControl) return accept_control(part);
    return part.cls == StatementClass::Read && block_ != Block::Undecided;
  }

  bool accept_control(const Verdict& part) {
    const bool read_only = part.mode == AccessMode::ReadOnly;
    switch (part.transaction) {
      case TransactionKind::Begin:
        if (block_ != Block::None || part.mode == AccessMode::ReadWrite) return false;
        block_ = read_only ? Block::ReadOnly : Block::Undecided;
        had_block_ = true;
        return true;
      case TransactionKind::SetTransaction:
        if (block_ != Block::Undecided || !read_only) return false;
        block_ = Block::ReadOnly;
        return true;
      case TransactionKind::End:
        if (block_ == Block::None) return false;
        block_ = Block::None;
        return true;
      case TransactionKind::Savepoint:
        return block_ == Block::ReadOnly;
      case TransactionKind::None:
        break;
    }
    return false;
  }

  int parts_ = 0;
  bool refused_ = false;
  bool had_block_ = false;
  Block block_ = Block::None;
  Verdict first_;
  Verdict refusal_ = verdict(StatementClass::Unknown, ClassReason::MixedStatements);
};

}  // namespace

std::string_view class_name(StatementClass cls) {
  return kClassNames[static_cast<std::size_t>(cls)];
}

std::string_view reason_name(ClassReason reason) {
  return kClassReasonNames[static_cast<std::size_t>(reason)];
}

std::optional<Verdict> refuse_text(const TextForm& form, TextRules rules) {
  switch (form.problem) {
    case TextProblem::None:
      break;
    case TextProblem::TooLong:
      return verdict(StatementClass::Unknown, ClassReason::TooLong);
    case TextProblem::TooManyTokens:
      return verdict(StatementClass::Unknown, ClassReason::TooDeep);
    case TextProblem::NulByte:
    case TextProblem::NotUtf8:
      return verdict(StatementClass::Unknown, ClassReason::UnsafeText);
  }
  if ((form.backslash && !rules.standard_conforming_strings) || (form.non_ascii && !rules.client_encoding_is_utf8)) {
    return verdict(StatementClass::Unknown, ClassReason::UnsafeText);
  }
  if (form.modifies) return verdict(StatementClass::Write, ClassReason::DataModification);
  if (form.empty) return verdict(StatementClass::Read, ClassReason::Empty);
  return std::nullopt;
}

Verdict Classifier::classify(std::string_view text, const CatalogKnowledge* knowledge, TextRules rules,
                             std::span<const std::string> temporary_relations) {
  read_text_form(text, form_);
  if (const auto refused = refuse_text(form_, rules)) return *refused;
  return parse(text, knowledge, temporary_relations);
}

Verdict Classifier::parse(std::string_view text, const CatalogKnowledge* knowledge,
                          std::span<const std::string> temporary_relations) {
  buffer_.assign(text);
  const ParseTree tree(buffer_);
  if (!tree.parsed()) return verdict(StatementClass::Unknown, ClassReason::NotParsed);
  StatementReader statements(knowledge, temporary_relations);
  TextVerdict result;
  MessageReader reader(tree.bytes(), MessageType::ParseResult);
  FieldValue field;
  while (reader.next(field)) {
    if (field.number == fields::ParseResult::version_ && field.scalar / 10000 != kGrammarVersion) {
      return verdict(StatementClass::Unknown, ClassReason::UnknownNode);
    }
    if (field.number != fields::ParseResult::stmts_) continue;
    MessageReader raw(field.bytes, MessageType::RawStmt);
    FieldValue statement;
    while (raw.next(statement)) {
      if (statement.number == fields::RawStmt::stmt_) result.add(statements.classify(statement.bytes, statement.type));
    }
    if (raw.broken()) return verdict(StatementClass::Unknown, ClassReason::UnknownNode);
  }
  if (reader.broken()) return verdict(StatementClass::Unknown, ClassReason::UnknownNode);
  return result.result();
}

}  // namespace pgweir::router
