// The small parts that the manager is made of.
#include <algorithm>
#include <random>

#include "pool/deadline_heap.hpp"
#include "pool/slot_map.hpp"
#include "pool/slots.hpp"
#include "pool/waiter_queue.hpp"
#include "rig.hpp"

namespace pgweir::pool::test {

TEST_CASE("slot_map: ids go stale, slots are reused, addresses are stable", "[parts]") {
  struct Item {
    SlotId<struct ItemTag> id{};
    int value = 0;
  };
  SlotMap<Item, SlotId<ItemTag>> map;
  Item& a = map.add();
  CHECK(a.id);
  a.value = 1;
  const auto id = a.id;
  for (int i = 0; i < 500; ++i) map.add();
  CHECK(map.find(id) == &a);
  CHECK(map.size() == 501);
  map.erase(a);
  CHECK(map.find(id) == nullptr);
  Item& b = map.add();
  CHECK(b.id.index == id.index);
  CHECK(b.id.generation == id.generation + 1);
  CHECK(b.value == 0);
  CHECK(map.find(id) == nullptr);
  CHECK(map.find({}) == nullptr);
  CHECK(map.find({100'000, 1}) == nullptr);
  int seen = 0;
  map.for_each([&](const Item&) { ++seen; });
  CHECK(seen == 501);
}

TEST_CASE("deadline_heap: entries come out in order and only move earlier", "[parts]") {
  std::mt19937 random(7);
  std::vector<DeadlineEntry> entries(50);
  DeadlineHeap heap;
  CHECK(heap.next() == kNever);
  for (int round = 0; round < 300; ++round) {
    DeadlineEntry& e = entries[random() % entries.size()];
    const TimePoint when{Duration(random() % 1000)};
    const TimePoint before = e.deadline;
    heap.not_later_than(e, when);
    CHECK(e.deadline == std::min(before, when));
    REQUIRE(heap.consistent());
    if (round % 5 != 0) continue;
    DeadlineEntry& gone = entries[random() % entries.size()];
    heap.remove(gone);
    CHECK(gone.deadline == kNever);
    CHECK(gone.heap_at == DeadlineEntry::kNowhere);
    REQUIRE(heap.consistent());
  }
  TimePoint last{};
  while (heap.next() != kNever) {
    const TimePoint due = heap.next();
    CHECK(due >= last);
    last = due;
    DeadlineEntry& e = heap.pop();
    CHECK(e.deadline == kNever);
    CHECK(e.heap_at == DeadlineEntry::kNowhere);
    REQUIRE(heap.consistent());
  }
}

TEST_CASE("the table of legal server states", "[parts]") {
  using enum ServerState;
  const std::vector<ServerState> all{Login, Idle, Active, Testing, Canceling, Moving, Closing};
  REQUIRE(all.size() == kServerStates);
  const auto allowed = [&](ServerState from) {
    std::vector<ServerState> to;
    std::copy_if(all.begin(), all.end(), std::back_inserter(to), [&](auto s) { return legal_transition(from, s); });
    return to;
  };
  using List = std::vector<ServerState>;
  CHECK(allowed(Login) == List{Idle, Active, Moving, Closing});
  CHECK(allowed(Idle) == List{Active, Moving, Closing});
  CHECK(allowed(Active) == List{Idle, Active, Testing, Canceling, Moving, Closing});
  CHECK(allowed(Testing) == List{Idle, Active, Canceling, Moving, Closing});
  CHECK(allowed(Canceling) == List{Idle, Active, Moving, Closing});
  CHECK(allowed(Moving) == List{Idle, Active, Moving, Closing});
  CHECK(allowed(Closing).empty());
}

TEST_CASE("waiter_queue: order by time, then by arrival, and the choice for a worker", "[parts]") {
  std::vector<ClientSlot> c(4);
  WaiterQueue queue(2);
  const auto place = [&](std::size_t i, WorkerId worker, int since_us, std::uint64_t seq) {
    c[i].worker = worker;
    c[i].since = TimePoint{Duration(since_us)};
    c[i].seq = seq;
    queue.insert(c[i]);
  };
  place(0, 0, 100, 1);
  place(1, 1, 100, 2);
  place(2, 1, 300, 3);
  place(3, 1, 100, 0);  // put back: before those of the same time
  CHECK(queue.size() == 4);
  CHECK(&queue.front() == &c[3]);
  CHECK(queue.at(1) == &c[0]);
  CHECK(queue.at(2) == &c[1]);
  CHECK(queue.at(3) == &c[2]);
  CHECK(queue.at(4) == nullptr);
  CHECK(&queue.choose(0, Duration(0)) == &c[3]);
  CHECK(&queue.choose(0, Duration(1)) == &c[0]);
  queue.remove(c[3]);
  queue.remove(c[1]);
  CHECK(&queue.choose(1, Duration(199)) == &c[0]);
  CHECK(&queue.choose(1, Duration(200)) == &c[2]);
  queue.remove(c[0]);
  queue.remove(c[2]);
  CHECK(queue.empty());
}

}  // namespace pgweir::pool::test
