#include "proxy/io/password_checker.hpp"

#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/io/io_support.hpp"

using namespace pgweir;
using namespace pgweir::io;
using namespace pgweir::io::test;
using namespace std::chrono_literals;

namespace {

core::PasswordQuestion question(const std::string& user) {
  core::PasswordQuestion result;
  result.user = user;
  result.password = "pw";
  return result;
}

PasswordChecker::Asker asker(std::uint32_t index, pool::WorkerId worker = 0) {
  return {worker, pool::ClientId{index, 1}};
}

/// A judge that keeps everyone waiting until it is told otherwise, and what was delivered.
struct Court {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = false;
  std::size_t inside = 0, most_inside = 0;
  std::vector<std::pair<std::uint32_t, core::PasswordVerdict>> answers;
  std::vector<std::string> seen;

  PasswordChecker::Judge judge() {
    return [this](const core::PasswordQuestion& asked) {
      std::unique_lock lock(mutex);
      seen.push_back(asked.user);
      most_inside = std::max(most_inside, ++inside);
      changed.notify_all();
      changed.wait(lock, [&] { return open; });
      --inside;
      if (asked.user == "throws") throw std::runtime_error("the reason");
      return Judgement{{asked.user == "good", ""}, {}};
    };
  }
  PasswordChecker::Deliver deliver() {
    return [this](const PasswordChecker::Asker& to, Judgement judgement) {
      const std::lock_guard lock(mutex);
      answers.emplace_back(to.client.index, std::move(judgement.verdict));
      changed.notify_all();
    };
  }
  void let_go() {
    const std::lock_guard lock(mutex);
    open = true;
    changed.notify_all();
  }
  bool until(const std::function<bool()>& done) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kDeadline, done);
  }
};

}  // namespace

TEST_CASE("password checker: each question has its answer") {
  Court court;
  court.open = true;
  PasswordChecker checker(court.judge(), court.deliver(), {});
  REQUIRE(checker.ask(asker(1), question("good")));
  REQUIRE(checker.ask(asker(2), question("bad")));
  REQUIRE(checker.ask(asker(3), question("throws")));
  REQUIRE(court.until([&] { return court.answers.size() == 3; }));
  for (const auto& [index, verdict] : court.answers) {
    CHECK(verdict.right == (index == 1));
    if (index == 3) CHECK(verdict.reason == "the reason");
  }
  CHECK(checker.stop(kDeadline));
  CHECK_FALSE(checker.ask(asker(4), question("good")));
}

TEST_CASE("password checker: no more threads than allowed, and a full queue says so at once") {
  Court court;
  PasswordChecker checker(court.judge(), court.deliver(), {2, 3});
  for (std::uint32_t i = 0; i < 2; ++i) REQUIRE(checker.ask(asker(i), question("good")));
  REQUIRE(court.until([&] { return court.inside == 2; }));
  for (std::uint32_t i = 2; i < 5; ++i) REQUIRE(checker.ask(asker(i), question("good")));
  CHECK_FALSE(checker.ask(asker(5), question("good")));
  court.let_go();
  REQUIRE(court.until([&] { return court.answers.size() == 5; }));
  CHECK(court.most_inside == 2);
  REQUIRE(checker.ask(asker(6), question("good")));
  REQUIRE(court.until([&] { return court.answers.size() == 6; }));
}

TEST_CASE("password checker: an abandoned question is not asked") {
  Court court;
  PasswordChecker checker(court.judge(), court.deliver(), {1, 10});
  REQUIRE(checker.ask(asker(1), question("first")));
  REQUIRE(court.until([&] { return court.inside == 1; }));
  REQUIRE(checker.ask(asker(2), question("gone")));
  REQUIRE(checker.ask(asker(2, 1), question("of another worker")));
  checker.abandon(asker(2));
  checker.abandon(asker(1));  // too late: its answer still comes
  court.let_go();
  REQUIRE(court.until([&] { return court.answers.size() == 2; }));
  CHECK(court.seen == std::vector<std::string>{"first", "of another worker"});
}

TEST_CASE("password checker: its end does not wait for a judge that hangs") {
  // The thread that is left behind keeps what it uses.
  const auto court = std::make_shared<Court>();
  {
    PasswordChecker checker(
        [court, judge = court->judge()](const core::PasswordQuestion& asked) { return judge(asked); }, court->deliver(),
        {1, 10});
    REQUIRE(checker.ask(asker(1), question("good")));
    REQUIRE(checker.ask(asker(2), question("good")));
    REQUIRE(court->until([&] { return court->inside == 1; }));
    CHECK_FALSE(checker.stop(1ms));
  }
  court->let_go();
  REQUIRE(court->until([&] { return court->inside == 0; }));
  CHECK(court->answers.empty());  // nobody is there to be told
  CHECK(court->seen.size() == 1);
}
