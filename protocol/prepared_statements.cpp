#include "protocol/prepared_statements.hpp"

#include <algorithm>
#include <utility>

#include "protocol/body_reader.hpp"

namespace pgweir::protocol {

namespace {
constexpr std::size_t kGenerationsMax = 10'000;
constexpr std::chrono::seconds kGenerationShared{1};
/// Longer than a Parse is under way, and than it takes until all workers know of a change of the schema.
constexpr std::chrono::seconds kRecent{1};

void append_hex(std::string& out, std::uint64_t value) {
  static constexpr char digits[] = "0123456789abcdef";
  for (int shift = 60; shift >= 0; shift -= 4) out.push_back(digits[(value >> shift) & 15]);
}
}  // namespace

std::uint64_t result_shape(ByteView row_description) {
  SipHash128 hash(HashKey{});
  if (!row_description.empty()) {
    BodyReader reader(row_description);
    for (std::uint16_t columns = reader.u16(); columns > 0 && reader.ok(); --columns) {
      const ByteView name = reader.string();
      hash.add_number(name.size());
      hash.add(name);
      static_cast<void>(reader.bytes(6));  // table and its column
      hash.add_number(reader.u32());       // type
      static_cast<void>(reader.u16());     // its size, which follows from it
      hash.add_number(reader.u32());       // modifier
      static_cast<void>(reader.u16());     // format
    }
    if (!reader.complete()) return 0;
    hash.add_number(1);  // no columns are not NoData
  }
  return std::max(hash.finish().low, kAnyShape + 1);
}

std::string statement_server_name(const Hash128& key) {
  std::string name = "PGWEIR_";
  name.reserve(39);
  append_hex(name, key.high);
  append_hex(name, key.low);
  return name;
}

Statement::Statement(StatementTable* table, const Hash128& base, const Hash128& key, const Source& source)
    : table_(table),
      base_(base),
      key_(key),
      reading_(source.reading),
      schema_(source.schema),
      server_name_(statement_server_name(key)),
      query_(source.query),
      parameter_types_(source.parameter_types) {}

Statement::~Statement() {
  if (table_ != nullptr) table_->forget(*this);
}

StatementTable::~StatementTable() {
  for (auto& [key, statement] : statements_) statement->table_ = nullptr;
}

Hash128 StatementTable::base_of(const Statement::Source& source) const {
  SipHash128 hash(hash_key_);
  hash.add_number(source.reading);
  hash.add_number(source.query.size());
  hash.add(source.query);
  hash.add(source.parameter_types);
  if (source.schema != 0) hash.add_number(source.schema);
  return hash.finish();
}

Hash128 StatementTable::key_of(const Hash128& base) const {
  if (generations_.empty()) return base;
  const auto it = generations_.find(base);
  if (it == generations_.end()) return base;
  SipHash128 next(hash_key_);
  next.add_number(base.low);
  next.add_number(base.high);
  next.add_number(static_cast<std::uint64_t>(it->second.count()));
  return next.finish();
}

StatementPtr StatementTable::intern(std::string_view query, std::string_view parameter_types, std::uint64_t reading,
                                    std::uint64_t schema) {
  const Statement::Source source{query, parameter_types, reading, schema};
  const Hash128 base = base_of(source);
  const Hash128 key = key_of(base);
  if (const auto it = statements_.find(key); it != statements_.end()) return StatementPtr(it->second);
  StatementPtr made(new Statement(this, base, key, source));
  statements_.emplace(key, made.get());
  return made;
}

void StatementTable::outdate(Statement& statement, std::chrono::microseconds now) {
  statement.outdated_ = true;
  statement.result = {};
  const auto it = generations_.find(statement.base());
  if (it != generations_.end()) {
    // Somebody else may have met the error before. What was made since then can be outdated as well by now, unless that
    // was a moment ago: when a table changes, all who use it come at once, and are to share what they prepare again.
    if (statement.key() != key_of(statement.base()) && now - it->second < kGenerationShared) return;
    it->second = std::max(now, it->second + std::chrono::microseconds(1));
    return;
  }
  if (generations_.size() >= kGenerationsMax) generations_.clear();
  generations_.emplace(statement.base(), now);
}

void StatementTable::forget(const Statement& statement) {
  statements_.erase(statement.key());
}

ClientStatements::Registration* ClientStatements::find(std::string_view name) {
  const auto it = names_.find(name);
  return it == names_.end() ? nullptr : &it->second;
}

std::uint64_t ClientStatements::add(std::string_view name, StatementPtr statement, std::uint32_t segment) {
  const std::uint64_t serial = next_serial_++;
  names_.emplace(std::string(name),
                 Registration{.statement = std::move(statement), .serial = serial, .segment = segment});
  return serial;
}

std::optional<ClientStatements::Registration> ClientStatements::remove(std::string_view name) {
  const auto it = names_.find(name);
  if (it == names_.end()) return std::nullopt;
  Registration registration = std::move(it->second);
  names_.erase(it);
  return registration;
}

const std::string* ClientStatements::name_of(std::uint64_t serial) const {
  for (const auto& [name, registration] : names_) {
    if (registration.serial == serial) return &name;
  }
  return nullptr;
}

void ClientStatements::undo_add(std::string_view name, std::uint64_t serial) {
  const auto it = names_.find(name);
  if (it != names_.end() && it->second.serial == serial) names_.erase(it);
}

void ClientStatements::undo_remove(std::string_view name, Registration registration) {
  // Its Parse came earlier and was not skipped, or this would not be the last word on it.
  registration.confirmed = true;
  names_.try_emplace(std::string(name), std::move(registration));
}

void ClientStatements::confirm(std::string_view name, std::uint64_t serial) {
  Registration* registration = find(name);
  if (registration != nullptr && registration->serial == serial) registration->confirmed = true;
}

void ClientStatements::clear_confirmed() {
  std::erase_if(names_, [](const auto& entry) { return entry.second.confirmed; });
}

const std::uint64_t* ServerStatements::touch(const Hash128& key) {
  const auto it = index_.find(key);
  if (it == index_.end()) return nullptr;
  order_.splice(order_.begin(), order_, it->second.order);
  return &it->second.shape;
}

void ServerStatements::add(const Hash128& key, std::uint64_t shape, std::chrono::microseconds now) {
  if (touch(key) != nullptr) return;
  order_.push_front(key);
  index_.emplace(key, Place{order_.begin(), shape});
  note_time(now);
  recent_.push_back(key);
}

std::optional<std::uint64_t> ServerStatements::describe(const Hash128& key, std::uint64_t shape) {
  const auto it = index_.find(key);
  if (it == index_.end()) return std::nullopt;
  it->second.described = true;
  return std::exchange(it->second.shape, shape);
}

void ServerStatements::doubt_recent(std::chrono::microseconds now) {
  note_time(now);
  for (std::vector<Hash128>* keys : {&recent_, &less_recent_}) {
    for (const Hash128& key : *keys) doubt(key);
    keys->clear();
  }
}

void ServerStatements::doubt(const Hash128& key) {
  const auto it = index_.find(key);
  if (it != index_.end() && !it->second.described) it->second.shape = kAnyShape;
}

void ServerStatements::note_time(std::chrono::microseconds now) {
  const std::chrono::microseconds passed = now - recent_since_;
  if (passed <= kRecent) return;
  less_recent_.swap(recent_);
  recent_.clear();
  if (passed > 2 * kRecent) less_recent_ = {};
  recent_since_ = now;
}

void ServerStatements::add_oldest(const Hash128& key, std::uint64_t shape) {
  if (index_.contains(key)) return;
  order_.push_back(key);
  index_.emplace(key, Place{std::prev(order_.end()), shape});
}

void ServerStatements::remove(const Hash128& key) {
  const auto it = index_.find(key);
  if (it == index_.end()) return;
  order_.erase(it->second.order);
  index_.erase(it);
}

std::optional<Hash128> ServerStatements::evict_over(std::size_t limit) {
  if (index_.size() <= limit) return std::nullopt;
  const Hash128 key = order_.back();
  order_.pop_back();
  index_.erase(key);
  return key;
}

void ServerStatements::clear() {
  recent_.clear();
  less_recent_.clear();
  order_.clear();
  index_.clear();
}

// ---- for another process ----

void StatementTable::transfer(StateArchive& archive, StatementPtr& statement) {
  bool there = statement != nullptr;
  archive(there);
  if (!there) return;
  Hash128 key;
  std::string query, types;
  std::string told_types;
  std::uint64_t reading = 0;
  if (!archive.reading()) {
    key = statement->key();
    query = statement->query();
    types = statement->parameter_types();
    reading = statement->reading();
    told_types = statement->told_types;
  }
  archive(key.low, key.high, query, types, told_types, reading);
  if (!archive.reading()) return;
  if (const auto it = statements_.find(key); it != statements_.end()) {
    statement = StatementPtr(it->second);
  } else {
    const Statement::Source source{query, types, reading};
    statement = StatementPtr(new Statement(this, base_of(source), key, source));
    statements_.emplace(key, statement.get());
  }
  if (statement->told_types.empty()) statement->told_types = std::move(told_types);
}

void ClientStatements::Registration::transfer(StateArchive& archive, StatementTable& table) {
  table.transfer(archive, statement);
  archive(serial, confirmed, shape);
  if (archive.reading() && statement == nullptr) serial = 0;
}

void ClientStatements::transfer(StateArchive& archive, StatementTable& table) {
  archive(next_serial_);
  const std::size_t size = archive.count(names_.size());
  if (!archive.reading()) {
    for (auto& [name, registration] : names_) {
      std::string copy = name;
      archive(copy);
      registration.transfer(archive, table);
    }
    return;
  }
  for (std::size_t i = 0; i < size && !archive.failed(); ++i) {
    std::string name;
    Registration registration;
    archive(name);
    registration.transfer(archive, table);
    if (registration.statement == nullptr) return archive.fail();
    names_.insert_or_assign(std::move(name), std::move(registration));
  }
}

void ServerStatements::transfer(StateArchive& archive) {
  const std::size_t size = archive.count(order_.size());
  if (!archive.reading()) {
    for (Hash128& key : order_) archive(key.low, key.high, index_.at(key).shape);
    return;
  }
  clear();
  for (std::size_t i = 0; i < size && !archive.failed(); ++i) {
    Hash128 key;
    std::uint64_t shape = 0;
    archive(key.low, key.high, shape);
    add_oldest(key, shape);
  }
}

}  // namespace pgweir::protocol
