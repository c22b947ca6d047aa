// What a server connection still owes: one entry for every message sent to it that ends in a reply, in order, with the
// replies that the client must not see and those that we give in the server's place. From it follows whether the server
// may serve somebody else. Follows "Message Flow", "Pipelining" and "COPY Operations" of the protocol chapter:
//
//  - after an error in an extended-query message the server skips everything up to Sync (also simple queries);
//  - while a COPY FROM STDIN runs, Sync and Flush are ignored by the server; CopyDone or CopyFail outside of one too.
//
// It does not read messages; the relay tells it their types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "protocol/prepared_statements.hpp"

namespace pgweir::protocol {

enum class ReplyKind : std::uint8_t {
  Query,           ///< simple query: everything up to ReadyForQuery
  Sync,            ///< ReadyForQuery
  FunctionCall,    ///< everything up to ReadyForQuery
  Parse,           ///< ParseComplete
  Bind,            ///< BindComplete
  Close,           ///< CloseComplete
  Describe,        ///< RowDescription or NoData, after ParameterDescription for a statement
  Execute,         ///< CommandComplete, EmptyQueryResponse or PortalSuspended
  CopyEnd,         ///< CopyDone or CopyFail: no reply of its own
  HiddenQuery,     ///< ours: nothing of it reaches the client
  HiddenParse,     ///< ours: ParseComplete is swallowed
  HiddenClose,     ///< ours: CloseComplete is swallowed
  HiddenDescribe,  ///< ours: what it says of `statement` is for us
  HiddenSync,      ///< ours, behind a hidden Parse before a simple query: ReadyForQuery is swallowed
  LocalParse,      ///< not sent: we answer ParseComplete when its turn comes
  LocalClose,      ///< not sent: we answer CloseComplete when its turn comes
  Mistake,         ///< sent in place of a message that must fail; its ErrorResponse is replaced by `change->error`
};

/// The server is not to say anything, or nothing of its own: the entry is done with when its turn has come.
[[nodiscard]] constexpr bool needs_no_reply(ReplyKind kind) {
  return kind == ReplyKind::LocalParse || kind == ReplyKind::LocalClose || kind == ReplyKind::CopyEnd;
}

/// What an entry changed in the tables of prepared statements, to be confirmed or taken back with its reply.
struct StatementChange {
  std::string client_name{};                 ///< the client's name, if its table was changed; Describe: in any case
  std::uint64_t added_serial = 0;            ///< registration made by a Parse
  ClientStatements::Registration removed{};  ///< registration removed by a Close
  Hash128 key{};                             ///< statement concerned on the server
  bool server_added = false;                 ///< key was entered as present on the server
  bool server_removed = false;               ///< key was removed from those present
  std::string sqlstate{};                    ///< Mistake: what the server is going to say
  std::string error{};                       ///< Mistake: the complete ErrorResponse message for the client
  std::uint64_t schema = 0;                  ///< Parse, HiddenDescribe: number of the schema when it was sent
};

struct ReplyEntry {
  ReplyKind kind = ReplyKind::Query;
  bool quiet = false;    ///< HiddenParse: its error is swallowed too
  bool flushed = false;  ///< a Flush was sent behind it
  /// HiddenQuery: what it is for. Query, Execute: which parameters it may reset. Bind: which portal it makes, if that
  /// matters. Describe: which unnamed statement of the client it is about. The owner's own numbers; 0: none.
  std::uint32_t purpose = 0;
  /// Parse of the unnamed statement: which one of the client's. Query, Close: what stands for there being none from
  /// here on. 0: has nothing to do with it.
  std::uint32_t unnamed_serial = 0;
  std::unique_ptr<StatementChange> change{};
  StatementPtr statement{};       ///< Bind, Describe, Query: the shared statement it is about, if any ...
  std::uint64_t name_serial = 0;  ///< ... and the client's registration of it
};

class ReplyLedger {
 public:
  /// Called with each entry whose message the server skipped, newest first, so that changes are undone in reverse.
  using Skipped = std::function<void(ReplyEntry&)>;

  /// More entries than this are not accepted: the caller stops reading from the client (and asks the server to Flush)
  /// until replies have come.
  static constexpr std::size_t kEntriesMax = 8192;

