#include "proxy/io/logger.hpp"

#include <algorithm>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/io/io_support.hpp"

using namespace pgweir::io;
using namespace pgweir::io::test;

namespace {

LogSettings to_file(const std::string& path, int verbosity = 0) {
  LogSettings settings;
  settings.to_stderr = false;
  settings.logfile = path;
  settings.verbosity = verbosity;
  return settings;
}

std::vector<std::string> lines_of(const std::string& path) {
  std::istringstream text(read_text(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

}  // namespace

TEST_CASE("logger: PgBouncer's line form") {
  const TempDir dir;
  Logger logger;
  logger.configure(to_file(dir.file("log"), 2));
  logger.fatal("a {}", 1);
  logger.error("b");
  logger.warning("c");
  logger.info("process up: {} {}", "x", 2);
  logger.debug("e");
  logger.noise("f");
  const auto lines = lines_of(dir.file("log"));
  REQUIRE(lines.size() == 6);
  const std::vector<std::string> tails{"FATAL a 1",           "ERROR b", "WARNING c",
                                       "LOG process up: x 2", "DEBUG e", "NOISE f"};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::regex form(R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [A-Za-z0-9+-]+ \[)" + std::to_string(::getpid()) +
                          R"(\] )" + tails[i]);
    INFO(lines[i]);
    CHECK(std::regex_match(lines[i], form));
  }
}

TEST_CASE("logger: verbosity") {
  const TempDir dir;
  Logger logger;
  logger.configure(to_file(dir.file("log")));
  CHECK(logger.enabled(LogLevel::Log));
  CHECK_FALSE(logger.enabled(LogLevel::Debug));
  logger.debug("hidden");
  logger.write(LogLevel::Noise, "hidden");
  CHECK(lines_of(dir.file("log")).empty());
  logger.configure(to_file(dir.file("log"), 1));
  CHECK(logger.enabled(LogLevel::Debug));
  CHECK_FALSE(logger.enabled(LogLevel::Noise));
  logger.configure(to_file(dir.file("log"), 9));
  CHECK(logger.enabled(LogLevel::Noise));
}

TEST_CASE("logger: newlines are indented and long lines cut") {
  const TempDir dir;
  Logger logger;
  logger.configure(to_file(dir.file("log")));
  logger.info("one\ntwo\n\nthree\n");
  CHECK(read_text(dir.file("log")).find("LOG one\n\ttwo\n\t\n\tthree\n\t\n") != std::string::npos);
  logger.configure(to_file(dir.file("long")));
  logger.write(LogLevel::Log, std::string(5000, 'x'));
  logger.write(LogLevel::Log, "next");
  const std::string text = read_text(dir.file("long"));
  CHECK(text.find('\n') == 2046);
  CHECK(text.find("LOG next\n") != std::string::npos);
}

TEST_CASE("logger: reopen after rotation; failures change nothing") {
  const TempDir dir;
  Logger logger;
  const std::string path = dir.file("log");
  logger.configure(to_file(path));
  logger.info("old");
  std::filesystem::rename(path, path + ".1");
  logger.info("still old");
  logger.configure(to_file(path));
  logger.info("new");
  CHECK(lines_of(path + ".1").size() == 2);
  REQUIRE(lines_of(path).size() == 1);
  CHECK_THROWS_AS(logger.configure(to_file(dir.file("missing/log"))), std::runtime_error);
  logger.info("after failure");
  CHECK(lines_of(path).size() == 2);
  logger.configure(to_file(""));
  logger.info("nowhere");
  CHECK(lines_of(path).size() == 2);
}

TEST_CASE("logger: lines of many threads stay whole, also while reopening") {
  constexpr int kThreads = 4;
  constexpr int kLines = 300;
  const TempDir dir;
  Logger logger;
  logger.configure(to_file(dir.file("log")));
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&logger, t] {
      for (int i = 0; i < kLines; ++i) logger.info("{} {}", t, std::string(100, static_cast<char>('a' + t)));
    });
  }
  for (int i = 0; i < 20; ++i) logger.configure(to_file(dir.file("log")));
  for (auto& thread : threads) thread.join();
  const auto lines = lines_of(dir.file("log"));
  CHECK(lines.size() == kThreads * kLines);
  CHECK(std::all_of(lines.begin(), lines.end(), [](const std::string& line) {
    return line.size() > 100 && line.substr(line.size() - 100) == std::string(100, line.back());
  }));
}

TEST_CASE("logger: errno survives, the global one is one") {
  const TempDir dir;
  Logger logger;
  logger.configure(to_file(dir.file("log")));
  errno = EPIPE;
  logger.info("x");
  CHECK(errno == EPIPE);
  CHECK(&pgweir::io::log() == &pgweir::io::log());
}
