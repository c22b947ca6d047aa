#include "proxy/io/patroni_client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <boost/json/parse.hpp>
#include <optional>
#include <utility>

#include "proxy/io/logger.hpp"
#include "proxy/io/socket_options.hpp"

namespace pgweir::io {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

/// A cluster has a handful of members.
constexpr std::uint64_t kBodyMax = 1U << 20U;
using Body = boost::system::result<std::string, std::string>;

std::string text_at(const boost::json::object& object, std::string_view key) {
  const boost::json::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_string()) return {};
  return std::string(value->get_string());
}

std::string url_text(const core::PatroniUrl& url) {
  const bool v6 = url.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}{}", url.tls ? "https" : "http", v6 ? "[" : "", url.host, v6 ? "]" : "", url.port,
                     url.path);
}

// A context of Asio's around one of ours, which keeps its own share of it.
boost::asio::ssl::context asio_context(const TlsContext& context) {
  ::SSL_CTX_up_ref(context.get());
  return boost::asio::ssl::context(context.get());
}

}  // namespace

boost::system::result<std::vector<core::PatroniMember>, std::string> parse_patroni_cluster(std::string_view json) {
  using Result = boost::system::result<std::vector<core::PatroniMember>, std::string>;
  error_code error;
  const boost::json::value value = boost::json::parse({json.data(), json.size()}, error);
  if (error) return Result(boost::system::in_place_error, "the answer is no JSON: " + error.message());
  const boost::json::object* cluster = value.if_object();
  const boost::json::value* list = cluster == nullptr ? nullptr : cluster->if_contains("members");
  if (list == nullptr || !list->is_array()) {
    return Result(boost::system::in_place_error, "the answer has no list of members");
  }
  std::vector<core::PatroniMember> members;
  for (const boost::json::value& item : list->get_array()) {
    const boost::json::object* object = item.if_object();
    if (object == nullptr) continue;
    core::PatroniMember member{
        text_at(*object, "name"), {text_at(*object, "host"), 0}, text_at(*object, "role"), text_at(*object, "state")};
    const boost::json::value* port = object->if_contains("port");
    if (port != nullptr) {
      error_code no_number;
      member.host.port = port->to_number<std::uint16_t>(no_number);
      if (no_number) member.host.port = 0;
    }
    if (!member.host.host.empty() && member.host.port != 0) members.push_back(std::move(member));
  }
  std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return members;
}

/// One GET /cluster until its answer; calls back exactly once, unless abandoned.
struct PatroniClient::Request : std::enable_shared_from_this<PatroniClient::Request> {
  using Done = std::function<void(Body)>;

  Request(boost::asio::io_context& context, core::PatroniUrl to, pool::Duration patience, Done callback)
      : url(std::move(to)), timeout(patience), done(std::move(callback)), plain(context) {
    parser.body_limit(kBodyMax);
  }

  core::PatroniUrl url;
  pool::Duration timeout;
  Done done;
  beast::tcp_stream plain;
  std::optional<boost::asio::ssl::context> tls;
  std::optional<beast::ssl_stream<beast::tcp_stream&>> secure;
  beast::flat_buffer buffer;
  http::request<http::empty_body> question;
  http::response_parser<http::string_body> parser;

  void start(const NameLookup& lookup, const TlsSettings& settings) {
    if (url.tls) {
      tls = asio_context(make_connector_context(settings));
      secure.emplace(plain, *tls);
      (void)::SSL_set1_host(secure->native_handle(), url.host.c_str());
      if (!is_numeric_address(url.host)) (void)::SSL_set_tlsext_host_name(secure->native_handle(), url.host.c_str());
    }
    if (is_numeric_address(url.host)) return connect(url.host);
    lookup(url.host, [self = shared_from_this()](const ResolvedName& name) {
      if (!name.address) return self->finish({boost::system::in_place_error, "DNS lookup failed: " + name.failure});
      self->connect(address_host(*name.address));
    });
  }

  void abandon() {
    done = nullptr;
    error_code ignored;
    plain.socket().close(ignored);
  }

  void connect(const std::string& address) {
    if (!done) return;
    plain.expires_after(timeout);
    const boost::asio::ip::tcp::endpoint endpoint(boost::asio::ip::make_address(address),
                                                  static_cast<std::uint16_t>(url.port));
    plain.async_connect(endpoint, [self = shared_from_this()](const error_code& error) {
      if (self->over(error)) return;
      if (!self->secure) return self->exchange(self->plain);
      self->secure->async_handshake(boost::asio::ssl::stream_base::client, [self](const error_code& failure) {
        if (!self->over(failure, self->certificate_problem())) self->exchange(*self->secure);
      });
    });
  }

