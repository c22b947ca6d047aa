#include "proxy/io/descriptors.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace pgweir::io {

namespace {

constexpr auto kSendPatience = std::chrono::seconds(10);
constexpr std::size_t kDescriptorsMax = 64;

bool wait_until_ready(int socket, short events, std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd entry{socket, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 1000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

}  // namespace

std::shared_ptr<const int> share_descriptor(int fd) {
  return {new int(fd), [](const int* held) {
            ::close(*held);
            delete held;
          }};
}

bool send_with_descriptor(int socket, std::string_view message, int descriptor) {
  const auto deadline = std::chrono::steady_clock::now() + kSendPatience;
  while (!message.empty()) {
    iovec piece{const_cast<char*>(message.data()), message.size()};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    if (descriptor >= 0) {
      header.msg_control = control.data();
      header.msg_controllen = control.size();
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
    }
    const ssize_t sent = ::sendmsg(socket, &header, MSG_NOSIGNAL);
    if (sent > 0) {
      message.remove_prefix(static_cast<std::size_t>(sent));
      descriptor = -1;  // it goes with the first byte
      continue;
    }
    if (sent < 0 && errno == EINTR) continue;
    // ETOOMANYREFS: too many descriptors are under way already; the receiver has to take some first.
    const bool full = sent < 0 && (errno == EAGAIN || errno == ETOOMANYREFS);
    if (!full || !wait_until_ready(socket, POLLOUT, deadline)) return false;
    if (errno == ETOOMANYREFS) ::poll(nullptr, 0, 1);
  }
  return true;
}

bool receive_with_descriptors(int socket, std::string& bytes, std::vector<std::shared_ptr<const int>>& descriptors,
                              std::chrono::steady_clock::time_point deadline) {
  if (!wait_until_ready(socket, POLLIN, deadline)) return false;
  std::array<char, 65536> buffer;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kDescriptorsMax)> control{};
  iovec piece{buffer.data(), buffer.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t got;
  do {
    got = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); got > 0 && part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      descriptors.push_back(share_descriptor(fd));
    }
  }
  if (got <= 0) return got < 0 && errno == EAGAIN;
  bytes.append(buffer.data(), static_cast<std::size_t>(got));
  return true;
}

}  // namespace pgweir::io
