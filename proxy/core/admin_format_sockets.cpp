// SHOW CLIENTS, SERVERS, SOCKETS and ACTIVE_SOCKETS: which connections each lists, under which state names, and their
// columns; see admin_format.hpp.
#include <fmt/format.h>

#include <vector>

#include "proxy/core/admin_format.hpp"
#include "proxy/core/admin_result.hpp"

namespace pgweir::core {

namespace {

/// What one state is called. An empty name: the command does not list the connection.
struct StateNames {
  char type;
  std::string_view in_clients, in_servers, in_sockets;
};

StateNames names_of(SocketState state) {
  switch (state) {
    case SocketState::ClLogin:
      return {'C', "", "", "cl_login"};
    case SocketState::ClActive:
      return {'C', "active", "", "cl_active"};
    case SocketState::ClIdle:
      return {'C', "idle", "", "cl_active"};
    case SocketState::ClWaiting:
      return {'C', "waiting", "", "cl_waiting"};
    case SocketState::ClActiveCancelReq:
      return {'C', "active_cancel_req", "", ""};
    case SocketState::ClWaitingCancelReq:
      return {'C', "waiting_cancel_req", "", ""};
    case SocketState::SvLogin:
      return {'S', "", "new", "sv_login"};
    case SocketState::SvActive:
      return {'S', "", "active", "sv_active"};
    case SocketState::SvIdle:
      return {'S', "", "idle", "sv_idle"};
    case SocketState::SvUsed:
      return {'S', "", "used", "sv_used"};
    case SocketState::SvTested:
      return {'S', "", "tested", "sv_tested"};
    case SocketState::SvActiveCancel:
      return {'S', "", "active_cancel", ""};
    case SocketState::SvBeingCanceled:
      return {'S', "", "being_canceled", ""};
  }
  return {'C', "", "", ""};
}

std::string_view to_string(Replication replication) {
  switch (replication) {
    case Replication::Logical:
      return "logical";
    case Replication::Physical:
      return "physical";
    case Replication::None:
      break;
  }
  return "none";
}

/// What a command shows of a connection beside the columns that all have.
enum class Further { Nothing, Buffers, Host };

std::vector<protocol::Column> socket_columns(Further further) {
  std::vector<protocol::Column> columns{text_column("type"),
                                        text_column("user"),
                                        text_column("database"),
                                        text_column("replication"),
                                        text_column("state"),
                                        text_column("addr"),
                                        int4_column("port"),
                                        text_column("local_addr"),
                                        int4_column("local_port"),
                                        text_column("connect_time"),
                                        text_column("request_time"),
                                        int4_column("wait"),
                                        int4_column("wait_us"),
                                        int4_column("close_needed"),
                                        text_column("ptr"),
                                        text_column("link"),
                                        int4_column("remote_pid"),
                                        text_column("tls"),
                                        text_column("application_name"),
                                        int4_column("prepared_statements"),
                                        int4_column("id")};
  if (further == Further::Host) {
    columns.push_back(text_column("host"));
    columns.push_back(text_column("role"));
  }
  if (further == Further::Buffers) {
    for (const std::string_view name :
         {"recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail"}) {
      columns.push_back(int4_column(name));
    }
  }
  return columns;
}

void add_common(AdminResult& result, const SocketRow& row, std::string_view state, const FormatTime& format_time) {
  result.text(std::string(1, names_of(row.state).type));
  result.text(row.user.empty() ? "(nouser)" : row.user).text(row.database.empty() ? "(nodb)" : row.database);
  result.text(to_string(row.replication)).text(state);
  result.text(row.addr).int4(row.port).text(row.local_addr).int4(row.local_port);
  result.text(format_time(row.connect_time)).text(format_time(row.request_time));
  const std::int64_t wait_us = row.wait.count();
  result.int4(wait_us / 1'000'000).int4(wait_us % 1'000'000).int4(row.close_needed);
  result.text(fmt::format("{:#x}", row.ptr)).text(row.link == 0 ? "" : fmt::format("{:#x}", row.link));
  result.int4(row.remote_pid).text(row.tls).text(row.application_name).int4(row.prepared_statements);
  // Not clamped: two connections must never show the same id, since KILL_CLIENT goes by it.
  result.number(row.id);
}

void add_buffers(AdminResult& result, const SocketRow& row) {
  result.int4(row.recv_pos).int4(row.pkt_pos).int4(row.pkt_remain).int4(row.send_pos).int4(row.send_remain);
  result.int4(row.pkt_avail).int4(row.send_avail);
}

void append_sockets(std::string& out, std::span<const SocketRow> rows, const FormatTime& format_time,
                    std::string_view StateNames::*name, Further further, bool only_active = false) {
  AdminResult result(out, socket_columns(further));
  for (const SocketRow& row : rows) {
    const std::string_view state = names_of(row.state).*name;
    if (state.empty()) continue;
    if (only_active && row.pkt_avail == 0 && row.send_avail == 0) continue;
    add_common(result, row, state, format_time);
    if (further == Further::Buffers) add_buffers(result, row);
    if (further == Further::Host) result.text(row.host).text(row.role.empty() ? "unknown" : row.role);
    result.end_row();
  }
  result.finish();
}

}  // namespace

void append_show_clients(std::string& out, std::span<const SocketRow> rows, const FormatTime& format_time) {
  append_sockets(out, rows, format_time, &StateNames::in_clients, Further::Nothing);
}

void append_show_servers(std::string& out, std::span<const SocketRow> rows, const FormatTime& format_time) {
  append_sockets(out, rows, format_time, &StateNames::in_servers, Further::Host);
}

void append_show_sockets(std::string& out, std::span<const SocketRow> rows, const FormatTime& format_time) {
  append_sockets(out, rows, format_time, &StateNames::in_sockets, Further::Buffers);
}

void append_show_active_sockets(std::string& out, std::span<const SocketRow> rows, const FormatTime& format_time) {
  append_sockets(out, rows, format_time, &StateNames::in_sockets, Further::Buffers, true);
}

}  // namespace pgweir::core
