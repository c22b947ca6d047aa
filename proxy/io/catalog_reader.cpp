#include "proxy/io/catalog_reader.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <optional>
#include <stdexcept>

#include "proxy/io/logger.hpp"
#include "proxy/io/socket_options.hpp"

namespace pgweir::io {

namespace {

using std::chrono::steady_clock;
using Digest = std::array<unsigned char, 32>;

/// Changes come in flocks, and a migration goes on for a while.
constexpr std::chrono::milliseconds kSettle{200};
constexpr std::chrono::seconds kBetweenReads{1};
/// For what is changed without passing through this process.
constexpr std::chrono::minutes kEvery{5};
constexpr std::chrono::seconds kAfterFailure{5};
/// Of one reading as a whole; the query takes some 50 ms, and seconds with very many objects.
constexpr std::chrono::seconds kReadingMax{60};
constexpr std::size_t kRunningMax = 2;
/// Databases of the entry `*`, which clients name as they like.
constexpr std::size_t kJobsMax = 1000;
constexpr int kCatalogColumns = 6;

std::string_view value_at(const PGresult* rows, int row, int column) {
  return {::PQgetvalue(rows, row, column), static_cast<std::size_t>(::PQgetlength(rows, row, column))};
}

std::vector<router::CatalogRow> catalog_rows(const PGresult* rows) {
  std::vector<router::CatalogRow> result;
  const int count = ::PQntuples(rows);
  result.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    router::CatalogRow row;
    row.kind = value_at(rows, i, 0);
    row.name = value_at(rows, i, 1);
    row.builtin = value_at(rows, i, 2) == "t";
    row.safe = value_at(rows, i, 3) == "t";
    row.attribute = value_at(rows, i, 4) == "t";
    row.definition = value_at(rows, i, 5);
    result.push_back(std::move(row));
  }
  return result;
}

// What is not ordered by the query comes in any order, so this sees some differences that are none; never the reverse.
Digest digest_of(const PGresult* rows) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&::EVP_MD_CTX_free)> context(::EVP_MD_CTX_new(), &::EVP_MD_CTX_free);
  Digest digest{};
  bool ok = context && ::EVP_DigestInit_ex(context.get(), ::EVP_sha256(), nullptr) == 1;
  for (int row = 0; ok && row < ::PQntuples(rows); ++row) {
    for (int column = 0; ok && column < ::PQnfields(rows); ++column) {
      const std::string_view text = value_at(rows, row, column);
      ok = ::EVP_DigestUpdate(context.get(), text.data(), text.size()) == 1 &&
           ::EVP_DigestUpdate(context.get(), "", 1) == 1;
    }
  }
  if (!ok || ::EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) != 1) {
    throw std::runtime_error("SHA-256 is not available");
  }
  return digest;
}

bool is_up(const router::HostState& host) {
  return host.health == router::HostHealth::Up && host.role != router::HostRole::Unknown;
}

}  // namespace

/// One database of one group.
struct CatalogReader::Job {
  Job(boost::asio::io_context& context, Key own_key)
      : key(std::move(own_key)), connection(context), deadline(context) {}

  Key key;
  core::MonitorLogin login;
  bool permanent = true;  // in the configuration; else clients have asked for it
  LibpqConnection connection;
  boost::asio::steady_timer deadline;
  bool running = false;
  bool changed = true;  // since a reading from the primary began: it is to be asked, a standby may not know yet
  bool again = false;   // told so while a reading was under way
  steady_clock::time_point due{};
  steady_clock::time_point begun{};
  std::shared_ptr<char> round;  // what is left of an earlier reading finds it gone
  std::optional<Digest> digest;
  std::string failure_told;
};

CatalogReader::CatalogReader(Publish publish, LookupFrom lookup)
    : publish_(std::move(publish)),
      lookup_(std::move(lookup)),
      work_(boost::asio::make_work_guard(context_)),
      timer_(context_) {}

CatalogReader::~CatalogReader() {
  context_.stop();
  if (thread_.joinable()) thread_.join();
}

void CatalogReader::start() {
  thread_ = std::thread([this] { context_.run(); });
}

void CatalogReader::set_groups(Groups groups) {
  boost::asio::post(context_, [this, groups = std::move(groups)] { apply(groups); });
}

void CatalogReader::set_table(const std::string& group, std::shared_ptr<const router::HostTable> table) {
  boost::asio::post(context_, [this, group, table = std::move(table)] {
    tables_[group] = table;
    for (const auto& [key, job] : jobs_) {
      if (key.first == group && job->changed && table->primary)
        job->due = std::min(job->due, job->begun + kBetweenReads);
    }
    run_due();
  });
}

void CatalogReader::changed(const std::string& group, const std::string& dbname) {
  boost::asio::post(context_, [this, key = Key(group, dbname)] {
    auto found = jobs_.find(key);
    if (found == jobs_.end()) {
      const auto at = groups_.find(key.first);
      if (at == groups_.end() || !at->second.other_catalogs || jobs_.size() >= kJobsMax) return;
      make_job(key, *at->second.other_catalogs, false);
      found = jobs_.find(key);
    }
    Job& job = *found->second;
    job.changed = true;
    job.again = true;
    job.due = std::min(job.due, std::max(steady_clock::now() + kSettle, job.begun + kBetweenReads));
    run_due();
  });
}

// ---- what is to be read ----

