// What the workers have others find out: addresses of names, names of addresses, and whether a password is right.
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "proxy/core/ip_address.hpp"
#include "proxy/io/clock.hpp"
#include "proxy/io/logger.hpp"
#include "proxy/io/runtime.hpp"

namespace pgweir::io {

namespace {

/// Lookups of clients' host names at once; they are as many as there are logins that need one.
constexpr int kHostNamesAskedMax = 1000;
/// For passwords that are being checked when the process ends; nobody waits for the answers.
constexpr auto kLastChecksPatience = std::chrono::milliseconds(500);

sockaddr_storage as_sockaddr(const core::IpAddress& address) {
  sockaddr_storage result{};
  if (address.is_v6) {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(result);
    v6.sin6_family = AF_INET6;
    std::memcpy(&v6.sin6_addr, address.bytes.data(), sizeof v6.sin6_addr);
  } else {
    auto& v4 = reinterpret_cast<sockaddr_in&>(result);
    v4.sin_family = AF_INET;
    std::memcpy(&v4.sin_addr, address.bytes.data(), sizeof v4.sin_addr);
  }
  return result;
}

ResolverSettings resolver_settings(const core::Config& config) {
  return {config.dns_max_ttl, config.dns_nxdomain_ttl, config.dns_zone_check_period};
}

}  // namespace

// ---- names ----

void Runtime::start_resolver() {
  resolver_ = std::make_unique<Resolver>(workers_[0]->events(), resolver_settings(config()), config().resolv_conf);
  resolver_->on_addresses_changed([this](const std::string& name, const std::vector<sockaddr_storage>& addresses) {
    std::vector<std::string> texts;
    for (const sockaddr_storage& address : addresses) texts.push_back(address_host(address));
    log().info("{} has other addresses now: {}", name, fmt::join(texts, ", "));
    for (pool::WorkerId id = 0; id < worker_count_; ++id) {
      workers_[0]->post(id, [name, texts](core::WorkerCore& there) { there.addresses_changed(name, texts); });
    }
    monitor_->addresses_changed(name, texts);
  });
}

void Runtime::lookup(const std::string& name, PostBack post_back, Resolver::Callback reply) {
  workers_[0]->post_function([this, name, post_back = std::move(post_back), reply = std::move(reply)]() mutable {
    resolver_->lookup(name, [post_back = std::move(post_back), reply = std::move(reply)](ResolvedName answer) mutable {
      post_back([reply = std::move(reply), answer = std::move(answer)]() mutable { reply(std::move(answer)); });
    });
  });
}

bool Runtime::lookup_host_name(const std::string& address, std::function<void(std::string)> reply) {
  if (names_asked_.fetch_add(1, std::memory_order_relaxed) >= kHostNamesAskedMax) {
    names_asked_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  workers_[0]->post_function([this, address, reply = std::move(reply)]() mutable {
    const auto answer = [this, reply = std::move(reply)](std::string name) {
      names_asked_.fetch_sub(1, std::memory_order_relaxed);
      reply(std::move(name));
    };
    if (const auto parsed = core::IpAddress::parse(address)) {
      resolver_->lookup_name(as_sockaddr(*parsed), answer);
    } else {
      answer({});
    }
  });
  return true;
}

core::DnsReport Runtime::dns_report() const {
  core::DnsReport report;
  const pool::TimePoint now = monotonic_now();
  for (const Resolver::Host& host : resolver_->hosts()) {
    core::DnsHostRow row{host.name, std::chrono::duration_cast<std::chrono::seconds>(host.expires - now).count(), {}};
    for (const sockaddr_storage& address : host.addresses) row.addrs.push_back(address_host(address));
    report.hosts.push_back(std::move(row));
  }
  for (const Resolver::Zone& zone : resolver_->zones()) report.zones.push_back({zone.name, zone.serial, zone.names});
  report.queries = resolver_->queries();
  report.waiting = resolver_->waiting();
  return report;
}

// ---- passwords that others judge ----

void Runtime::start_password_checkers() {
  const auto deliver = [this](const PasswordChecker::Asker& asker, Judgement judgement) {
    workers_[asker.worker]->password_judged(asker.client, std::move(judgement));
  };
  // Modules of PAM are written for programs that ask one thing at a time: a buffer shared by two of them could let
  // somebody in as somebody else.
  pam_ = std::make_unique<PasswordChecker>(judge_password, deliver, PasswordChecker::Limits{.threads = 1});
  ldap_ = std::make_unique<PasswordChecker>(judge_password, deliver, PasswordChecker::Limits{.threads = 4});
  // The workers have their own work to do meanwhile.
  const std::size_t threads = std::max<std::size_t>(1, worker_count_ / 2U);
  key_deriver_ = std::make_unique<KeyDeriver>(
      [this](const KeyDeriver::Asker& asker, const protocol::Sha256Digest& key) {
        workers_[asker.worker]->key_derived(asker.number, key);
      },
      threads);
}

PasswordChecker& Runtime::password_checker(const core::PasswordQuestion& question) {
  return std::holds_alternative<core::PamQuestion>(question.by) ? *pam_ : *ldap_;
}

void Runtime::abandon_password(const PasswordChecker::Asker& asker) {
  pam_->abandon(asker);
  ldap_->abandon(asker);
}

bool Runtime::finish() {
  bool all_ended = true;
  for (const auto& checker : {pam_.get(), ldap_.get()}) {
    if (checker != nullptr && !checker->stop(kLastChecksPatience)) all_ended = false;
  }
  if (key_deriver_ && !key_deriver_->stop(kLastChecksPatience)) all_ended = false;
  return all_ended;
}

void Runtime::apply_to_resolver() {
  resolver_->set_settings(resolver_settings(config()));
}

}  // namespace pgweir::io
