// Asking all workers the same and putting their answers together, without a lock: each answers on its own thread, and
// only the one that asked touches what has been gathered.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

/// Calls `ask` on every worker, also on that of `core`, and then `done` there with the answers in the order of the
/// workers; all of it later. `Answer` is something that can be made empty, and moved to another thread.
template <class Answer>
void gather(WorkerCore& core, std::function<Answer(WorkerCore&)> ask,
            std::function<void(WorkerCore&, std::vector<Answer>)> done) {
  struct Gathering {
    std::size_t missing;
    std::vector<Answer> answers;
    std::function<void(WorkerCore&, std::vector<Answer>)> done;
  };
  const pool::WorkerId count = core.host().worker_count();
  const auto all = std::make_shared<Gathering>(Gathering{count, std::vector<Answer>(count), std::move(done)});
  for (pool::WorkerId worker = 0; worker < count; ++worker) {
    core.host().post(worker, [all, ask, worker, origin = core.id()](WorkerCore& there) {
      const auto part = std::make_shared<Answer>(ask(there));
      there.host().post(origin, [all, part, worker](WorkerCore& here) {
        all->answers[worker] = std::move(*part);
        if (--all->missing == 0) all->done(here, std::move(all->answers));
      });
    });
  }
}

}  // namespace pgweir::core