void CatalogReader::apply(const Groups& groups) {
  groups_ = groups;
  std::erase_if(tables_, [this](const auto& one) { return !groups_.contains(one.first); });
  std::erase_if(jobs_, [this](const auto& one) {
    const auto& [key, job] = one;
    const auto group = groups_.find(key.first);
    const bool wanted = group != groups_.end() && (group->second.catalogs.contains(key.second) ||
                                                   (!job->permanent && group->second.other_catalogs));
    if (!wanted) {
      if (job->running) --running_;
      publish_(key.first, key.second, nullptr);
    }
    return !wanted;
  });
  for (const auto& [name, group] : groups_) {
    for (const auto& [dbname, login] : group.catalogs) make_job({name, dbname}, login, true);
  }
  run_due();
}

void CatalogReader::make_job(const Key& key, const core::MonitorLogin& login, bool permanent) {
  std::unique_ptr<Job>& job = jobs_[key];
  if (!job) job = std::make_unique<Job>(context_, key);
  job->permanent = permanent;
  core::MonitorLogin own = login;
  own.dbname = key.second;
  if (own == job->login) return;
  job->login = std::move(own);
  if (!job->digest) job->due = steady_clock::now();
}

// ---- when ----

void CatalogReader::run_due() {
  const auto now = steady_clock::now();
  for (const auto& [key, job] : jobs_) {
    if (running_ >= kRunningMax) return;  // whoever ends calls again
    if (job->running || job->due > now) continue;
    if (const auto host = choose_host(*job)) begin(*job, *host);
  }
  arm();
}

// Those for whom no host is up wait for the next table.
void CatalogReader::arm() {
  auto next = steady_clock::time_point::max();
  const auto now = steady_clock::now();
  for (const auto& [key, job] : jobs_) {
    if (!job->running && job->due > now) next = std::min(next, job->due);
  }
  if (next == steady_clock::time_point::max()) return;
  timer_.expires_at(next);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) run_due();
  });
}

// After a change the primary alone is sure to know it. Otherwise a standby has less to do.
std::optional<std::size_t> CatalogReader::choose_host(const Job& job) const {
  const auto found = tables_.find(job.key.first);
  if (found == tables_.end()) return std::nullopt;
  const router::HostTable& table = *found->second;
  const auto standby =
      std::find_if(table.hosts.begin(), table.hosts.end(), [](const auto& h) { return h.takes_reads(); });
  if (standby != table.hosts.end() && (!job.changed || !table.primary)) {
    return static_cast<std::size_t>(standby - table.hosts.begin());
  }
  if (table.primary) return static_cast<std::size_t>(*table.primary);
  const auto any = std::find_if(table.hosts.begin(), table.hosts.end(), is_up);
  if (any == table.hosts.end()) return std::nullopt;
  return static_cast<std::size_t>(any - table.hosts.begin());
}

// ---- one reading ----

void CatalogReader::begin(Job& job, std::size_t host_index) {
  const core::HostPort host = groups_.at(job.key.first).hosts.at(host_index);
  ++running_;
  job.running = true;
  job.again = false;
  // What is read elsewhere is read again as soon as there is a primary.
  const auto table = tables_.at(job.key.first);
  if (table->primary && static_cast<std::size_t>(*table->primary) == host_index) job.changed = false;
  job.begun = steady_clock::now();
  job.round = std::make_shared<char>();
  job.deadline.expires_after(kReadingMax);
  job.deadline.async_wait([this, &job, round = std::weak_ptr<char>(job.round)](const boost::system::error_code& error) {
    if (!error && !round.expired()) fail(job, "no answer within 60 s");
  });
  if (host.is_unix() || is_numeric_address(host.host))
    return connect(job, host, host.is_unix() ? std::string() : host.host);
  lookup_(host.host, context_, [this, &job, host, round = std::weak_ptr<char>(job.round)](const ResolvedName& name) {
    if (round.expired()) return;
    if (!name.address) return fail(job, "DNS lookup failed: " + name.failure);
    connect(job, host, address_host(*name.address));
  });
}

void CatalogReader::connect(Job& job, const core::HostPort& host, const std::string& address) {
  job.connection.open(host, address, job.login, [this, &job](const LibpqFailure* failure) {
    if (failure != nullptr) return fail(job, failure->text);
    job.connection.ask(std::string(router::catalog_query()),
                       [this, &job](const LibpqResult& rows, const LibpqFailure* refusal) {
                         if (refusal != nullptr) return fail(job, refusal->text);
                         take_rows(job, rows.get());
                       });
  });
}

void CatalogReader::take_rows(Job& job, const PGresult* rows) {
  if (::PQnfields(rows) != kCatalogColumns) return fail(job, "unexpected answer");
  const Digest digest = digest_of(rows);
  if (job.digest != digest) {
    auto knowledge = router::CatalogKnowledge::build(catalog_rows(rows), ++generation_, classifier_);
    publish_(job.key.first, job.key.second, std::move(knowledge));
    job.digest = digest;
  }
  if (!job.failure_told.empty()) {
    log().info("{}: the catalogue of database {} has been read", groups_.at(job.key.first).databases, job.key.second);
    job.failure_told.clear();
  }
  finish(job, kEvery);
}

// What was known stays known.
void CatalogReader::fail(Job& job, const std::string& text) {
  if (text != job.failure_told) {
    log().warning("{}: cannot read the catalogue of database {}: {}", groups_.at(job.key.first).databases,
                  job.key.second, text);
    job.failure_told = text;
  }
  job.changed = true;
  finish(job, kAfterFailure);
}

void CatalogReader::finish(Job& job, steady_clock::duration pause) {
  job.round.reset();
  job.deadline.cancel();
  job.connection.close();
  job.running = false;
  --running_;
  const auto now = steady_clock::now();
  job.due = job.again ? std::max(now + kSettle, job.begun + kBetweenReads) : now + pause;
  run_due();
}

}  // namespace pgweir::io
