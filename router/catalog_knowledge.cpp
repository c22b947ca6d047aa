#include "router/catalog_knowledge.hpp"

#include "router/statement_class.hpp"

namespace pgweir::router {

namespace {

using Trust = CatalogKnowledge::Trust;

// The worst of all objects of one name counts.
void worsen(Trust& trust, bool safe) {
  if (!safe) {
    trust = Trust::Unsafe;
  } else if (trust == Trust::Unknown) {
    trust = Trust::Safe;
  }
}

// 16384 is the first object id a user can get; what PostgreSQL ships with implicit calls is known to be harmless.
constexpr std::string_view kQuery = R"sql(
WITH RECURSIVE volatile_function AS MATERIALIZED (
  SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.provolatile = 'v' OR p.prokind = 'p' OR EXISTS (
    SELECT FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc part ON part.oid IN (a.aggtransfn, a.aggfinalfn,
        a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
    WHERE p.prokind = 'a' AND a.aggfnoid = p.oid AND part.provolatile = 'v')
), descendant(ancestor, oid) AS (
  SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits
  UNION SELECT d.ancestor, i.inhrelid FROM descendant d JOIN pg_catalog.pg_inherits i ON i.inhparent = d.oid
), elsewhere AS MATERIALIZED (
  SELECT oid FROM pg_catalog.pg_class WHERE relpersistence <> 'p' OR relkind NOT IN ('r', 'p', 'v', 'm', 't', 'i', 'I')
)
SELECT 'function' AS kind, p.proname::text AS name, p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AS builtin,
       pg_catalog.bool_and(p.oid NOT IN (SELECT oid FROM volatile_function)) AS safe,
       pg_catalog.bool_or(p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace
                          AND p.oid IN (SELECT oid FROM volatile_function)
                          AND p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1) AS attribute,
       NULL::text AS definition
  FROM pg_catalog.pg_proc p GROUP BY 2, 3
UNION ALL
SELECT 'operator', o.oprname::text, o.oprnamespace = 'pg_catalog'::pg_catalog.regnamespace,
       pg_catalog.bool_and(o.oprcode::oid NOT IN (SELECT oid FROM volatile_function)), false, NULL
  FROM pg_catalog.pg_operator o WHERE o.oprcode::oid <> 0 GROUP BY 2, 3
UNION ALL
SELECT 'type', t.typname::text, t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace, pg_catalog.bool_and(CASE t.typtype
         WHEN 'd' THEN (SELECT base.typtype NOT IN ('d', 'c') AND (base.oid < 16384 OR base.typelem = 0)
                        FROM pg_catalog.pg_type base WHERE base.oid = t.typbasetype)
         WHEN 'c' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type part ON part.oid = a.atttypid
                                   LEFT JOIN pg_catalog.pg_type item ON item.oid = part.typelem
                                   WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped AND t.oid >= 16384
                                     AND (part.typtype IN ('d', 'c') OR item.typtype IN ('d', 'c')))
         WHEN 'r' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_range r JOIN pg_catalog.pg_type part ON part.oid = r.rngsubtype
                                   WHERE r.rngtypid = t.oid AND part.typtype IN ('d', 'c'))
         WHEN 'm' THEN t.oid < 16384
         ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_type part WHERE part.oid = t.typelem AND part.typtype IN ('d', 'c')
                            AND part.oid >= 16384)
       END), false, NULL
  FROM pg_catalog.pg_type t GROUP BY 2, 3
UNION ALL
SELECT 'type', t.typname::text, false, true, false, 'SELECT ' || pg_catalog.pg_get_expr(c.conbin, 0)
  FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_type t ON t.oid = c.contypid
 WHERE c.conbin IS NOT NULL
UNION ALL
SELECT 'relation', c.relname::text, c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace,
       c.oid NOT IN (SELECT oid FROM elsewhere)
       AND NOT EXISTS (SELECT FROM descendant d WHERE d.ancestor = c.oid AND d.oid IN (SELECT oid FROM elsewhere)), false,
       CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) END
  FROM pg_catalog.pg_class c WHERE c.relkind NOT IN ('i', 'I', 'c')
UNION ALL
SELECT 'relation', c.relname::text, false, true, false, 'SELECT ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid)
  FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
 WHERE c.relrowsecurity AND p.polqual IS NOT NULL
