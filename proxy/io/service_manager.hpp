// Tells systemd how the process is doing: the datagrams of sd_notify(3), one per change. Does nothing where no service
// manager asked for them.
#pragma once

#include <string_view>

namespace pgweir::io {

/// True if one wants to be told.
[[nodiscard]] bool has_service_manager();

/// Sends lines such as "READY=1" or "STATUS=…" to the socket that NOTIFY_SOCKET names. A manager that does not listen
/// is not our problem: failures are ignored, as systemd's own library documents for callers. Any thread.
void notify_service_manager(std::string_view state);

/// "RELOADING=1" with the time that Type=notify-reload asks for; READY=1 ends it.
void notify_reloading();

}  // namespace pgweir::io
