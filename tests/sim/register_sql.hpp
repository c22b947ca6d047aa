// The statements of the routed part of the simulated world: PostgreSQL's own grammar, since the proxy parses them, over
// one table `registers (k, v)`. Every value that is written is unique and begins with w (what a client relies on) or y
// (by functions that claim not to write); every request carries a mark that begins with c and comes back with its rows.
//
//   SELECT v, 'c…' FROM registers WHERE k = 7 [FOR UPDATE]       UPDATE registers SET v = 'w…' WHERE k = 7
//   SELECT peek(7), 'c…'     STABLE                              INSERT INTO registers VALUES (7, 'w…')
//   SELECT bump(7, 'w…'), 'c…'   VOLATILE                        WITH w AS (UPDATE … RETURNING v) SELECT v, 'c…' FROM w
//   SELECT fresh(7, 'w…'), 'c…'  not in the catalogue's rows     SELECT sneaky(7, 'y…'), 'c…'   STABLE, and writes
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "router/catalog_knowledge.hpp"
#include "tests/sim/pg_session.hpp"

namespace pgweir::sim {

struct RegisterStatement {
  int key = 0;
  std::string value;  ///< to write; empty: a read
  std::string mark;   ///< second column; empty: the statement returns nothing
  bool locks = false;
  bool runs_late = false;  ///< what it does to the database is seen only when it runs: a function
};

[[nodiscard]] std::optional<RegisterStatement> parse_register_statement(const std::string& sql);

/// All marks and values in a message or text, in order. They look like c12.3 or w12.3.
[[nodiscard]] std::vector<std::string> find_marks(std::string_view text);

/// What a prober would read from the catalogue.
[[nodiscard]] std::vector<router::CatalogRow> register_catalog();

[[nodiscard]] inline Failure read_only_failure(const RegisterStatement& statement) {
  return {"25006", "cannot execute it in a read-only transaction", false, statement.runs_late};
}

/// A client's reference: it knows everything about a reply but what is read. Values that are read show as "?", unless
/// the transaction has written them.
class ReferenceData final : public Data {
 public:
  /// What one run of a request is to meet.
  struct Course {
    bool recovers = false;           ///< transactions that begin run on a standby
    std::map<int, Failure> fails{};  ///< statements by their number
  };
  void set_course(const Course& course) {
    course_ = course;
    statements_ = 0;
    committed_.clear();
  }
  [[nodiscard]] std::optional<std::size_t> columns(const std::string& sql) const override;
  bool begin() override {
    pending_.clear();
    return course_.recovers;
  }
  Result run(const std::string& sql, bool read_only) override;
  bool end(bool commit) override;

  /// Of this course: what the transactions that ended well have written, in order.
  [[nodiscard]] const std::vector<std::pair<int, std::string>>& committed() const { return committed_; }
  [[nodiscard]] int statements() const { return statements_; }

 private:
  Course course_;
  int statements_ = 0;
  std::vector<std::pair<int, std::string>> pending_, committed_;
};

}  // namespace pgweir::sim
