// Random events against the model in random_world.hpp, from fixed seeds.
#include <catch2/catch.hpp>

#include "random_world.hpp"

namespace pgweir::pool::test {

TEST_CASE("random events keep every rule", "[random]") {
  std::uint64_t grants = 0, moves = 0, opened = 0, evictions = 0, cancels = 0, requeues = 0, stale = 0, dedicated = 0;
  for (std::uint64_t seed = 1; seed <= 250; ++seed) {
    INFO("seed " << seed);
    World world(seed);
    REQUIRE_NOTHROW([&] {
      for (int i = 0; i < 500; ++i) world.step();
      world.calm_down();
      world.drain();
    }());
    grants += world.grants();
    moves += world.moves();
    opened += world.opened();
    evictions += world.evictions();
    cancels += world.cancels();
    requeues += world.requeues();
    stale += world.stale_grants();
    dedicated += world.dedicated();
  }
  // The events that matter do occur.
  CHECK(grants > 5'000);
  CHECK(moves > 1'000);
  CHECK(opened > 5'000);
  CHECK(evictions > 200);
  CHECK(cancels > 500);
  CHECK(requeues > 50);
  CHECK(stale > 50);
  CHECK(dedicated > 500);
}

}  // namespace pgweir::pool::test
