// Routing: the class of a statement, known and new, and the choice of a host.
#include <array>
#include <string>
#include <vector>

#include "bench/micro/support.hpp"
#include "router/catalog_knowledge.hpp"
#include "router/router.hpp"
#include "router/statement_cache.hpp"

namespace {

using namespace pgweir;
using bench::Count;

constexpr std::string_view kShortQuery = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711";
constexpr std::string_view kLongQuery =
    "SELECT o.id, o.created, o.total, c.name, c.email FROM orders o JOIN customers c ON c.id = o.customer_id LEFT JOIN "
    "invoices i ON i.order_id = o.id WHERE o.state IN ('open', 'paid') AND o.total > 99.5 AND c.active AND i.id IS "
    "NULL "
    "ORDER BY o.created DESC LIMIT 50";

std::shared_ptr<const router::CatalogKnowledge> some_catalogue() {
  std::vector<router::CatalogRow> rows{{"implicit", "", false, true, false, ""}};
  for (const char* name : {"=", ">", "<"}) rows.push_back({"operator", name, true, true, false, ""});
  for (const char* name : {"pgbench_accounts", "orders", "customers", "invoices"}) {
    rows.push_back({"relation", name, false, true, false, ""});
  }
  router::Classifier classifier;
  return router::CatalogKnowledge::build(rows, 1, classifier);
}

void classify(benchmark::State& state, std::string_view text, const router::StatementCacheLimits& limits) {
  const auto knowledge = some_catalogue();
  router::StatementCache cache(limits, 1);
  if (cache.classify(text, knowledge.get()).cls != router::StatementClass::Read) state.SkipWithError("not a read");
  const Count count(state, text.size());
  for (auto _ : state) benchmark::DoNotOptimize(cache.classify(text, knowledge.get()));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}

void classify_hit(benchmark::State& state, std::string_view text) {
  classify(state, text, {});
}
BENCHMARK_CAPTURE(classify_hit, short, kShortQuery);
BENCHMARK_CAPTURE(classify_hit, long, kLongQuery);

void classify_miss(benchmark::State& state, std::string_view text) {
  classify(state, text, {.entries = 0, .bytes = 0, .learned_max = 0});
}
BENCHMARK_CAPTURE(classify_miss, short, kShortQuery);
BENCHMARK_CAPTURE(classify_miss, long, kLongQuery);

/// A read goes to one of two standbys, by their load; a write to the primary.
void route(benchmark::State& state, router::StatementClass cls) {
  router::HostTable table;
  for (const auto role : {router::HostRole::Primary, router::HostRole::Standby, router::HostRole::Standby}) {
    router::HostState host;
    host.role = role;
    host.health = router::HostHealth::Up;
    host.refusal = role == router::HostRole::Standby ? router::ReadRefusal::None : router::ReadRefusal::NoStandby;
    table.hosts.push_back(std::move(host));
  }
  table.primary = router::HostId{0};
  router::RouteRequest request;
  request.verdict.cls = cls;
  const router::RoutePolicy policy{.read_write_split = true};
  const std::array<std::uint32_t, 3> outstanding{5, 3, 4};
  std::uint64_t random = 1;
  const Count count(state, 0);
  for (auto _ : state) {
    random = random * 6364136223846793005U + 1442695040888963407U;
    benchmark::DoNotOptimize(decide(request, {}, table, policy, {}, outstanding, random));
  }
}
BENCHMARK_CAPTURE(route, read, router::StatementClass::Read);
BENCHMARK_CAPTURE(route, write, router::StatementClass::Write);

}  // namespace
