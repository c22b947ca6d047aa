// What is known of one database's catalogue, as far as it decides whether a statement is a read: which functions,
// operators, types and relations of a name exist and whether all of them are harmless. Schemas are left out on purpose:
// a name is as good as the worst object that bears it, whatever the search_path. Filled by a prober from kCatalogQuery.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pgweir::router {

class Classifier;

/// The query whose rows make the knowledge: kind, name, builtin, safe, attribute, definition. Runs on any host of the
/// database, PostgreSQL 12 and later, as a user who may read pg_catalog; takes some 50 ms. It should run again after
/// DDL and from time to time: an object created since is unknown (and not read from a standby), one that was replaced
/// under the same name is known as it was.
[[nodiscard]] std::string_view catalog_query();

/// One row of that query.
struct CatalogRow {
  std::string kind;        ///< function, operator, type, relation, implicit, isolation
  std::string name;        ///< without schema; of `isolation` a role, empty: all; of `implicit` it does not count
  bool builtin = false;    ///< all objects of this row lie in pg_catalog; `isolation`: given in this database only
  bool safe = false;       ///< none of them is volatile, unlogged, foreign, a sequence, …; not serializable
  bool attribute = false;  ///< function: may be called as row.name
  std::string definition;  ///< if there is one: safe only if this text, too, is a read (views, policies, checks)
};

class CatalogKnowledge {
 public:
  enum class Trust : std::uint8_t { Unknown, Safe, Unsafe };

  /// Of a function, two answers: one for pg_catalog's, whose exceptions are known, one for all others.
  struct FunctionTrust {
    Trust builtin = Trust::Unknown;
    Trust other = Trust::Unknown;
    bool attribute = false;  ///< an unsafe one may be called as row.name
  };

  /// Builds the knowledge from all rows of the query. Definitions are classified with the knowledge itself, views over
  /// views included. `generation` is the caller's count and must differ from that of any other knowledge a
  /// StatementCache has seen.
  [[nodiscard]] static std::shared_ptr<const CatalogKnowledge> build(const std::vector<CatalogRow>& rows,
                                                                     std::uint64_t generation, Classifier& classifier);

  [[nodiscard]] FunctionTrust function(std::string_view name) const;
  [[nodiscard]] bool operator_is_safe(std::string_view name) const { return trust(operators_, name) == Trust::Safe; }
  [[nodiscard]] Trust type(std::string_view name) const { return trust(types_, name); }
  [[nodiscard]] Trust relation(std::string_view name) const { return trust(relations_, name); }
  /// Whether default_transaction_isolation of a session of `role` is serializable by ALTER ROLE or ALTER DATABASE. What
  /// the configuration of the server says is not asked: it may differ by host.
  [[nodiscard]] bool serializable_by_default(std::string_view role) const;
  /// False if a cast, the input or output of a type, or an operator class calls a volatile function: then any
  /// expression may, and nothing is proven.
  [[nodiscard]] bool implicit_calls_are_safe() const { return implicit_safe_; }
  [[nodiscard]] std::uint64_t generation() const { return generation_; }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  template <class Value>
  using Names = std::unordered_map<std::string, Value, Hash, std::equal_to<>>;

  static Trust trust(const Names<Trust>& names, std::string_view name);
  void add(const CatalogRow& row);
  void prove_definitions(const std::vector<CatalogRow>& rows, Classifier& classifier);

  Names<FunctionTrust> functions_;
  Names<Trust> operators_;
  Names<Trust> types_;
  Names<Trust> relations_;
  Names<bool> isolation_here_, isolation_;  ///< by role, whether it is serializable: in this database, in all
  bool implicit_safe_ = false;
  std::uint64_t generation_ = 0;
};

}  // namespace pgweir::router
