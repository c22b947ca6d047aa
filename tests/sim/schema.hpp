// Tables whose columns change while servers and clients have statements prepared that return them. Who changes one is
// told so by the proxy, which by then knows of it; until then, and for as long as messages that were sent before are
// under way, nobody can say which columns a statement that is parsed anew belongs to.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "pool/time.hpp"

namespace pgweir::sim {

class Schema {
 public:
  /// `spread`: after this all workers know of a change that somebody was told of, and nothing is under way any more.
  explicit Schema(pool::Duration spread) : spread_(spread) {}

  [[nodiscard]] std::size_t columns(const std::string& table) { return tables_[table].columns; }
  /// How often it has changed.
  [[nodiscard]] std::uint64_t changes(const std::string& table) { return tables_[table].changes; }
  /// What is parsed now is known to be parsed with these columns.
  [[nodiscard]] bool certain(const std::string& table, pool::TimePoint now) {
    const Table& one = tables_[table];
    return one.open.empty() && now >= one.certain_from;
  }

  /// A server makes the change with this number, which only one has.
  void change(const std::string& table, std::size_t columns, int number);
  /// Whoever wanted it has been told that it was made ...
  void told(const std::string& table, int number, pool::TimePoint now);
  /// ... or has lost the connection before.
  void lost(int number) { lost_.insert(number); }

 private:
  struct Table {
    std::size_t columns = 1;
    std::uint64_t changes = 0;
    std::map<int, std::uint64_t> open;  ///< changes that nobody was told of so far: which one each was
    pool::TimePoint certain_from{};
  };
  pool::Duration spread_;
  std::map<std::string, Table> tables_;
  std::set<int> lost_;
};

}  // namespace pgweir::sim
