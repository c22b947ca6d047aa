#include <catch2/catch.hpp>

#include "router/sql_lexer.hpp"

using pgweir::router::find_statement_name;
using pgweir::router::may_name_statement;
using pgweir::router::skip_blank;
using Kind = pgweir::router::StatementNameUse::Kind;

namespace {
std::string found(std::string_view sql) {
  const auto use = find_statement_name(sql);
  if (!use) return "-";
  const std::string kind = use->kind == Kind::Execute ? "execute " : "deallocate ";
  return kind + use->name + " [" + std::string(sql.substr(use->offset, use->length)) + "]";
}
}  // namespace

TEST_CASE("the name in EXECUTE and DEALLOCATE is found") {
  CHECK(found("EXECUTE abc") == "execute abc [abc]");
  CHECK(found("execute Abc(1, 'x');") == "execute abc [Abc]");
  CHECK(found("  EXECUTE \"A\"\"b\" (1)") == "execute A\"b [\"A\"\"b\"]");
  CHECK(found("DEALLOCATE pdo_stmt_00000001") == "deallocate pdo_stmt_00000001 [pdo_stmt_00000001]");
  CHECK(found("deallocate prepare x ;") == "deallocate x [x]");
  CHECK(found("/* a /* nested */ comment */ -- and\n DEALLOCATE/**/x--end") == "deallocate x [x]");
}

TEST_CASE("a statement called prepare") {
  CHECK(found("DEALLOCATE prepare") == "deallocate prepare [prepare]");
  CHECK(found("DEALLOCATE PREPARE prepare") == "deallocate prepare [prepare]");
}

TEST_CASE("other texts name no statement") {
  for (const char* sql :
       {"", "   ", "SELECT 1", "DEALLOCATE ALL", "DEALLOCATE PREPARE ALL", "DEALLOCATE a; SELECT 1", "EXECUTE",
        "EXECUTE 1", "EXECUTE \"open", "/* open EXECUTE a", "\"execute\" a", "EXECUTEa", "explain execute a"}) {
    INFO(sql);
    CHECK(found(sql) == "-");
  }
}

TEST_CASE("the quick look never misses one") {
  CHECK(may_name_statement("EXECUTE a"));
  CHECK(may_name_statement("\n\tdeallocate a"));
  CHECK(may_name_statement("/* x */ execute a"));
  CHECK(may_name_statement("-- x\nexecute a"));
  CHECK_FALSE(may_name_statement("select 1"));
  CHECK_FALSE(may_name_statement(""));
}

TEST_CASE("blanks and comments are skipped") {
  CHECK(skip_blank(" \t\n-- c\r\n/*/* */*/x", 0) == 18);
  CHECK(skip_blank("x", 0) == 0);
  CHECK(skip_blank("-- only", 0) == 7);
}
