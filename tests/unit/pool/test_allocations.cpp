// The hot path allocates nothing once every container has reached its size.
#include <cstdlib>
#include <new>

#include "rig.hpp"

namespace {
std::size_t allocations = 0;
}

void* operator new(std::size_t size) {
  ++allocations;
  if (void* p = std::malloc(size == 0 ? 1 : size)) return p;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* p, const std::nothrow_t&) noexcept {
  std::free(p);
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}

namespace pgweir::pool::test {

namespace {

/// One turn of two clients on different workers with one server: granted at once, queued, granted by an action, moved.
void turn(Rig& r, PoolId p, ServerId sv, ClientId a, ClientId b) {
  const auto take = [&](ClientId c) {
    r.offers(false);
    const WorkerId worker = c == a ? 0 : 1;
    if (r.m.server_worker(sv) != worker) r.m.server_arrived(sv, r.now, r.out);
    return r.m.grant_taken(c, sv);
  };
  bool ok = r.m.acquire(a, p, r.now, r.out).status == AcquireStatus::Granted || take(a);
  ok = r.m.acquire(b, p, r.now, r.out).status == AcquireStatus::Queued && ok;
  r.m.release(sv, ReleaseKind::Clean, r.now, r.out);
  ok = take(b) && ok;
  r.m.release(sv, ReleaseKind::NeedsTest, r.now, r.out);
  r.m.release(sv, ReleaseKind::Clean, r.now, r.out);
  r.out.clear();
  r.advance(milliseconds(1));
  if (!ok) std::abort();
}

}  // namespace

TEST_CASE("acquire, release, queueing and moving allocate nothing", "[allocations]") {
  Rig r(2);
  const PoolId p = r.pool("db", "u", Rig::size(1));
  const ServerId sv = r.idle(p, 0);
  const ClientId a = r.attached(p, 0), b = r.attached(p, 1);
  for (int i = 0; i < 2; ++i) turn(r, p, sv, a, b);  // the second begins on the other worker
  const std::size_t before = allocations;
  for (int i = 0; i < 1000; ++i) turn(r, p, sv, a, b);
  const std::size_t made = allocations - before;
  CHECK(made == 0);
  r.check();
}

}  // namespace pgweir::pool::test
