// What clients of the simulated world read from the proxy: whole messages.
#pragma once

#include <string>
#include <vector>

namespace pgweir::sim {

struct Message {
  char type;
  std::string body;
};

/// Takes the complete messages off the front of `bytes`.
[[nodiscard]] std::vector<Message> take_messages(std::string& bytes);

/// Of an ErrorResponse; "?" if it cannot be read.
[[nodiscard]] std::string sqlstate_of(const std::string& body);

}  // namespace pgweir::sim
