// Clients that do a proxy harm, each alone on its connection until the time is up and what it has asked for has come:
// PgBouncer 1.18 gives the replies of one that leaves in the middle of a pipeline to others. They print how much they
// got done: that it is little is no fault, that others suffer would be.
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/client/loads.hpp"
#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"

namespace pgweir::bench {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPipelined = 100'000;
constexpr std::uint32_t kLongestRow = 1U << 30;

std::string query(std::string_view sql) {
  std::string message;
  protocol::append_query(message, sql);
  return message;
}

/// Counts ReadyForQuery in a stream of bytes of any length, without keeping them.
class Replies {
 public:
  void take(std::string_view bytes) {
    bytes_ += bytes.size();
    while (!bytes.empty()) {
      if (left_ > 0) {
        const std::size_t part = std::min(left_, bytes.size());
        left_ -= part;
        bytes.remove_prefix(part);
        continue;
      }
      const std::size_t missing = std::min(protocol::kHeaderSize - head_.size(), bytes.size());
      head_.append(bytes.substr(0, missing));
      bytes.remove_prefix(missing);
      protocol::FrameHeader header;
      const auto status = protocol::read_frame_header(head_, kLongestRow, header);
      if (status == protocol::FrameStatus::NeedMore) return;
      if (status == protocol::FrameStatus::BadLength) throw std::runtime_error("a message of a strange length");
      if (header.type == 'E') throw std::runtime_error("the proxy answers with an error");
      if (header.type == 'Z') ++ready_;
      left_ = header.body();
      head_.clear();
    }
  }
  [[nodiscard]] std::uint64_t ready() const { return ready_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  std::string head_;
  std::size_t left_ = 0;
  std::uint64_t ready_ = 0, bytes_ = 0;
};

/// A hostile client's connection, its time, and what it got.
class Run {
 public:
  explicit Run(const LoadOptions& options) : session_(options.target, shared_), seconds_(options.seconds) {
    session_.finish_login();
    session_.send_at_once();
    std::puts("ready");
    std::fflush(stdout);
    began_ = Clock::now();
  }

  [[nodiscard]] bool over() const { return Clock::now() - began_ >= std::chrono::duration<double>(seconds_); }
  [[nodiscard]] Session& session() { return session_; }
  [[nodiscard]] const Replies& replies() const { return replies_; }

  /// Reads at most `size` bytes of what is there; false if there is nothing.
  bool read(std::size_t size) {
    const std::size_t got = session_.receive(buffer_.data(), std::min(size, buffer_.size()));
    replies_.take({buffer_.data(), got});
    return got > 0;
  }
  void read_all() {
    while (read(buffer_.size())) {
    }
  }
  void wait_for_replies(std::uint64_t count) {
    while (replies_.ready() < count) {
      session_.wait_readable(100);
      read_all();
    }
  }
  void print() const {
    fmt::print("{{\"count\": {}, \"bytes\": {}, \"seconds\": {:.3f}}}\n", replies_.ready(), replies_.bytes(),
               std::chrono::duration<double>(Clock::now() - began_).count());
  }

 private:
  Shared shared_;
  Session session_;
  double seconds_;
  Clock::time_point began_{};
  std::vector<char> buffer_ = std::vector<char>(1 << 18);
  Replies replies_;
};

/// Asks for a result without an end and takes 1 kB of it every 10 ms.
void slow_reader(const LoadOptions& options) {
  Run run(options);
  run.session().send(query("SELECT repeat('x', 1000) FROM generate_series(1, 100000000)"));
  while (!run.over()) {
    if (!run.session().wait_readable(100)) continue;
    run.read(1000);
    // Slowness itself is what is measured here.
    const timespec pause{0, 10'000'000};
    ::nanosleep(&pause, nullptr);
  }
  run.print();
}

/// Every byte of its queries is a packet of its own.
void one_byte(const LoadOptions& options) {
  Run run(options);
  const std::string message = query("SELECT 'a query that is sent byte by byte'");
  std::uint64_t sent = 0;
  while (!run.over()) {
    for (const char& byte : message) run.session().send({&byte, 1});
    run.wait_for_replies(++sent);
  }
  run.print();
}

/// 100,000 tiny queries at once, and again as soon as they are answered.
void pipeline(const LoadOptions& options) {
  Run run(options);
  std::string all;
  for (int i = 0; i < kPipelined; ++i) all += query(";");
  std::uint64_t wanted = 0;
  while (!run.over()) {
    wanted += kPipelined;
    std::string_view rest = all;
    while (!rest.empty()) {
      rest.remove_prefix(run.session().send_some(rest));
      run.session().wait_readable(rest.empty() ? 0 : 1);
      run.read_all();
    }
    run.wait_for_replies(wanted);
  }
  run.print();
}

/// Results in which rows of 4 MB and of a few bytes take turns, read as fast as can be.
void rows(const LoadOptions& options) {
  Run run(options);
  const std::string message =
      query("SELECT CASE WHEN i % 2 = 0 THEN repeat('x', 4000000) ELSE 'y' END FROM generate_series(1, 20) AS i");
  std::uint64_t asked = 0;
  while (!run.over()) {
    run.session().send(message);
    run.wait_for_replies(++asked);
  }
  run.print();
}

}  // namespace

Hostile find_hostile(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, Hostile>, 4> kAll{
      {{"slow_reader", slow_reader}, {"one_byte", one_byte}, {"pipeline", pipeline}, {"rows", rows}}};
  for (const auto& [known, function] : kAll) {
    if (known == name) return function;
  }
  return nullptr;
}

}  // namespace pgweir::bench
