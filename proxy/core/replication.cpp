#include "proxy/core/replication.hpp"

#include "protocol/session_parameters.hpp"

namespace pgweir::core {

namespace {

/// Whether `value` is `word` or its first letters, at least `least` of them.
bool abbreviates(std::string_view value, std::string_view word, std::size_t least) {
  return value.size() >= least && value.size() <= word.size() && word.substr(0, value.size()) == value;
}

}  // namespace

Replication parse_replication(std::string_view value) {
  if (value == "database") return Replication::Logical;
  const std::string word = protocol::to_lower(value);
  const bool yes = abbreviates(word, "true", 1) || abbreviates(word, "yes", 1) || word == "on" || word == "1";
  return yes ? Replication::Physical : Replication::None;
}

std::string_view replication_word(Replication kind) {
  switch (kind) {
    case Replication::Logical:
      return "database";
    case Replication::Physical:
      return "yes";
    case Replication::None:
      break;
  }
  return "no";
}

}  // namespace pgweir::core
