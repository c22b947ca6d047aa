// SHOW FDS: every socket of the process with its descriptor, for another process that takes over.
#include <algorithm>
#include <iterator>
#include <limits>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "proxy/core/admin_format.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/handover.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

constexpr std::uint32_t kRowMax = std::numeric_limits<std::uint32_t>::max();

/// Calls `done` on the worker of `core` with the rows of all, later.
void collect_rows(WorkerCore& core, bool with_state, std::function<void(WorkerCore&, std::vector<FdRow>)> done) {
  struct Collection {
    std::size_t missing;
    std::vector<FdRow> rows;
    std::function<void(WorkerCore&, std::vector<FdRow>)> done;
  };
  const auto all = std::make_shared<Collection>(Collection{core.host().worker_count(), {}, std::move(done)});
  for (pool::WorkerId worker = 0; worker < core.host().worker_count(); ++worker) {
    core.host().post(worker, [all, with_state, origin = core.id()](WorkerCore& there) {
      auto rows = std::make_shared<std::vector<FdRow>>(there.host().listening_sockets());
      auto own = handover_rows(there, with_state);
      std::move(own.begin(), own.end(), std::back_inserter(*rows));
      there.host().post(origin, [all, rows](WorkerCore& here) {
        std::move(rows->begin(), rows->end(), std::back_inserter(all->rows));
        if (--all->missing == 0) all->done(here, std::move(all->rows));
      });
    });
  }
}

}  // namespace

void Console::show_fds(bool with_state) {
  busy_ = true;
  collect_rows(client_.core(), with_state,
               [id = client_.id(), request = ++request_, with_state](WorkerCore& here, std::vector<FdRow> rows) {
                 ClientSession* client = here.find_client(id);
                 Console* console = client != nullptr ? client->console() : nullptr;
                 if (console != nullptr && console->request_ == request) console->send_fds(std::move(rows), with_state);
               });
}

bool Console::is_own_user() const {
  const PeerAddress& address = client_.address();
  return address.is_unix && address.uid == client_.core().host().own_uid() && client_.user() == kConsoleDatabase;
}

void Console::send_fds(std::vector<FdRow> rows, bool with_state) {
  WorkerCore& core = client_.core();
  // The listening sockets first: they say what kind of process this is.
  std::stable_partition(rows.begin(), rows.end(), [](const FdRow& row) { return row.task == "pooler"; });
  std::string out;
  append_show_fds(out, rows, with_state ? FdColumns::WithState : FdColumns::Pgbouncer);
  protocol::append_ready_for_query(out, 'I');
  busy_ = false;
  if (!is_own_user() || statements_.running()) {
    answer(out);
    core.wake(client_);
    return;
  }
  // RowDescription, one message for each row with its descriptor, and the end.
  std::vector<std::pair<std::string, std::shared_ptr<const int>>> messages;
  protocol::FrameHeader header;
  ByteView rest = out;
  for (std::size_t i = 0; i <= rows.size(); ++i) {
    if (read_frame_header(rest, kRowMax, header) != protocol::FrameStatus::Ok) break;
    messages.emplace_back(rest.substr(0, header.total()), i == 0 ? nullptr : rows[i - 1].descriptor);
    rest.remove_prefix(header.total());
  }
  messages.emplace_back(rest, nullptr);
  if (!client_.port().send_descriptors(messages)) return client_.disconnect("cannot send descriptors");
  core.host().process_command({ProcessCommand::Kind::DescriptorsSent, {}, {}, core.id(), client_.id()});
  core.wake(client_);
}

}  // namespace pgweir::core
