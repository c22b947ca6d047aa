// What the statements of register_sql.hpp do: to a host of the cluster (BackendData, cluster.hpp), and in a client's
// reference, which knows everything about a reply but what is read. Both go the same way here; they differ in where
// values come from and in what may interfere.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/pg_session.hpp"
#include "tests/sim/register_sql.hpp"

namespace pgweir::sim {

class RegisterData : public Data {
 public:
  using Changes = std::vector<std::pair<int, std::string>>;
  [[nodiscard]] std::optional<std::size_t> columns(const std::string& sql) const final;
  bool begin() final;
  Result run(const std::string& sql, bool read_only) final;
  [[nodiscard]] bool copies_in(const std::string& sql) const final;
  [[nodiscard]] std::optional<Failure> begin_copy(bool read_only) final;
  [[nodiscard]] std::optional<Failure> copy_line(std::string_view line) final;
  [[nodiscard]] std::string end_copy() final;
  bool end(bool commit) final;

 private:
  /// Transactions that begin are read only.
  [[nodiscard]] virtual bool recovers() const = 0;
  /// What stops a statement that may run.
  [[nodiscard]] virtual std::optional<Failure> interference() = 0;
  [[nodiscard]] virtual std::string read(int key) = 0;
  virtual void written(const std::string& value) = 0;
  virtual void refused() {}
  /// True: the client has to wait for the acknowledgement.
  virtual bool commit(Changes changes) = 0;

  [[nodiscard]] std::string value_of(int key);
  void write(int key, const std::string& value);
  [[nodiscard]] Result failed(Failure failure, const RegisterStatement& statement);

  Changes pending_;
  std::map<std::string, std::vector<std::string>> cursors_;  ///< rows that are not fetched yet
  std::size_t copied_ = 0;
};

/// Values that are read show as "?", unless the transaction has written them.
class ReferenceData final : public RegisterData {
 public:
  /// What one run of a request is to meet.
  struct Course {
    bool recovers = false;           ///< transactions that begin run on a standby
    std::map<int, Failure> fails{};  ///< statements by their number
  };
  void set_course(const Course& course) {
    course_ = course;
    statements_ = 0;
    committed_.clear();
  }
  /// Of this course: what the transactions that ended well have written, in order.
  [[nodiscard]] const Changes& committed() const { return committed_; }
  [[nodiscard]] int statements() const { return statements_; }

 private:
  [[nodiscard]] bool recovers() const override { return course_.recovers; }
  [[nodiscard]] std::optional<Failure> interference() override;
  [[nodiscard]] std::string read(int) override { return "?"; }
  void written(const std::string&) override {}
  bool commit(Changes changes) override;

  Course course_;
  int statements_ = 0;
  Changes committed_;
};

}  // namespace pgweir::sim
