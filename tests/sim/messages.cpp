#include "tests/sim/messages.hpp"

#include "protocol/frame_header.hpp"
#include "protocol/message_view.hpp"

namespace pgweir::sim {

std::vector<Message> take_messages(std::string& bytes) {
  std::vector<Message> messages;
  protocol::FrameHeader header;
  while (read_frame_header(bytes, 1U << 30, header) == protocol::FrameStatus::Ok && bytes.size() >= header.total()) {
    messages.push_back({header.type, bytes.substr(5, header.body())});
    bytes.erase(0, header.total());
  }
  return messages;
}

std::string sqlstate_of(const std::string& body) {
  const auto fields = protocol::parse_error_fields(body);
  return fields ? std::string(fields->sqlstate) : "?";
}

}  // namespace pgweir::sim