UNION ALL
SELECT 'implicit', '', false, NOT EXISTS (
         SELECT castfunc FROM pg_catalog.pg_cast WHERE castfunc IN (SELECT oid FROM volatile_function)
         UNION ALL SELECT amproc::oid FROM pg_catalog.pg_amproc
          WHERE amproc::oid >= 16384 AND amproc::oid IN (SELECT oid FROM volatile_function)
         UNION ALL SELECT o.oprcode::oid FROM pg_catalog.pg_amop a JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr
          WHERE o.oprcode::oid IN (SELECT oid FROM volatile_function)
         UNION ALL SELECT t.oid FROM pg_catalog.pg_type t JOIN volatile_function v
            ON v.oid IN (t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout)
          WHERE v.oid >= 16384), false, NULL
UNION ALL
SELECT 'isolation', COALESCE(pg_catalog.pg_get_userbyid(NULLIF(s.setrole, 0))::text, ''), s.setdatabase <> 0,
       pg_catalog.lower(item) NOT LIKE '%=serializable', false, NULL
  FROM pg_catalog.pg_db_role_setting s, LATERAL pg_catalog.unnest(s.setconfig) AS item
 WHERE item LIKE 'default_transaction_isolation=%'
   AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
)sql";

}  // namespace

std::string_view catalog_query() {
  return kQuery;
}

Trust CatalogKnowledge::trust(const Names<Trust>& names, std::string_view name) {
  const auto found = names.find(name);
  return found == names.end() ? Trust::Unknown : found->second;
}

// In the order in which a session that begins asks: role in database, role, database, all.
bool CatalogKnowledge::serializable_by_default(std::string_view role) const {
  for (const std::string_view whose : {role, std::string_view()}) {
    for (const Names<bool>* settings : {&isolation_here_, &isolation_}) {
      if (const auto found = settings->find(whose); found != settings->end()) return found->second;
    }
  }
  return false;
}

CatalogKnowledge::FunctionTrust CatalogKnowledge::function(std::string_view name) const {
  const auto found = functions_.find(name);
  return found == functions_.end() ? FunctionTrust{} : found->second;
}

void CatalogKnowledge::add(const CatalogRow& row) {
  if (row.kind == "function") {
    FunctionTrust& trust = functions_[row.name];
    worsen(row.builtin ? trust.builtin : trust.other, row.safe);
    trust.attribute = trust.attribute || (row.attribute && !row.safe);
  } else if (row.kind == "operator") {
    worsen(operators_[row.name], row.safe);
  } else if (row.kind == "type") {
    worsen(types_[row.name], row.safe);
  } else if (row.kind == "relation") {
    worsen(relations_[row.name], row.safe);
  } else if (row.kind == "isolation") {
    (row.builtin ? isolation_here_ : isolation_)[row.name] = !row.safe;
  } else if (row.kind == "implicit") {
    implicit_safe_ = row.safe;
  }
}

// What has a definition is unsafe until the definition is proven a read; a proof may be what the next one needs, so
// this goes on until a round proves nothing new. A name counts as proven when all its definitions are.
void CatalogKnowledge::prove_definitions(const std::vector<CatalogRow>& rows, Classifier& classifier) {
  struct Open {
    std::size_t definitions = 0;
    bool hopeless = false;  // an object of the name is unsafe by itself
  };
  Names<Open> open_relations;
  Names<Open> open_types;
  std::vector<const CatalogRow*> unproven;
  for (const CatalogRow& row : rows) {
    if (row.definition.empty()) continue;
    const bool is_type = row.kind == "type";
    Trust& trust = is_type ? types_[row.name] : relations_[row.name];
    Open& open = (is_type ? open_types : open_relations)[row.name];
    if (open.definitions++ == 0) open.hopeless = trust == Trust::Unsafe;
    trust = Trust::Unsafe;
    if (!open.hopeless) unproven.push_back(&row);
  }
  for (bool progress = true; progress && !unproven.empty();) {
    progress = false;
    std::erase_if(unproven, [&](const CatalogRow* row) {
      if (classifier.classify(row->definition, this).cls != StatementClass::Read) return false;
      const bool is_type = row->kind == "type";
      Open& open = (is_type ? open_types : open_relations).find(row->name)->second;
      if (--open.definitions == 0) (is_type ? types_ : relations_)[row->name] = Trust::Safe;
      progress = true;
      return true;
    });
  }
}

std::shared_ptr<const CatalogKnowledge> CatalogKnowledge::build(const std::vector<CatalogRow>& rows,
                                                                std::uint64_t generation, Classifier& classifier) {
  auto knowledge = std::make_shared<CatalogKnowledge>();
  knowledge->generation_ = generation;
  for (const CatalogRow& row : rows) knowledge->add(row);
  knowledge->prove_definitions(rows, classifier);
  return knowledge;
}

}  // namespace pgweir::router
