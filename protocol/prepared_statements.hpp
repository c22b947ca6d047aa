// Names of prepared statements in transaction pooling: which statement a client means by a name, what it is called on
// the servers, and which of them a server connection has. Equal statements (text and parameter types, byte for byte)
// share one server-side name, so that a client's statement can be found, or made, on any server. The name is derived
// from a keyed hash of the statement, which needs no table shared between workers. Decides nothing about messages;
// see "Extended Query" in the protocol chapter for what Parse, Bind, Describe and Close mean.
//
// A text does not say everything: the server reads it by the settings that are in force when it is parsed (what
// '1/2/2020'::date is depends on DateStyle, what its bytes are on client_encoding). So statements that were parsed
// under different settings are different statements: `reading` is a number for those settings (settings_hash). What a
// text means depends on the schema too (which type a parameter has, what * stands for): `schema` is a number for the
// schema at the time of the client's Parse, as far as its changes are known. Whoever prepares the same text after one
// gets another statement, and does not meet what servers have kept of the old one. Who prepared before relies on what
// he was told of the result, which a server that is to parse the text anew need not give any more. So it is known of
// clients which result they were told of, and of servers which one they give (result_shape).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/smart_ptr/intrusive_ref_counter.hpp>

#include "protocol/siphash.hpp"
#include "protocol/state_archive.hpp"
#include "protocol/wire.hpp"

namespace pgweir::protocol {

class StatementTable;

/// One distinct statement known to a worker. Lives as long as a client of that worker has a name for it.
/// Worker only: the count is not atomic.
class Statement : public boost::intrusive_ref_counter<Statement, boost::thread_unsafe_counter> {
 public:
  struct Source {
    std::string_view query, parameter_types;
    std::uint64_t reading = 0;
    std::uint64_t schema = 0;
  };
  Statement(StatementTable* table, const Hash128& base, const Hash128& key, const Source& source);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  [[nodiscard]] const Hash128& key() const { return key_; }
  [[nodiscard]] const Hash128& base() const { return base_; }
  [[nodiscard]] const std::string& server_name() const { return server_name_; }
  [[nodiscard]] const std::string& query() const { return query_; }
  /// int16 count and the OIDs, as in the Parse message.
  [[nodiscard]] const std::string& parameter_types() const { return parameter_types_; }
  /// A number for the settings by which servers have read it.
  [[nodiscard]] std::uint64_t reading() const { return reading_; }
  /// A number for the schema that it was prepared with; 0: that of another process.
  [[nodiscard]] std::uint64_t schema() const { return schema_; }
  /// Those that its clients go by: once they have been told, they are not found out anew.
  [[nodiscard]] const std::string& known_types() const { return told_types.empty() ? parameter_types_ : told_types; }
  /// A server that parses it with this schema makes what its clients prepared, as far as is known.
  [[nodiscard]] bool is_fresh(std::uint64_t schema) const { return schema == schema_ && !outdated_; }

  /// Of its ParameterDescription, in the form of parameter_types(); empty: there was none so far.
  std::string told_types;
  /// The result that servers give which parse it with the schema of this number; 0: nothing is known.
  struct Result {
    std::uint64_t schema = 0, shape = 0;
  };
  Result result;

  /// What the layer above has found out about the text, as long as its `epoch` lasts; 0: nothing.
  struct Note {
    std::uint64_t epoch = 0;
    std::uint32_t value = 0;
  };
  Note note;

 private:
  friend class StatementTable;
  StatementTable* table_;
  Hash128 base_, key_;
  std::uint64_t reading_, schema_;
  bool outdated_ = false;
  std::string server_name_, query_, parameter_types_;
};

using StatementPtr = boost::intrusive_ptr<Statement>;

/// A number for a result, from the body of its RowDescription: the names and types of its columns, in their order, not
/// which tables they are from nor in which format they come. An empty body stands for NoData. 0: the body is malformed.
/// The same in every process.
[[nodiscard]] std::uint64_t result_shape(ByteView row_description);
/// Stands for the result of a server of which it is not known, and need not be what those expect who have been told.
inline constexpr std::uint64_t kAnyShape = 1;

/// What a statement with this key is called on every server.
[[nodiscard]] std::string statement_server_name(const Hash128& key);

/// All distinct statements of one worker.
class StatementTable {
 public:
  explicit StatementTable(const HashKey& key) : hash_key_(key) {}
  ~StatementTable();
  StatementTable(const StatementTable&) = delete;
  StatementTable& operator=(const StatementTable&) = delete;

  /// The statement for this text, made if it is new.
  [[nodiscard]] StatementPtr intern(std::string_view query, std::string_view parameter_types, std::uint64_t reading = 0,
                                    std::uint64_t schema = 0);

  /// PostgreSQL said "cached plan must not change result type" for it: whoever prepares this text from now on gets a
  /// server-side name that no server has; those who prepared it before keep seeing the error, as they would without a
  /// pooler, since they may have remembered the old row description. Drivers prepare again after such an error, and
  /// give up at a second one. `now` is that of the monotonic clock which all processes of the machine share.
  void outdate(Statement& statement, std::chrono::microseconds now);

