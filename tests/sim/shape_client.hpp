// A client that prepares statements, remembers what it was told of their results, as drivers do, and uses them while
// others, and itself, change the tables. It insists on getting the columns it knows of, or an error where they have
// changed. It also sends Close and its Sync apart.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/messages.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

struct ShapePlan {
  int requests = 60;
  bool may_end = false;  ///< something may end its connections
};

class ShapeClient final : public Far {
 public:
  ShapeClient(World& world, int number, ShapePlan plan);
  ~ShapeClient() override;

  void start();
  void on_bytes(const std::string& bytes) override;
  void on_end() override;
  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] TimePoint waiting_since() const { return since_; }
  [[nodiscard]] std::string describe() const;

 private:
  /// The last one is the unnamed statement.
  static constexpr int kStatements = 3;
  enum class Request { Prepare, Use, Close, Alter, Block };
  /// What it knows of the statement for a table.
  struct Known {
    std::size_t columns = 0;    ///< 0: it is not prepared
    bool certain = false;       ///< the columns belonged to the table as it was, for all who look
    std::uint64_t changes = 0;  ///< of the table, when it was prepared
  };

  void connect();
  void end_life();
  void end_early(const std::string& why);
  void next_request();
  void choose_request();
  void prepare();
  void use();
  void close();
  void alter();
  void send(std::string bytes);
  void send_later(std::string bytes);
  void take_answer();
  void take_prepared();
  void take_rows();
  [[nodiscard]] const Message* find(char type) const;
  void check_error(const Message& error, const Known& before, int table) const;
  [[nodiscard]] static bool is_unnamed(int number) { return number == kStatements - 1; }
  [[nodiscard]] static std::string table(int number) {
    return is_unnamed(number) ? "t0" : "t" + std::to_string(number);
  }
  [[nodiscard]] static std::string statement(int number) {
    return is_unnamed(number) ? "" : "s" + std::to_string(number);
  }

  World& world_;
  Schema& schema_;
  int number_;
  ShapePlan plan_;
  std::shared_ptr<Link> link_;
  std::array<Known, kStatements> known_;
  std::vector<Message> got_;
  std::string in_, request_text_;
  Request request_ = Request::Block;
  int which_ = 0;              ///< statement
  std::vector<int> uses_;      ///< the statements whose rows the request returns, in their order
  Known asked_;                ///< of the table, when the request was sent
  std::optional<int> alters_;  ///< the number of the change under way
  bool block_ = false;         ///< in a transaction block
  bool failed_ = false;        ///< ... that has failed
  bool logged_in_ = false, busy_ = false, done_ = false;
  int left_, life_ = 0, changes_ = 0;
  TimePoint since_;
};

}  // namespace pgweir::sim
