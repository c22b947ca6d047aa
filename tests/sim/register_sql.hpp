// The statements of the routed part of the simulated world: PostgreSQL's own grammar, since the proxy parses them, over
// one table `registers (k, v)`. Every value that is written is unique and begins with w (what a client relies on) or y
// (by functions that claim not to write); every request carries a mark that begins with c and comes back with its rows.
//
//   SELECT v, 'c…' FROM registers WHERE k = 7 [FOR UPDATE]       UPDATE registers SET v = 'w…' WHERE k = 7
//   SELECT peek(7), 'c…'     STABLE                              INSERT INTO registers VALUES (7, 'w…')
//   SELECT bump(7, 'w…'), 'c…'   VOLATILE                        WITH w AS (UPDATE … RETURNING v) SELECT v, 'c…' FROM w
//   SELECT fresh(7, 'w…'), 'c…'  not in the catalogue's rows     SELECT sneaky(7, 'y…'), 'c…'   STABLE, and writes
//   DECLARE name CURSOR FOR SELECT …       FETCH 1 FROM name     CREATE TABLE t… (k int) /* w… */   a write of register
//   200 COPY (SELECT v, 'c…', repeat('x', 900) FROM registers, generate_series(1, 8) WHERE k = 7) TO STDOUT COPY
//   registers FROM STDIN /* c… */     with lines "7 TAB w… TAB padding", or "bad", which fails
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "router/catalog_knowledge.hpp"
#include "tests/sim/pg_session.hpp"

namespace pgweir::sim {

/// The register that stands for the catalogue. Nobody reads it.
inline constexpr int kCatalogKey = 200;

struct RegisterStatement {
  enum class Kind { Query, Declare, Fetch, CopyOut, CopyIn, Definition };
  Kind kind = Kind::Query;
  int key = 0;
  std::string value;  ///< to write; empty: a read
  std::string mark;   ///< second column; empty: the statement returns nothing
  bool locks = false;
  bool runs_late = false;   ///< what it does to the database is seen only when it runs: a function
  std::string cursor;       ///< its name
  std::size_t rows = 1;     ///< of a COPY, all alike but ...
  std::size_t padding = 0;  ///< ... with so many bytes at the end of each

  [[nodiscard]] bool returns_rows() const { return (kind == Kind::Query && !mark.empty()) || kind == Kind::Fetch; }
};

[[nodiscard]] std::optional<RegisterStatement> parse_register_statement(const std::string& sql);

/// All marks and values in a message or text, in order. They look like c12.3 or w12.3.
[[nodiscard]] std::vector<std::string> find_marks(std::string_view text);

/// One line of COPY registers FROM STDIN.
struct RegisterLine {
  int key = 0;
  std::string value;
};
/// nullopt: it is not a line of that table.
[[nodiscard]] std::optional<RegisterLine> parse_register_line(std::string_view line);

/// What a prober would read from the catalogue.
[[nodiscard]] std::vector<router::CatalogRow> register_catalog();

[[nodiscard]] inline Failure read_only_failure(const RegisterStatement& statement) {
  return {"25006", "cannot execute it in a read-only transaction", false, statement.runs_late};
}

}  // namespace pgweir::sim
