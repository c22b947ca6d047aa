// Decides what a statement is for routing: a read only if PostgreSQL's own grammar and what is known of the catalogue
// prove it. Follows the rule that a wrong guess may cost time, never correctness: every node of the parse tree is
// visited, and a node, function, operator, type or relation that is not known to be harmless makes the statement no
// read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "router/statement_text.hpp"

namespace pgweir::router {

class CatalogKnowledge;

enum class StatementClass : std::uint8_t {
  Read,                ///< proven: any host that is fresh enough
  Write,               ///< changes data or takes locks
  TransactionControl,  ///< BEGIN, COMMIT, SAVEPOINT, SET TRANSACTION, …: see transaction and mode
  SessionState,        ///< leaves something in the session: SET, LISTEN, PREPARE, advisory locks, …
  Unknown,             ///< not proven a read: primary
};

/// Why a statement got its class; shown by the console.
enum class ClassReason : std::uint8_t {
  Select,
  Show,
  Explain,
  CopyTo,
  Cursor,
  Empty,
  ReadOnlyBlock,
  Transaction,
  DataModification,
  ModifyingCte,
  SelectInto,
  RowLock,
  Ddl,
  Procedure,
  Notify,
  TwoPhase,
  ExplainAnalyze,
  CopyFile,
  HoldCursor,
  Setting,
  SessionCommand,
  WritingFunction,
  SessionFunction,
  HostFunction,
  VolatileFunction,
  UnknownFunction,
  UnsafeOperator,
  UnsafeType,
  UnsafeRelation,
  UnknownRelation,
  TemporaryObject,
  ImplicitCalls,
  HostSetting,
  SampleMethod,
  MixedStatements,
  UnknownNode,
  NotParsed,
  TooLong,
  TooDeep,
  UnsafeText,
  NoKnowledge,
  Learned,
};

enum class TransactionKind : std::uint8_t { None, Begin, End, Savepoint, SetTransaction };
enum class AccessMode : std::uint8_t { Default, ReadOnly, ReadWrite };

struct Verdict {
  StatementClass cls = StatementClass::Unknown;
  ClassReason reason = ClassReason::NotParsed;
  TransactionKind transaction = TransactionKind::None;  ///< of TransactionControl
  AccessMode mode = AccessMode::Default;  ///< of Begin and SetTransaction. ReadOnly only where a standby can take it

  friend bool operator==(const Verdict&, const Verdict&) = default;
};

/// BEGIN READ ONLY, of a kind that a standby can take.
[[nodiscard]] inline bool begins_read_only(const Verdict& verdict) {
  return verdict.cls == StatementClass::TransactionControl && verdict.transaction == TransactionKind::Begin &&
         verdict.mode == AccessMode::ReadOnly;
}

/// Names for logs and the console, as `read`, `row_lock`.
[[nodiscard]] std::string_view class_name(StatementClass cls);
[[nodiscard]] std::string_view reason_name(ClassReason reason);

/// How the session that sent a text reads it. Texts that both readings agree on are classified in any case.
struct TextRules {
  bool standard_conforming_strings = true;  ///< off: a text with a backslash is not classified
  bool client_encoding_is_utf8 = true;      ///< no: a text with bytes above 127 is not classified
};

/// The verdict on a text that PostgreSQL's parser need not or must not see; nullopt for all others. What begins with
/// INSERT is a write even if the grammar would refuse it.
[[nodiscard]] std::optional<Verdict> refuse_text(const TextForm& form, TextRules rules);

/// Classifies texts. Keeps a buffer: one per worker thread.
class Classifier {
 public:
  /// `knowledge` may be null: then nothing that names a function, operator, type or relation is a read.
  /// `temporary_relations`: bare names of the session's own temporary tables, which no other host has.
  [[nodiscard]] Verdict classify(std::string_view text, const CatalogKnowledge* knowledge, TextRules rules = {},
                                 std::span<const std::string> temporary_relations = {});

  /// The same for a text that refuse_text() let through.
  [[nodiscard]] Verdict parse(std::string_view text, const CatalogKnowledge* knowledge,
                              std::span<const std::string> temporary_relations = {});

 private:
  std::string buffer_;
  TextForm form_;
};

}  // namespace pgweir::router
