#include "proxy/io/takeover.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/handover.hpp"
#include "proxy/io/descriptors.hpp"
#include "proxy/io/logger.hpp"

namespace pgweir::io {

namespace backend = protocol::backend;

namespace {

/// For what the other process answers at once.
constexpr std::chrono::seconds kPatience{10};
constexpr std::chrono::milliseconds kLookAgain{10};
constexpr std::uint32_t kProtocol = 196608;
constexpr std::uint32_t kMessageMax = 1U << 30;

}  // namespace

std::unique_ptr<Takeover> Takeover::begin(const ListenSpec& spec, std::chrono::microseconds suspend_timeout) {
  log().warning("online restart is deprecated in PgBouncer, which recommends so_reuseport; here it is not");
  const int fd = connect_unix_socket(spec);
  if (fd < 0) {
    log().info("no process to take over from answers, starting normally");
    return nullptr;
  }
  std::unique_ptr<Takeover> takeover(new Takeover(fd));
  takeover->log_in();
  takeover->run("SHOW VERSION", kPatience);
  const bool ours = !takeover->values_.empty() && !takeover->values_[0].empty() && takeover->values_[0][0] &&
                    takeover->values_[0][0]->starts_with("PgWeir");
  takeover->run("SUSPEND", suspend_timeout + kPatience);
  takeover->run(ours ? "SHOW HANDOVER" : "SHOW FDS", kPatience);
  for (std::size_t i = 0; i < takeover->values_.size(); ++i) {
    auto row = core::read_fd_row(takeover->values_[i], takeover->taken_[i]);
    if (row && row->descriptor) takeover->rows_.push_back(std::move(*row));
  }
  takeover->values_.clear();
  takeover->taken_.clear();
  log().info("took over {} sockets from {}", takeover->rows_.size(), ours ? "pgweir" : "PgBouncer");
  return takeover;
}

Takeover::~Takeover() {
  if (fd_ >= 0) ::close(fd_);
}

void Takeover::log_in() {
  std::string message;
  const std::pair<std::string_view, std::string_view> parameters[] = {{"user", "pgbouncer"}, {"database", "pgbouncer"}};
  protocol::append_startup_message(message, kProtocol, parameters);
  if (!send_with_descriptor(fd_, message, -1)) throw std::runtime_error("the running process does not read");
  run({}, kPatience);
}

void Takeover::run(const std::string& command, std::chrono::microseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  values_.clear();
  taken_.clear();
  error_.clear();
  ready_ = false;
  if (!command.empty()) {
    std::string message;
    protocol::append_query(message, command + ";");
    if (!send_with_descriptor(fd_, message, -1)) throw std::runtime_error("the running process does not read");
  }
  protocol::FrameHeader header;
  while (!ready_) {
    while (!ready_ && read_frame_header(in_, kMessageMax, header) == protocol::FrameStatus::Ok &&
           in_.size() >= header.total()) {
      take_message(header.type, in_.substr(protocol::kHeaderSize, header.body()));
      in_.erase(0, header.total());
    }
    if (ready_) break;
    if (!receive_with_descriptors(fd_, in_, descriptors_, deadline)) {
      const std::string what = command.empty() ? "login" : command;
      throw std::runtime_error(error_.empty() ? fmt::format("the running process does not answer to {}", what)
                                              : fmt::format("the running process refused {}: {}", what, error_));
    }
  }
  if (!error_.empty()) throw std::runtime_error(fmt::format("the running process refused {}: {}", command, error_));
}

// The descriptor of a row comes with the row's first byte, thus no later than the row.
void Takeover::take_message(char type, const std::string& body) {
  switch (type) {
    case backend::DataRow: {
      std::vector<std::optional<std::string_view>> columns;
      if (!protocol::parse_data_row(body, columns)) throw std::runtime_error("the running process sent a broken row");
      auto& row = values_.emplace_back();
      for (const auto& column : columns) row.push_back(column ? std::optional<std::string>(*column) : std::nullopt);
      taken_.emplace_back();
      if (taken_.size() <= descriptors_.size()) taken_.back() = descriptors_[taken_.size() - 1];
      return;
    }
    case backend::ErrorResponse:
      if (const auto fields = protocol::parse_error_fields(body)) error_ = fields->message;
      return;
    case backend::ReadyForQuery:
      ready_ = true;
      return;
    case backend::Authentication: {
      const auto authentication = protocol::parse_authentication(body);
      if (!authentication || authentication->kind != protocol::AuthRequest::Ok) error_ = "it asks for a password";
      return;
    }
    default:
      return;  // what else a console says is for people
  }
}

void Takeover::finish(const std::string& pidfile) {
  std::string message;
  protocol::append_query(message, "SHUTDOWN;");
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  if (!send_with_descriptor(fd_, message, -1)) throw std::runtime_error("the running process does not read");
  while (receive_with_descriptors(fd_, in_, descriptors_, deadline)) in_.clear();
  ::close(std::exchange(fd_, -1));
  while (!pidfile.empty() && ::access(pidfile.c_str(), F_OK) == 0) {
    if (std::chrono::steady_clock::now() > deadline) {
      throw std::runtime_error(fmt::format("the process before this one has not removed its pidfile '{}'", pidfile));
    }
    std::this_thread::sleep_for(kLookAgain);
  }
  log().info("the process before this one has let go");
}

}  // namespace pgweir::io
