// SHOW FDS: every socket of the process with its descriptor, for another process that takes over.
#include <algorithm>
#include <iterator>
#include <limits>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "proxy/core/admin_format.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/gather.hpp"
#include "proxy/core/handover.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

constexpr std::uint32_t kRowMax = std::numeric_limits<std::uint32_t>::max();

std::vector<FdRow> rows_of(WorkerCore& worker, bool with_state) {
  std::vector<FdRow> rows = worker.host().listening_sockets();
  auto own = handover_rows(worker, with_state);
  std::move(own.begin(), own.end(), std::back_inserter(rows));
  return rows;
}

}  // namespace

void Console::show_fds(bool with_state) {
  busy_ = true;
  const auto ask = [with_state](WorkerCore& there) { return rows_of(there, with_state); };
  const auto done = [id = client_.id(), request = ++request_, with_state](WorkerCore& here,
                                                                          std::vector<std::vector<FdRow>> parts) {
    ClientSession* client = here.find_client(id);
    Console* console = client != nullptr ? client->console() : nullptr;
    if (console == nullptr || console->request_ != request) return;
    std::vector<FdRow> rows;
    for (auto& part : parts) std::move(part.begin(), part.end(), std::back_inserter(rows));
    console->send_fds(std::move(rows), with_state);
  };
  gather<std::vector<FdRow>>(client_.core(), ask, done);
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
