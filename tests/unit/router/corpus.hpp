// Reads the files of tests/corpus: statements with their right answers, and what a catalogue query said of the objects
// they name. Shared by the unit tests and the tool that the integration tests call.
#pragma once

#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "router/catalog_knowledge.hpp"
#include "router/statement_class.hpp"

namespace pgweir::test {

struct CorpusLine {
  std::string expected;
  std::string standby;
  std::string text;
  int number = 0;
};

inline std::string unescape(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      result.push_back(text[i]);
      continue;
    }
    const char next = text[++i];
    result.push_back(next == 'n' ? '\n' : next == 't' ? '\t' : next);
  }
  return result;
}

/// Lines `class standby text`; empty ones and those that begin with # are left out.
inline std::vector<CorpusLine> read_corpus(std::istream& in) {
  std::vector<CorpusLine> result;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty() || line.front() == '#') continue;
    const std::size_t first = line.find(' ');
    const std::size_t second = line.find(' ', first + 1);
    result.push_back({line.substr(0, first), line.substr(first + 1, second - first - 1),
                      unescape(std::string_view(line).substr(second + 1)), number});
  }
  return result;
}

/// Tab-separated rows of catalog_query(), flags as t and f; rows without definition may hold several names, separated
/// by spaces.
inline std::vector<router::CatalogRow> read_catalog(std::istream& in) {
  std::vector<router::CatalogRow> rows;
  std::string line;
  while (std::getline(in, line)) {
    std::vector<std::string> columns;
    std::stringstream parts(line);
    for (std::string part; std::getline(parts, part, '\t');) columns.push_back(part);
    if (columns.size() < 5) continue;
    columns.resize(6);
    router::CatalogRow row{columns[0],        columns[1],        columns[2] == "t",
                           columns[3] == "t", columns[4] == "t", unescape(columns[5])};
    if (!row.kind.ends_with('s')) {
      rows.push_back(row);
      continue;
    }
    row.kind.pop_back();
    std::stringstream names(columns[1]);
    for (std::string name; std::getline(names, name, ' ');) {
      row.name = name;
      rows.push_back(row);
    }
  }
  return rows;
}

/// A verdict in the words of the corpus.
inline std::string corpus_class(const router::Verdict& verdict) {
  using router::AccessMode;
  using router::TransactionKind;
  if (verdict.cls != router::StatementClass::TransactionControl) return std::string(class_name(verdict.cls));
  const std::string mode = verdict.mode == AccessMode::ReadOnly    ? "_read_only"
                           : verdict.mode == AccessMode::ReadWrite ? "_read_write"
                                                                   : "";
  switch (verdict.transaction) {
    case TransactionKind::Begin:
      return "begin" + mode;
    case TransactionKind::End:
      return "end";
    case TransactionKind::Savepoint:
      return "savepoint";
    case TransactionKind::SetTransaction:
      return "set_transaction" + mode;
    case TransactionKind::None:
      break;
  }
  return "?";
}

}  // namespace pgweir::test
