// Asks Patroni again and again who is in the cluster: GET /cluster of the first address in patroni_urls that answers.
// It says what it hears; it decides nothing by it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/result.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/core/patroni.hpp"
#include "proxy/io/host_prober.hpp"
#include "proxy/io/resolver.hpp"
#include "proxy/io/tls_context.hpp"

namespace pgweir::io {

/// Reads the JSON of GET /cluster: its members, sorted by name, or what is wrong with it. Members without an address
/// are left out.
[[nodiscard]] boost::system::result<std::vector<core::PatroniMember>, std::string> parse_patroni_cluster(
    std::string_view json);

/// All calls and callbacks on the thread of the io_context.
class PatroniClient {
 public:
  using Members = std::function<void(const std::vector<core::PatroniMember>& members)>;

  PatroniClient(boost::asio::io_context& context, NameLookup lookup, Members members);
  PatroniClient(const PatroniClient&) = delete;
  PatroniClient& operator=(const PatroniClient&) = delete;
  ~PatroniClient();

  /// Whom to ask from now on and how often; nobody if `urls` is empty. `tls`: for https.
  void set(std::vector<core::PatroniUrl> urls, HostProber::Timing timing, const TlsSettings& tls);

 private:
  struct Request;

  void ask();
  void answered(boost::system::result<std::string, std::string> body);
  void wait();

  boost::asio::io_context& context_;
  NameLookup lookup_;
  Members members_;
  boost::asio::steady_timer timer_;
  std::vector<core::PatroniUrl> urls_;
  HostProber::Timing timing_;
  TlsSettings tls_;
  std::size_t current_ = 0;  // of urls_
  std::shared_ptr<Request> request_;
  std::shared_ptr<char> alive_;  // what the timer has queued may outlive what it was for
  std::string failure_told_;
  std::size_t failures_ = 0;  // of different addresses in a row
};

}  // namespace pgweir::io
