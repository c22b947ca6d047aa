#include "proxy/io/stream.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <string>
#include <vector>

#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;

namespace {

std::string read_some(Stream& stream, std::size_t most = 4096) {
  std::string bytes(most, '\0');
  const IoResult result = stream.try_read(bytes.data(), bytes.size());
  REQUIRE(result.status == IoStatus::Ok);
  bytes.resize(result.bytes);
  return bytes;
}

IoResult read_result(Stream& stream) {
  char byte = 0;
  return stream.try_read(&byte, 1);
}

}  // namespace

TEST_CASE("plain stream: single and gathered writes, one-byte reads, would-block") {
  const auto [a, b] = socket_pair();
  Stream left(a);
  Stream right(b);
  CHECK(read_result(right).status == IoStatus::WouldBlock);
  REQUIRE(left.try_write("one").bytes == 3);
  std::array<iovec, 3> pieces{iovec{const_cast<char*>("two"), 3}, iovec{nullptr, 0}, iovec{const_cast<char*>("!"), 1}};
  const IoResult written = left.try_write(pieces.data(), 3);
  CHECK(written.status == IoStatus::Ok);
  CHECK(written.bytes == 4);
  std::string got;
  for (int i = 0; i < 7; ++i) got += read_some(right, 1);
  CHECK(got == "onetwo!");
  CHECK(read_result(right).status == IoStatus::WouldBlock);
  CHECK_FALSE(right.has_buffered_input());
  CHECK_FALSE(right.wants_write_for_read());
  CHECK_FALSE(right.is_tls());
}

TEST_CASE("plain stream: a full socket gives short writes and then would-block") {
  const auto [a, b] = socket_pair();
  Stream left(a);
  Stream right(b);
  const std::string chunk(100000, 'x');
  std::size_t sent = 0;
  IoResult result = left.try_write(chunk);
  while (result.status == IoStatus::Ok) {
    sent += result.bytes;
    result = left.try_write(chunk);
  }
  CHECK(result.status == IoStatus::WouldBlock);
  std::size_t received = 0;
  while (received < sent) received += read_some(right, 65536).size();
  CHECK(received == sent);
  CHECK(left.try_write("y").status == IoStatus::Ok);
}

TEST_CASE("plain stream: half-close leaves the other direction open") {
  const auto [a, b] = socket_pair();
  Stream left(a);
  Stream right(b);
  REQUIRE(left.try_write("last").status == IoStatus::Ok);
  left.shutdown_write();
  CHECK(read_some(right) == "last");
  CHECK(read_result(right).status == IoStatus::Eof);
  REQUIRE(right.try_write("answer").status == IoStatus::Ok);
  CHECK(read_some(left) == "answer");
}

TEST_CASE("plain stream: writing to a closed peer is an error and no signal") {
  std::signal(SIGPIPE, SIG_DFL);
  const auto [a, b] = socket_pair();
  Stream left(a);
  ::close(b);
  const IoResult single = left.try_write("x");
  CHECK(single.status == IoStatus::Error);
  CHECK(single.error == EPIPE);
  std::array<iovec, 2> pieces{iovec{const_cast<char*>("x"), 1}, iovec{const_cast<char*>("y"), 1}};
  CHECK(left.try_write(pieces.data(), 2).error == EPIPE);
}

TEST_CASE("plain stream: moves and detach leave exactly one owner") {
  const auto [a, b] = socket_pair();
  Stream first(a);
  Stream second(std::move(first));
  CHECK_FALSE(first.is_open());
  CHECK(second.fd() == a);
  Stream third;
  third = std::move(second);
  const int fd = third.detach_fd();
  CHECK(fd == a);
  CHECK_FALSE(third.is_open());
  third.close();
  CHECK(::fcntl(fd, F_GETFD) >= 0);
  { const Stream owner(fd); }
  CHECK(::fcntl(fd, F_GETFD) < 0);
  ::close(b);
}
