// Costs of single decisions, with allocations per operation: what a transaction is made of besides system calls.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>

#include "pool/pool_manager.hpp"
#include "protocol/auth_secret.hpp"
#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/prepared_statements.hpp"
#include "protocol/reply_ledger.hpp"
#include "protocol/session_parameters.hpp"
#include "proxy/io/openssl_crypto.hpp"
#include "router/catalog_knowledge.hpp"
#include "router/statement_cache.hpp"

namespace {
std::atomic<std::uint64_t> allocations{0};
}

// Not inlined: GCC would otherwise see malloc and free where it expects new and delete.
[[gnu::noinline]] void* operator new(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace {

using namespace pgweir;

/// Reports allocations per iteration of the benchmark it stands in.
class CountAllocations {
 public:
  explicit CountAllocations(benchmark::State& state) : state_(state), start_(allocations.load()) {}
  ~CountAllocations() {
    state_.counters["allocs/op"] =
        benchmark::Counter(static_cast<double>(allocations.load() - start_) /
                           static_cast<double>(std::max<std::int64_t>(1, state_.iterations())));
  }

 private:
  benchmark::State& state_;
  std::uint64_t start_;
};

void scan_rows(benchmark::State& state) {
  std::string rows;
  for (int i = 0; i < 1000; ++i) {
    const std::optional<std::string_view> value("some value of a row");
    protocol::append_data_row(rows, {&value, 1});
  }
  const CountAllocations count(state);
  for (auto _ : state) {
    std::size_t pos = 0;
    protocol::FrameHeader header;
    while (read_frame_header(std::string_view(rows).substr(pos), 1U << 30, header) == protocol::FrameStatus::Ok) {
      pos += header.total();
    }
    benchmark::DoNotOptimize(pos);
  }
  state.SetItemsProcessed(state.iterations() * 1000);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(rows.size()));
}
BENCHMARK(scan_rows);

void pool_acquire_release(benchmark::State& state) {
  pool::PoolManager pools({});
  pool::Actions actions;
  pool::TimePoint now{};
  pool::PoolSettings settings;
  const pool::PoolId id = pools.set_pool("db", "user", settings, now, actions);
  const pool::ClientId client = *pools.add_client(0);
  (void)pools.bind_client(client, "db", "user");
  pools.attach_client(client, id, now, actions);
  (void)pools.acquire(client, id, now, actions);
  const pool::ServerId server = actions.at(0).server;
  actions.clear();
  pools.server_ready(server, {}, now, actions);
  (void)pools.grant_taken(client, server);
  pools.release(server, pool::ReleaseKind::Clean, now, actions);
  actions.clear();
  const CountAllocations count(state);
  for (auto _ : state) {
    now += pool::Duration(1);
    const auto result = pools.acquire(client, id, now, actions);
    pools.release(result.server, pool::ReleaseKind::Clean, now, actions);
    benchmark::DoNotOptimize(actions.size());
  }
}
BENCHMARK(pool_acquire_release);

void ledger_pipeline(benchmark::State& state) {
  protocol::ReplyLedger ledger;
  for (int i = 0; i < 16; ++i) ledger.push(protocol::ReplyKind::Bind);
  while (!ledger.empty()) ledger.drop_front();
  const CountAllocations count(state);
  for (auto _ : state) {
    ledger.push(protocol::ReplyKind::Bind);
    ledger.push(protocol::ReplyKind::Describe);
    ledger.push(protocol::ReplyKind::Execute);
    ledger.push(protocol::ReplyKind::Sync);
    while (!ledger.empty()) ledger.drop_front();
  }
}
BENCHMARK(ledger_pipeline);

void parameters_equal(benchmark::State& state) {
  auto set = std::make_shared<protocol::ParameterSet>();
  set->values = {"ISO, MDY", "UTF8", "Europe/Berlin", "on", "application", "postgres"};
  protocol::SessionParameters client{set, nullptr};
  protocol::ServerParameters server;
  server.tracked = std::make_shared<protocol::ParameterSet>(*set);
  const CountAllocations count(state);
  for (auto _ : state) benchmark::DoNotOptimize(aligned(client, server));
}
BENCHMARK(parameters_equal);

void statement_lookup(benchmark::State& state) {
  protocol::StatementTable table({1, 2});
  protocol::ClientStatements names;
  protocol::ServerStatements on_server;
  for (int i = 0; i < 200; ++i) {
    const auto statement = table.intern("SELECT " + std::to_string(i), std::string_view("\0\0", 2));
    names.add("statement_" + std::to_string(i), statement);
    on_server.add(statement->key());
  }
  const CountAllocations count(state);
  for (auto _ : state) {
    const auto* found = names.find("statement_100");
    benchmark::DoNotOptimize(on_server.touch(found->statement->key()));
  }
}
BENCHMARK(statement_lookup);

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

void classify_hit(benchmark::State& state, std::string_view text) {
  const auto knowledge = some_catalogue();
  router::StatementCache cache({}, 1);
  if (cache.classify(text, knowledge.get()).cls != router::StatementClass::Read) state.SkipWithError("not a read");
  const CountAllocations count(state);
  for (auto _ : state) benchmark::DoNotOptimize(cache.classify(text, knowledge.get()));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK_CAPTURE(classify_hit, short, kShortQuery);
BENCHMARK_CAPTURE(classify_hit, long, kLongQuery);

void classify_miss(benchmark::State& state, std::string_view text) {
  const auto knowledge = some_catalogue();
  router::StatementCache cache({.entries = 0, .bytes = 0, .learned_max = 0}, 1);
  const CountAllocations count(state);
  for (auto _ : state) benchmark::DoNotOptimize(cache.classify(text, knowledge.get()));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK_CAPTURE(classify_miss, short, kShortQuery);
BENCHMARK_CAPTURE(classify_miss, long, kLongQuery);

void scram_derivation(benchmark::State& state) {
  io::OpensslCrypto crypto;
  for (auto _ : state) {
    benchmark::DoNotOptimize(protocol::make_scram_secret(crypto, "a password", 4096, "0123456789abcdef"));
  }
}
BENCHMARK(scram_derivation)->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
