// Patroni's answers: what is read from them, and whom the client asks.
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>
#include <optional>

#include "io_support.hpp"
#include "proxy/io/patroni_client.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;
using namespace std::chrono_literals;
using boost::asio::ip::tcp;

namespace {

// As Patroni 3.0 writes it, shortened.
const std::string kCluster = R"({"members": [
  {"name": "two", "role": "replica", "state": "running", "api_url": "http://127.0.0.1:8009/patroni", "host": "127.0.0.1",
   "port": 5433, "timeline": 4, "lag": 0},
  {"name": "one", "role": "leader", "state": "running", "api_url": "http://127.0.0.1:8008/patroni", "host": "127.0.0.1",
   "port": 5432, "timeline": 4}], "scope": "demo"})";

std::string refusal(const std::string& json) {
  const auto members = parse_patroni_cluster(json);
  return members ? "none" : members.error();
}

/// Answers each connection with the same text, and counts.
class FakePatroni {
 public:
  FakePatroni(boost::asio::io_context& context, std::string answer)
      : acceptor_(context, {boost::asio::ip::make_address("127.0.0.1"), 0}), answer_(std::move(answer)) {
    accept();
  }
  [[nodiscard]] int port() const { return acceptor_.local_endpoint().port(); }
  [[nodiscard]] pgweir::core::PatroniUrl url() const { return {false, "127.0.0.1", port(), ""}; }
  void set_answer(std::string answer) { answer_ = std::move(answer); }
  int asked = 0;
  std::string first_line;

 private:
  void accept() {
    acceptor_.async_accept([this](const auto& error, tcp::socket socket) {
      if (error) return;
      serve(std::make_shared<tcp::socket>(std::move(socket)));
      accept();
    });
  }
  void serve(const std::shared_ptr<tcp::socket>& socket) {
    const auto request = std::make_shared<boost::asio::streambuf>();
    boost::asio::async_read_until(
        *socket, *request, "\r\n\r\n", [this, socket, request](const auto& error, std::size_t) {
          if (error) return;
          ++asked;
          std::istream lines(request.get());
          std::getline(lines, first_line);
          const auto text = std::make_shared<std::string>(answer_);
          boost::asio::async_write(*socket, boost::asio::buffer(*text), [socket, text](const auto&, std::size_t) {});
        });
  }

  tcp::acceptor acceptor_;
  std::string answer_;
};

std::string ok(const std::string& body) {
  return "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

struct Rig {
  boost::asio::io_context context;
  std::vector<pgweir::core::PatroniMember> members;
  int heard = 0;
  PatroniClient client{context,
                       [this](const std::string&, const Resolver::Callback& reply) {
                         boost::asio::post(context, [reply] { reply({std::nullopt, "no such name"}); });
                       },
                       [this](const std::vector<pgweir::core::PatroniMember>& found) {
                         members = found;
                         ++heard;
                       }};

  void ask(std::vector<pgweir::core::PatroniUrl> urls, pgweir::pool::Duration timeout = 10s) {
    client.set(std::move(urls), {10ms, timeout}, TlsSettings{});
  }
};

}  // namespace

TEST_CASE("patroni: the members of the cluster, by name") {
  const auto members = parse_patroni_cluster(kCluster);
  REQUIRE(members.has_value());
  REQUIRE(members->size() == 2);
  CHECK(members->front() == pgweir::core::PatroniMember{"one", {"127.0.0.1", 5432}, "leader", "running"});
  CHECK(members->front().leads());
  CHECK_FALSE(members->back().leads());
}

TEST_CASE("patroni: members without an address are left out") {
  const auto members = parse_patroni_cluster(R"({"members": [{"name": "a"}, 7, {"host": "h", "port": "x"},
      {"host": "h", "port": 70000}, {"host": "h", "port": 1}]})");
  REQUIRE(members.has_value());
  REQUIRE(members->size() == 1);
  CHECK(members->front().host == pgweir::core::HostPort{"h", 1});
}

TEST_CASE("patroni: what is no answer is told") {
  CHECK(refusal("<html>").find("the answer is no JSON: ") == 0);
  CHECK(refusal("").find("the answer is no JSON: ") == 0);
  CHECK(refusal("[]") == "the answer has no list of members");
  CHECK(refusal("{\"members\": 1}") == "the answer has no list of members");
  CHECK(refusal(R"({"members": []})") == "none");
  CHECK(refusal(std::string(100000, '[')).find("the answer is no JSON: ") == 0);
}

TEST_CASE("patroni: it is asked again and again") {
  Rig rig;
  FakePatroni patroni(rig.context, ok(kCluster));
  rig.ask({patroni.url()});
  CHECK(run_until(rig.context, [&] { return rig.heard >= 3; }));
  CHECK(rig.members.size() == 2);
  CHECK(patroni.first_line == "GET /cluster HTTP/1.1\r");
  FakePatroni other(rig.context, ok(kCluster));
  rig.ask({other.url()});
  run_ready(rig.context);
  const int asked = patroni.asked;
  CHECK(run_until(rig.context, [&] { return other.asked >= 5; }));
  CHECK(patroni.asked == asked);
}

TEST_CASE("patroni: one that answers is enough") {
  Rig rig;
  FakePatroni broken(rig.context, "HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
  FakePatroni strange(rig.context, ok("no JSON"));
  FakePatroni good(rig.context, ok(kCluster));
  rig.ask({{false, "nowhere.example", 1, ""}, broken.url(), strange.url(), good.url()});
  CHECK(run_until(rig.context, [&] { return rig.heard >= 3; }));
  CHECK(broken.asked == 1);
  CHECK(strange.asked == 1);
}

TEST_CASE("patroni: one that is silent is given up") {
  Rig rig;
  FakePatroni silent(rig.context, "");
  FakePatroni good(rig.context, ok(kCluster));
  rig.ask({silent.url(), good.url()}, 50ms);
  CHECK(run_until(rig.context, [&] { return rig.heard >= 1; }));
  silent.set_answer(ok(kCluster));
  rig.ask({silent.url()});
  const int heard = rig.heard;
  CHECK(run_until(rig.context, [&] { return rig.heard > heard; }));
}

TEST_CASE("patroni: it may be destroyed in the middle of a question") {
  boost::asio::io_context context;
  FakePatroni silent(context, "");
  {
    PatroniClient client(
        context, [](const std::string&, const Resolver::Callback&) {},
        [](const std::vector<pgweir::core::PatroniMember>&) { FAIL("nobody listens any more"); });
    client.set({silent.url()}, {10ms, 10s}, TlsSettings{});
    CHECK(run_until(context, [&] { return silent.asked == 1; }));
  }
  run_ready(context);
}