  [[nodiscard]] std::size_t size() const { return statements_.size(); }

  /// A statement (or none) for another process: under the name that the servers know it by.
  void transfer(StateArchive& archive, StatementPtr& statement);

 private:
  friend class Statement;
  void forget(const Statement& statement);
  [[nodiscard]] Hash128 key_of(const Hash128& base) const;
  [[nodiscard]] Hash128 base_of(const Statement::Source& source) const;

  HashKey hash_key_;
  std::unordered_map<Hash128, Statement*, Hash128Hasher> statements_;
  /// When a text was outdated for the last time, which makes its names differ also from those that other workers, and
  /// the process before this one, gave it at other times. Only such texts are here; emptied when it grows beyond a
  /// bound, which costs no more than another error of that kind.
  std::unordered_map<Hash128, std::chrono::microseconds, Hash128Hasher> generations_;
};

/// The named statements of one client.
class ClientStatements {
 public:
  struct Registration {
    StatementPtr statement;
    std::uint64_t serial = 0;   ///< distinguishes this registration of the name from earlier and later ones
    bool confirmed = false;     ///< ParseComplete was seen
    std::uint32_t segment = 0;  ///< the part of the client's pipeline in which it was made
    std::uint64_t shape = 0;    ///< of the result that its client was told of; 0: of none
    void transfer(StateArchive& archive, StatementTable& table);
  };

  [[nodiscard]] Registration* find(std::string_view name);
  /// The name of this registration; null if it is gone. Looks at all of them: for errors.
  [[nodiscard]] const std::string* name_of(std::uint64_t serial) const;
  /// The name must be free. Returns the serial of the registration.
  std::uint64_t add(std::string_view name, StatementPtr statement, std::uint32_t segment = 0);
  /// Takes a registration back out of the map; nullopt if the name is unknown.
  [[nodiscard]] std::optional<Registration> remove(std::string_view name);
  /// Undoes add() if that registration is still the current one.
  void undo_add(std::string_view name, std::uint64_t serial);
  /// Undoes remove() unless the name has been taken again.
  void undo_remove(std::string_view name, Registration registration);
  void confirm(std::string_view name, std::uint64_t serial);
  /// DISCARD ALL or DEALLOCATE ALL ran: forgets all names but those whose Parse is still under way behind it.
  void clear_confirmed();
  [[nodiscard]] std::size_t size() const { return names_.size(); }
  /// All of it for another process; `table` is the one the statements are, or will be, in.
  void transfer(StateArchive& archive, StatementTable& table);

 private:
  struct NameHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const noexcept { return std::hash<std::string_view>{}(s); }
  };
  std::unordered_map<std::string, Registration, NameHash, std::equal_to<>> names_;
  std::uint64_t next_serial_ = 1;
};

/// The shared statements that one server connection has, least recently used first out. Travels with the connection
/// from worker to worker.
class ServerStatements {
 public:
  /// The shape of its result on this server (0: as for those who prepare it now), if the server has it; now it is the
  /// most recently used. Null: the server does not have it. Valid until something is added or removed.
  [[nodiscard]] const std::uint64_t* touch(const Hash128& key);
  /// `shape`: of its result, if it is not there yet. `now` is that of a monotonic clock.
  void add(const Hash128& key, std::uint64_t shape, std::chrono::microseconds now);
  /// The server has said what its result is. Returns the shape that was known before; nullopt: it does not have it.
  std::optional<std::uint64_t> describe(const Hash128& key, std::uint64_t shape);
  /// This one may have been parsed with another schema than was thought, unless it was described since.
  void doubt(const Hash128& key);
  /// The schema has changed, nobody knows just when: what was added of late, and not described since, may have been
  /// parsed with the new one.
  void doubt_recent(std::chrono::microseconds now);
  /// Puts back, as the first to go, what turned out not to have been closed.
  void add_oldest(const Hash128& key, std::uint64_t shape = kAnyShape);
  void remove(const Hash128& key);
  /// Removes and returns the least recently used one while more than `limit` are there.
  [[nodiscard]] std::optional<Hash128> evict_over(std::size_t limit);
  void clear();
  [[nodiscard]] std::size_t size() const { return index_.size(); }
  void transfer(StateArchive& archive);

 private:
  struct Place {
    std::list<Hash128>::iterator order;
    std::uint64_t shape;
    bool described = false;
  };
  void note_time(std::chrono::microseconds now);

  std::list<Hash128> order_;  ///< newest at the front
  std::unordered_map<Hash128, Place, Hash128Hasher> index_;
  std::vector<Hash128> recent_, less_recent_;  ///< added since, and not long before ...
  std::chrono::microseconds recent_since_{};   ///< ... this time
};

}  // namespace pgweir::protocol
