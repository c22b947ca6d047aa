#include "tests/sim/schema.hpp"

namespace pgweir::sim {

void Schema::change(const std::string& table, std::size_t columns, int number) {
  Table& one = tables_[table];
  one.columns = columns;
  one.open[number] = ++one.changes;
}

// Those before it whose answers were lost are covered by it: to the proxy any change makes all uncertain.
void Schema::told(const std::string& table, int number, pool::TimePoint now) {
  Table& one = tables_[table];
  const std::uint64_t which = one.open.at(number);
  std::erase_if(one.open, [&](const auto& entry) {
    return entry.first == number || (entry.second < which && lost_.contains(entry.first));
  });
  one.certain_from = now + spread_;
}

}  // namespace pgweir::sim
