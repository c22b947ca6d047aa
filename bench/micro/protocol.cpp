// The codec: framing, reply ledger, parameters, statement names, SCRAM.
#include <memory>
#include <optional>
#include <string>

#include "bench/micro/support.hpp"
#include "protocol/auth_scram.hpp"
#include "protocol/auth_secret.hpp"
#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/prepared_statements.hpp"
#include "protocol/reply_ledger.hpp"
#include "protocol/salted_password_cache.hpp"
#include "protocol/session_parameters.hpp"
#include "proxy/io/openssl_crypto.hpp"

namespace {

using namespace pgweir;
using bench::Count;

/// One operation is a message.
void scan_rows(benchmark::State& state) {
  constexpr int kRows = 1000;
  const std::string text(static_cast<std::size_t>(state.range(0)), 'x');
  std::string rows;
  for (int i = 0; i < kRows; ++i) {
    const std::optional<std::string_view> value(text);
    protocol::append_data_row(rows, {&value, 1});
  }
  std::size_t at = 0;
  const Count count(state, rows.size() / kRows);
  for (auto _ : state) {
    protocol::FrameHeader header;
    if (at == rows.size()) at = 0;
    if (read_frame_header(std::string_view(rows).substr(at), 1U << 30, header) != protocol::FrameStatus::Ok) {
      state.SkipWithError("not a message");
      break;
    }
    at += header.total();
    benchmark::DoNotOptimize(at);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(rows.size() / kRows));
}
BENCHMARK(scan_rows)->Arg(16)->Arg(1000);

/// Four replies that are owed, and come.
void ledger_pipeline(benchmark::State& state) {
  protocol::ReplyLedger ledger;
  for (int i = 0; i < 16; ++i) ledger.push(protocol::ReplyKind::Bind);
  while (!ledger.empty()) ledger.drop_front();
  const Count count(state, 0);
  for (auto _ : state) {
    ledger.push(protocol::ReplyKind::Bind);
    ledger.push(protocol::ReplyKind::Describe);
    ledger.push(protocol::ReplyKind::Execute);
    ledger.push(protocol::ReplyKind::Sync);
    while (!ledger.empty()) ledger.drop_front();
  }
}
BENCHMARK(ledger_pipeline);

std::shared_ptr<const protocol::ParameterSet> some_parameters(const char* application) {
  auto set = std::make_shared<protocol::ParameterSet>();
  set->values = {"ISO, MDY", "UTF8", "Europe/Berlin", "on", application};
  return set;
}

void parameters_same(benchmark::State& state) {
  const protocol::SessionParameters client{some_parameters("application"), nullptr};
  protocol::ServerParameters server;
  server.tracked = client.tracked;
  const Count count(state, 0);
  for (auto _ : state) benchmark::DoNotOptimize(aligned(client, server));
}
BENCHMARK(parameters_same);

void parameters_equal(benchmark::State& state) {
  const protocol::SessionParameters client{some_parameters("application"), nullptr};
  protocol::ServerParameters server;
  server.tracked = some_parameters("application");
  const Count count(state, 0);
  for (auto _ : state) benchmark::DoNotOptimize(aligned(client, server));
}
BENCHMARK(parameters_equal);

/// One differs: the SET that makes the server's the client's.
void parameters_differ(benchmark::State& state) {
  const protocol::TrackedNames names({});
  const protocol::SessionParameters client{some_parameters("application"), nullptr};
  protocol::ServerParameters server;
  server.tracked = some_parameters("another");
  const auto sql = alignment_sql(names, client, server);
  const Count count(state, sql ? sql->size() : 0);
  for (auto _ : state) benchmark::DoNotOptimize(alignment_sql(names, client, server));
}
BENCHMARK(parameters_differ);

void statement_lookup(benchmark::State& state) {
  protocol::StatementTable table({1, 2});
  protocol::ClientStatements names;
  protocol::ServerStatements on_server;
  for (int i = 0; i < 200; ++i) {
    const auto statement = table.intern("SELECT " + std::to_string(i), std::string_view("\0\0", 2));
    names.add("statement_" + std::to_string(i), statement);
    on_server.add(statement->key(), 0, {});
  }
  const Count count(state, 0);
  for (auto _ : state) {
    const auto* found = names.find("statement_100");
    benchmark::DoNotOptimize(on_server.touch(found->statement->key()));
  }
}
BENCHMARK(statement_lookup);

constexpr std::uint32_t kIterations = protocol::kScramDefaultIterations;
constexpr std::string_view kSalt = "0123456789abcdef";

/// What a password that is known as text costs once.
void scram_derivation(benchmark::State& state) {
  const io::OpensslCrypto crypto;
  const Count count(state, 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(protocol::make_scram_secret(crypto, "a password", kIterations, kSalt));
  }
}
BENCHMARK(scram_derivation)->Unit(benchmark::kMicrosecond);

/// ... and what it costs when it has been derived before.
void scram_derivation_cached(benchmark::State& state) {
  const io::OpensslCrypto crypto;
  protocol::SaltedPasswordCache cache;
  benchmark::DoNotOptimize(protocol::make_scram_secret(crypto, "a password", kIterations, kSalt, &cache));
  const Count count(state, 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(protocol::make_scram_secret(crypto, "a password", kIterations, kSalt, &cache));
  }
}
BENCHMARK(scram_derivation_cached)->Unit(benchmark::kMicrosecond);

/// Both sides of a whole exchange; the salted password is remembered.
void scram_exchange(benchmark::State& state) {
  io::OpensslCrypto crypto;
  protocol::SaltedPasswordCache cache;
  const auto secret = protocol::make_scram_secret(crypto, "a password", kIterations, kSalt, &cache);
  const auto exchange = [&] {
    protocol::ScramClient client(crypto, "a password", protocol::make_scram_nonce(crypto), {}, &cache);
    protocol::ScramServer server(crypto, secret, false, protocol::make_scram_nonce(crypto));
    const auto first = server.first(client.mechanism(), client.first());
    const auto answer = first ? client.answer(*first) : std::nullopt;
    return answer && client.verify(server.final(*answer).server_final);
  };
  if (!exchange()) state.SkipWithError("the exchange fails");
  const Count count(state, 0);
  for (auto _ : state) benchmark::DoNotOptimize(exchange());
}
BENCHMARK(scram_exchange)->Unit(benchmark::kMicrosecond);

}  // namespace
