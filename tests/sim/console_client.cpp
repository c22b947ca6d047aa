#include "tests/sim/console_client.hpp"

#include <fmt/format.h>

#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"
#include "tests/sim/messages.hpp"

namespace pgweir::sim {

ConsoleClient::~ConsoleClient() {
  if (link_) link_->detach_far();
}

void ConsoleClient::switch_over(const std::string& database) {
  command_ = "SWITCHOVER " + database;
  link_ = world_.connect_client();
  link_->attach_far(this);
  std::string bytes;
  const std::vector<std::pair<std::string_view, std::string_view>> packet{{"user", "admin"}, {"database", "pgbouncer"}};
  protocol::append_startup_message(bytes, 196608, packet);
  link_->far_send(std::move(bytes));
}

void ConsoleClient::on_bytes(const std::string& bytes) {
  in_ += bytes;
  for (const Message& message : take_messages(in_)) {
    if (link_) take(message.type, message.body);
  }
}

void ConsoleClient::take(char type, const std::string& body) {
  if (type == 'E' || type == 'N') {
    const auto fields = protocol::parse_error_fields(body);
    const std::string text(fields ? fields->message : "?");
    world_.trace(fmt::format("console: {}", text));
    if (type == 'E') failed_ = true;
    const std::size_t name = text.find("standby 127.0.0.1:");
    if (type == 'N' && name != std::string::npos) reactions_.promote(std::atoi(text.c_str() + name + 18) - kFirstPort);
    return;
  }
  if (type != 'Z') return;
  if (asked_) return finish();
  asked_ = true;
  world_.trace("console: " + command_);
  std::string bytes;
  protocol::append_query(bytes, command_);
  link_->far_send(std::move(bytes));
}

void ConsoleClient::finish() {
  link_->detach_far();
  link_->far_close(false);
  link_.reset();
  reactions_.over(!failed_);
}

void ConsoleClient::on_end() {
  world_.fail("the console ended its connection");
}

}  // namespace pgweir::sim
