// An operator at the console who carries out a planned change of the primary: SWITCHOVER, and when the notice comes,
// what it asks for.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tests/sim/world.hpp"

namespace pgweir::sim {

class ConsoleClient final : public Far {
 public:
  struct Reactions {
    std::function<void(int host)> promote;  ///< writes are held, and this standby has replayed everything
    std::function<void(bool done)> over;    ///< or given up
  };
  ConsoleClient(World& world, Reactions reactions) : world_(world), reactions_(std::move(reactions)) {}
  ~ConsoleClient() override;

  void switch_over(const std::string& database);
  void on_bytes(const std::string& bytes) override;
  void on_end() override;

 private:
  void take(char type, const std::string& body);
  void finish();

  World& world_;
  Reactions reactions_;
  std::shared_ptr<Link> link_;
  std::string in_, command_;
  bool asked_ = false, failed_ = false;
};

}  // namespace pgweir::sim
