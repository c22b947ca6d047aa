#include <catch2/catch.hpp>

#include "router/sql_lexer.hpp"

using pgweir::router::changes_schema;
using pgweir::router::find_parameter_changes;
using pgweir::router::find_statement_name;
using pgweir::router::may_change_parameters;
using pgweir::router::may_change_schema;
using pgweir::router::may_clear_statements;
using pgweir::router::may_concern_session;
using pgweir::router::may_name_statement;
using pgweir::router::skip_blank;
using Kind = pgweir::router::StatementNameUse::Kind;

namespace {
std::string found(std::string_view sql) {
  const auto use = find_statement_name(sql);
  if (!use) return "-";
  const std::string kind = use->kind == Kind::Execute ? "execute " : "deallocate ";
  return kind + use->name + " [" + std::string(sql.substr(use->offset, use->length)) + "]" +
         (use->alone ? "" : " among others");
}

/// As "reset timezone, set a", and whether the quick look agrees.
std::string changes(std::string_view sql) {
  using pgweir::router::ParameterChange;
  std::string text;
  for (const ParameterChange& change : find_parameter_changes(sql)) {
    if (!text.empty()) text += ", ";
    text += (change.kind == ParameterChange::Kind::Reset ? "reset " : "set ") + change.name;
  }
  if (!text.empty() && !may_change_parameters(sql)) return "overlooked: " + text;
  return text;
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

TEST_CASE("a name among other statements") {
  CHECK(found("SAVEPOINT _per_query_svp_;DEALLOCATE \"_PLAN0x7f\";RELEASE _per_query_svp_") ==
        "deallocate _PLAN0x7f [\"_PLAN0x7f\"] among others");
  CHECK(found("BEGIN;savepoint s ; EXECUTE a(1)") == "execute a [a] among others");
  CHECK(found("DEALLOCATE a; SELECT 1") == "deallocate a [a] among others");
}

TEST_CASE("what takes all prepared statements away") {
  for (const char* sql : {"DISCARD ALL", " discard plans", "/* x */ Deallocate all", "-- x\nDISCARD ALL"}) {
    INFO(sql);
    CHECK(may_clear_statements(sql));
  }
  for (const char* sql : {"", "SELECT 1", "DELETE FROM discard", "\"discard\" all", "DISCARDED", "DO 'DISCARD ALL'"}) {
    INFO(sql);
    CHECK_FALSE(may_clear_statements(sql));
  }
}

TEST_CASE("what may change the schema") {
  for (const char* text :
       {"ALTER TABLE t ADD c int", " create table t ()", "/* c */ drop view v", "-- c\nDROP TABLE t"}) {
    CAPTURE(text);
    CHECK(may_change_schema(text));
    CHECK(changes_schema(text));
  }
  for (const char* text : {"", "  ", "select 1", "commit", "copy t to stdout", "deallocate q", "do $$ $$", "alt",
                           "\"alter\"", "/* drop */ select 1", "call f()"}) {
    CAPTURE(text);
    CHECK_FALSE(may_change_schema(text));
  }
  CHECK(may_concern_session("alter table t"));
  CHECK(may_concern_session("create table t"));
  CHECK_FALSE(may_concern_session("commit"));
}

TEST_CASE("what RESET and SET are about") {
  CHECK(changes("RESET ALL") == "reset all");
  CHECK(changes(" reset /* x */ TimeZone;") == "reset timezone");
  CHECK(changes("RESET TIME ZONE") == "reset timezone");
  CHECK(changes("RESET \"DateStyle\"") == "reset DateStyle");
  CHECK(changes("RESET time") == "reset time");
  CHECK(changes("SET x TO DEFAULT") == "reset x");
  CHECK(changes("set session X=default") == "reset x");
  CHECK(changes("SET x = 'default'") == "set x");
  CHECK(changes("SET SESSION x TO \"default\"") == "set x");
  CHECK(changes("SET TIME ZONE LOCAL") == "reset timezone");
  CHECK(changes("SET TIME ZONE DEFAULT") == "reset timezone");
  CHECK(changes("SET TIME ZONE 'UTC'") == "set timezone");
  CHECK(changes("SET TimeZone TO local") == "set timezone");
  CHECK(changes("SET NAMES") == "reset client_encoding");
  CHECK(changes("SET NAMES ;") == "reset client_encoding");
  CHECK(changes("SET NAMES DEFAULT") == "reset client_encoding");
  CHECK(changes("SET NAMES 'LATIN1'") == "set client_encoding");
  for (const char* sql :
       {"", ";", "RESET", "\"reset\" all", "SET", "SET LOCAL x TO DEFAULT", "SET ROLE none", "SET x", "RESETx",
        "SET SESSION AUTHORIZATION DEFAULT", "SET TRANSACTION READ ONLY", "SELECT 1", "UPDATE t SET x = DEFAULT"}) {
    INFO(sql);
    CHECK(changes(sql).empty());
  }
}

TEST_CASE("RESET and SET among other statements") {
  CHECK(changes("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;") == "reset all");
  CHECK(changes("RESET a; SELECT 1; set b = 1;;RESET c") == "reset a, set b, reset c");
  CHECK(changes("/* ; */ RESET a -- ;\n; RESET b") == "reset a, reset b");
  CHECK(changes("SELECT ';RESET a', \";RESET b\", $$;RESET c$$, $x$;RESET $$ d$x$; RESET e") == "reset e");
  CHECK(changes("SELECT E'\\';RESET a', e'\\\\'; RESET b") == "reset b");
  CHECK(changes("SELECT 'it''s;RESET a'; RESET b") == "reset b");
  CHECK(changes("SELECT name'\\'; RESET b") == "reset b");
  CHECK(changes("SELECT $1, a$b$; RESET c; SELECT $b$") == "reset c");
  for (const char* sql : {"SELECT 1; SELECT 'RESET a", "SELECT $$; RESET a", "SELECT 1; /* RESET a", "SELECT E'\\"}) {
    INFO(sql);
    CHECK(changes(sql).empty());
  }
  CHECK_FALSE(may_change_parameters("SELECT 1; \n;"));
  CHECK_FALSE(may_change_parameters("select 1"));
  CHECK_FALSE(may_change_parameters(""));
}

TEST_CASE("other texts name no statement") {
  for (const char* sql :
       {"", "   ", "SELECT 1", "DEALLOCATE ALL", "DEALLOCATE PREPARE ALL", "SELECT 1; DEALLOCATE a", "EXECUTE",
        "SAVEPOINT a; SELECT 1; EXECUTE a", "SAVEPOINT \"a;EXECUTE b\"", "DEALLOCATE a SELECT", "BEGIN", "EXECUTE 1",
        "EXECUTE \"open", "/* open EXECUTE a", "\"execute\" a", "EXECUTEa", "explain execute a"}) {
    INFO(sql);
    CHECK(found(sql) == "-");
  }
}

TEST_CASE("the quick look never misses one") {
  CHECK(may_name_statement("EXECUTE a"));
  CHECK(may_name_statement("\n\tdeallocate a"));
  CHECK(may_name_statement("/* x */ execute a"));
  CHECK(may_name_statement("-- x\nexecute a"));
  CHECK(may_name_statement("begin; execute a"));
  CHECK(may_name_statement("savepoint s; execute a"));
  CHECK_FALSE(may_name_statement("select 1"));
  CHECK_FALSE(may_name_statement(""));
}

TEST_CASE("what the first letters rule out is found by nothing else") {
  const auto found_by_any = [](std::string_view sql) {
    return may_name_statement(sql) || may_clear_statements(sql) || find_statement_name(sql);
  };
  for (const char* sql : {"EXECUTE a", "deallocate a", " \n\tDISCARD ALL", "/* x */ execute a", "-- x\nexecute a",
                          "begin; execute a", "Savepoint s; execute a", "\v\f\rdiscard all"}) {
    INFO(sql);
    CHECK(found_by_any(sql));
    CHECK(may_concern_session(sql));
  }
  for (const char* sql :
       {"select 1", "SELECT 1", "insert into d values (1)", "UPDATE e SET d = 1", "with x as (select 1) table x",
        "commit", "set a = 1", "", "  ", "s", "(select 1)", "values (1)"}) {
    INFO(sql);
    CHECK_FALSE(may_concern_session(sql));
  }
  // Every beginning of three bytes, as it is and with something behind it.
  for (const char* rest : {"", "a", "ecute a", "allocate a", "scard all", "set a"}) {
    std::string sql = "   " + std::string(rest);
    for (unsigned first = 0; first < 256; ++first) {
      for (unsigned second = 0; second < 256; ++second) {
        sql[1] = static_cast<char>(first);
        sql[2] = static_cast<char>(second);
        if (!may_concern_session(sql) && found_by_any(sql)) FAIL(sql);
      }
    }
  }
}

TEST_CASE("blanks and comments are skipped") {
  CHECK(skip_blank(" \t\n-- c\r\n/*/* */*/x", 0) == 18);
  CHECK(skip_blank("x", 0) == 0);
  CHECK(skip_blank("-- only", 0) == 7);
}