  /// Records a message that was just sent (or answered locally). An entry that the server is going to skip anyway, or
  /// ignores because of a COPY, goes to `skipped` at once.
  void push(ReplyEntry entry, const Skipped& skipped);
  /// The same for an entry that is sure to get a place. False, and nothing done: it is not.
  [[nodiscard]] bool try_push(ReplyEntry& entry) {
    if (skip_to_sync_ || copy_in_) return false;
    note_sync(entry.kind);
    ring_[size_slot()] = std::move(entry);
    ++size_;
    return true;
  }
  void push(ReplyKind kind) {
    if (skip_to_sync_ || copy_in_) {
      push_special(kind);
      return;
    }
    note_sync(kind);
    ReplyEntry& entry = ring_[size_slot()];
    entry.kind = kind;
    entry.purpose = 0;
    entry.unnamed_serial = 0;
    entry.quiet = entry.flushed = false;
    ++size_;
  }

  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] bool full() const { return size_ >= kEntriesMax; }
  [[nodiscard]] std::size_t size() const { return size_; }
  /// Precondition: not empty.
  [[nodiscard]] ReplyEntry& front() { return ring_[head_]; }
  [[nodiscard]] const ReplyEntry& front() const { return ring_[head_]; }
  /// Precondition: not empty.
  [[nodiscard]] ReplyEntry& newest() { return nth(size_ - 1); }
  [[nodiscard]] const ReplyEntry& newest() const { return ring_[(head_ + size_ - 1) & (ring_.size() - 1)]; }
  /// Precondition: not empty.
  ReplyEntry pop();
  void drop_front() {
    sync_ignored_ = false;
    if (ReplyEntry& entry = ring_[head_]; entry.change || entry.statement) empty_entry(entry);
    head_ = (head_ + 1) & (ring_.size() - 1);
    --size_;
  }

  /// An ErrorResponse came that the front entry caused. Entries that a pipeline error makes the server skip are removed
  /// (the front one included) and handed to `skipped`. For Query, FunctionCall, HiddenQuery and Sync nothing is
  /// removed: their ReadyForQuery is still to come.
  void fail(const Skipped& skipped);

  /// CopyInResponse came for the front entry.
  /// Returns how many Syncs the server will have ignored because of it.
  std::size_t begin_copy_in();

  /// A COPY failed behind which a Sync was sent that was taken for ignored: had the server failed before it read the
  /// Sync, it answers it. How many ReadyForQuery are to come cannot be known, so the server must serve nobody else.
  [[nodiscard]] bool uncertain() const { return uncertain_; }

  /// Neither a reply nor a Sync is owed. With transaction status I the server is free.
  [[nodiscard]] bool idle() const { return size_ == 0 && !unsynced_ && !skip_to_sync_ && !copy_in_; }
  /// Extended-query messages were sent after the last Sync.
  [[nodiscard]] bool unsynced() const { return unsynced_; }
  /// The server skips what is sent now, or will if something of the same pipeline fails that is not answered yet.
  /// A simple query does not end a pipeline; it ends the transaction only.
  [[nodiscard]] bool may_skip() const { return skip_to_sync_ || unsynced_ || (in_pipeline_ && size_ > 0); }
  [[nodiscard]] bool copying_in() const { return copy_in_; }
  [[nodiscard]] bool skipping() const { return skip_to_sync_; }
  /// A message was forwarded that has no reply but needs a Sync (Flush).
  void note_unsynced() { unsynced_ = true; }
  /// To be called now and then when nothing is owed: gives back the memory that a long pipeline took.
  void trim() {
    if (size_ == 0 && ring_.size() > kEntriesKept) release_memory();
  }
  void clear();
  /// All of it for another process; `table` as for ClientStatements::transfer.
  void transfer(StateArchive& archive, StatementTable& table);
  /// Calls `visit(const ReplyEntry&)` for each entry, oldest first.
  template <class Visit>
  void for_each(Visit visit) const {
    for (std::size_t i = 0; i < size_; ++i) visit(ring_[(head_ + i) & (ring_.size() - 1)]);
  }

 private:
  static bool ends_in_ready(ReplyKind kind) {
    return kind == ReplyKind::Query || kind == ReplyKind::Sync || kind == ReplyKind::FunctionCall ||
           kind == ReplyKind::HiddenQuery || kind == ReplyKind::HiddenSync;
  }
  void note_sync(ReplyKind kind) {
    if (kind == ReplyKind::CopyEnd) return;
    if (size_ == 0 && !unsynced_) in_pipeline_ = false;
    unsynced_ = !ends_in_ready(kind);
    if (unsynced_) {
      in_pipeline_ = true;
    } else if (kind == ReplyKind::Sync || kind == ReplyKind::HiddenSync) {
      in_pipeline_ = false;
    }
  }
  void push_special(ReplyKind kind);
  bool swallow(ReplyEntry& entry, const Skipped* skipped);
  [[nodiscard]] std::size_t size_slot() {
    if (size_ == ring_.size()) grow();
    return (head_ + size_) & (ring_.size() - 1);
  }
  ReplyEntry& nth(std::size_t n) { return ring_[(head_ + n) & (ring_.size() - 1)]; }
  void remove_nth(std::size_t n);
  void grow();
  void release_memory();
  static void empty_entry(ReplyEntry& entry);  // not inline: it is much code for a message that has something to drop

  static constexpr std::size_t kEntriesKept = 64;

  std::vector<ReplyEntry> ring_;  ///< size is a power of two, or zero before the first entry
  std::size_t head_ = 0;
  std::size_t size_ = 0;
  bool unsynced_ = false;
  bool in_pipeline_ = false;  ///< unsynced_, but for simple queries and function calls that came last
  bool skip_to_sync_ = false;
  bool copy_in_ = false;
  bool sync_ignored_ = false;  ///< a Sync was left out because of the COPY of the front entry
  bool uncertain_ = false;
};

}  // namespace pgweir::protocol
