#include "protocol/reply_ledger.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace pgweir::protocol {

void ReplyLedger::grow() {
  std::vector<ReplyEntry> bigger(ring_.empty() ? 8 : ring_.size() * 2);
  for (std::size_t i = 0; i < size_; ++i) bigger[i] = std::move(nth(i));
  ring_ = std::move(bigger);
  head_ = 0;
}

void ReplyLedger::release_memory() {
  ring_ = std::vector<ReplyEntry>();
  head_ = 0;
}

// True if the entry does not get a place: the server skips or ignores its message.
bool ReplyLedger::swallow(ReplyEntry& entry, const Skipped* skipped) {
  if (copy_in_) {
    if (entry.kind == ReplyKind::Sync) {
      sync_ignored_ = true;
      return true;
    }
    if (entry.kind == ReplyKind::CopyEnd) {
      copy_in_ = false;
      return true;
    }
  }
  if (skip_to_sync_) {
    if (entry.kind == ReplyKind::Sync || entry.kind == ReplyKind::HiddenSync) {
      skip_to_sync_ = false;
      return false;
    }
    if (skipped != nullptr && *skipped) (*skipped)(entry);
    return true;
  }
  return false;
}

void ReplyLedger::push_special(ReplyKind kind) {
  ReplyEntry entry;
  entry.kind = kind;
  push(std::move(entry), {});
}

void ReplyLedger::push(ReplyEntry entry, const Skipped& skipped) {
  if (swallow(entry, &skipped)) return;
  note_sync(entry.kind);
  ring_[size_slot()] = std::move(entry);
  ++size_;
}

void ReplyLedger::empty_entry(ReplyEntry& entry) {
  entry.change.reset();
  entry.statement.reset();
}

ReplyEntry ReplyLedger::pop() {
  sync_ignored_ = false;
  ReplyEntry entry = std::move(ring_[head_]);
  empty_entry(ring_[head_]);
  head_ = (head_ + 1) & (ring_.size() - 1);
  --size_;
  return entry;
}

void ReplyLedger::remove_nth(std::size_t n) {
  for (std::size_t i = n; i + 1 < size_; ++i) nth(i) = std::move(nth(i + 1));
  empty_entry(nth(size_ - 1));
  --size_;
}

void ReplyLedger::fail(const Skipped& skipped) {
  copy_in_ = false;
  if (sync_ignored_) uncertain_ = true;
  if (size_ == 0 || ends_in_ready(front().kind)) return;
  std::size_t count = 0;
  while (count < size_ && nth(count).kind != ReplyKind::Sync && nth(count).kind != ReplyKind::HiddenSync) ++count;
  skip_to_sync_ = count == size_;
  if (skipped) {
    for (std::size_t i = count; i > 0; --i) skipped(nth(i - 1));
  }
  for (std::size_t i = 0; i < count; ++i) drop_front();
}

std::size_t ReplyLedger::begin_copy_in() {
  std::size_t ignored = 0;
  // Whatever was sent behind the COPY already is read by the server in copy mode: Syncs up to the end of the data are
  // ignored there and get no ReadyForQuery.
  copy_in_ = true;
  std::size_t i = 1;
  while (i < size_) {
    const ReplyKind kind = nth(i).kind;
    if (kind == ReplyKind::Sync) {
      remove_nth(i);
      sync_ignored_ = true;
      ++ignored;
    } else if (kind == ReplyKind::CopyEnd) {
      remove_nth(i);
      copy_in_ = false;
      break;
    } else {
      ++i;
    }
  }
  std::size_t last = size_;
  while (last > 1 && nth(last - 1).kind == ReplyKind::CopyEnd) --last;
  if (last > 0) unsynced_ = !ends_in_ready(nth(last - 1).kind);
  return ignored;
}

void ReplyLedger::clear() {
  while (size_ > 0) drop_front();
  unsynced_ = in_pipeline_ = skip_to_sync_ = copy_in_ = sync_ignored_ = uncertain_ = false;
}

// ---- for another process ----

namespace {

void transfer_change(StateArchive& archive, StatementChange& change, StatementTable& table) {
  archive(change.client_name, change.added_serial);
  change.removed.transfer(archive, table);
  archive(change.key.low, change.key.high, change.server_added, change.server_removed, change.sqlstate, change.error);
}

void transfer_entry(StateArchive& archive, ReplyEntry& entry, StatementTable& table) {
  bool changes = entry.change != nullptr;
  archive(entry.kind, entry.purpose, entry.quiet, entry.flushed, entry.unnamed_serial, entry.name_serial, changes);
  if (archive.reading()) {
    if (entry.kind > ReplyKind::Mistake) archive.fail();
    if (changes) entry.change = std::make_unique<StatementChange>();
  }
  if (changes) transfer_change(archive, *entry.change, table);
  table.transfer(archive, entry.statement);
}

}  // namespace

void ReplyLedger::transfer(StateArchive& archive, StatementTable& table) {
  const std::size_t size = archive.count(size_);
  if (archive.reading()) {
    ring_ = std::vector<ReplyEntry>(std::bit_ceil(std::max<std::size_t>(size, 8)));
    head_ = 0;
    size_ = size;
  }
  for (std::size_t i = 0; i < size; ++i) transfer_entry(archive, nth(i), table);
  archive(unsynced_, in_pipeline_, skip_to_sync_, copy_in_, sync_ignored_, uncertain_);
}

}  // namespace pgweir::protocol