  template <typename Stream>
  void exchange(Stream& stream) {
    question.method(http::verb::get);
    question.target(url.path + "/cluster");
    question.version(11);
    question.set(http::field::host, fmt::format("{}:{}", url.host, url.port));
    question.set(http::field::user_agent, "pgweir");
    question.set(http::field::connection, "close");
    http::async_write(stream, question, [self = shared_from_this(), &stream](const error_code& error, std::size_t) {
      if (self->over(error)) return;
      http::async_read(stream, self->buffer, self->parser, [self](const error_code& failure, std::size_t) {
        const bool cut = failure == boost::asio::ssl::error::stream_truncated && self->ends_with_stream();
        if (!self->over(cut ? error_code() : failure)) self->take_response();
      });
    });
  }

  // An answer without a length goes on to the end of the connection, which not every server announces in TLS. Whether
  // all of it is there the JSON tells.
  bool ends_with_stream() {
    if (!parser.is_header_done() || !parser.need_eof()) return false;
    error_code failure;
    parser.put_eof(failure);
    return !failure && parser.is_done();
  }

  void take_response() {
    if (parser.get().result() != http::status::ok) {
      return finish({boost::system::in_place_error, fmt::format("HTTP status {}", parser.get().result_int())});
    }
    finish({boost::system::in_place_value, std::move(parser.get().body())});
  }

  /// After a handshake; empty if its certificate is as it should be.
  std::string certificate_problem() {
    const long verified = ::SSL_get_verify_result(secure->native_handle());
    return verified == X509_V_OK ? std::string() : std::string(": ") + ::X509_verify_cert_error_string(verified);
  }

  bool over(const error_code& error, const std::string& details = {}) {
    if (!done) return true;
    if (!error) return false;
    const std::string text = error == beast::error::timeout ? "no answer in time" : error.message();
    finish({boost::system::in_place_error, text + details});
    return true;
  }

  void finish(Body body) {
    if (!done) return;
    const Done callback = std::exchange(done, nullptr);
    error_code ignored;
    plain.socket().close(ignored);
    callback(std::move(body));
  }
};

PatroniClient::PatroniClient(boost::asio::io_context& context, NameLookup lookup, Members members)
    : context_(context), lookup_(std::move(lookup)), members_(std::move(members)), timer_(context) {}

PatroniClient::~PatroniClient() {
  if (request_) request_->abandon();
}

void PatroniClient::set(std::vector<core::PatroniUrl> urls, HostProber::Timing timing, const TlsSettings& tls) {
  timing_ = timing;
  if (urls == urls_ && tls == tls_) return;
  urls_ = std::move(urls);
  tls_ = tls;
  current_ = failures_ = 0;
  failure_told_.clear();
  if (request_) std::exchange(request_, nullptr)->abandon();
  alive_.reset();
  timer_.cancel();
  if (!urls_.empty()) ask();
}

void PatroniClient::ask() {
  request_ = std::make_shared<Request>(context_, urls_[current_], timing_.timeout,
                                       [this](Body body) { answered(std::move(body)); });
  try {
    request_->start(lookup_, tls_);
  } catch (const std::exception& e) {  // the files of the TLS settings
    const std::string text = e.what();
    request_->finish({boost::system::in_place_error, text});
  }
}

void PatroniClient::answered(Body body) {
  request_.reset();
  boost::system::result<std::vector<core::PatroniMember>, std::string> members(boost::system::in_place_error,
                                                                               body ? std::string() : body.error());
  if (body) members = parse_patroni_cluster(*body);
  if (members) {
    if (!failure_told_.empty()) log().info("Patroni at {} answers", url_text(urls_[current_]));
    failure_told_.clear();
    failures_ = 0;
    members_(*members);
    return wait();
  }
  const std::string failure = fmt::format("Patroni at {}: {}", url_text(urls_[current_]), members.error());
  current_ = (current_ + 1) % urls_.size();
  if (++failures_ < urls_.size()) return ask();
  // One that answers is enough; that none does is told once.
  failures_ = 0;
  if (failure_told_.empty()) log().warning("{}", failure);
  failure_told_ = failure;
  wait();
}

void PatroniClient::wait() {
  alive_ = std::make_shared<char>();
  timer_.expires_after(timing_.interval);
  timer_.async_wait([this, alive = std::weak_ptr<char>(alive_)](const error_code& error) {
    if (!error && !alive.expired()) ask();
  });
}

}  // namespace pgweir::io
