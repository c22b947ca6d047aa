// Descriptors that travel between processes over a Unix socket (SCM_RIGHTS), each with a message of its own, as
// PgBouncer's SHOW FDS sends them. Blocking, with a limit: used only while the process serves nobody.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pgweir::io {

/// An open descriptor that its last holder closes.
[[nodiscard]] std::shared_ptr<const int> share_descriptor(int fd);

/// Sends the whole message over the Unix socket `socket`, with `descriptor` unless it is negative. False: the
/// connection is broken, or the other side has not read for too long.
[[nodiscard]] bool send_with_descriptor(int socket, std::string_view message, int descriptor);

/// Reads what is there into `bytes` (appended) and `descriptors`, waiting for the first byte until `deadline`. False:
/// nothing came, the connection has ended or is broken.
[[nodiscard]] bool receive_with_descriptors(int socket, std::string& bytes,
                                            std::vector<std::shared_ptr<const int>>& descriptors,
                                            std::chrono::steady_clock::time_point deadline);

}  // namespace pgweir::io
