// The physical limit to measure a proxy against: one thread, one epoll set, one recv and one send per direction,
// nothing parsed, one server connection per client. It is a measuring device for the loopback interface, not a proxy to
// use: it forwards as long as the sockets take what they are given, and gives up a pair where they do not.
//
//   floor LISTEN_PORT SERVER_PORT
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

struct End {
  int fd = -1;
  End* other = nullptr;
};

struct Pair {
  End client, server;
};

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

int listen_on(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in address = loopback(port);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || ::listen(fd, 1024) != 0) {
    std::perror("floor: listen");
    std::exit(1);
  }
  return fd;
}

void accept_pair(int epoll_fd, int listen_fd, int server_port) {
  auto pair = std::make_unique<Pair>();
  pair->client.fd = ::accept4(listen_fd, nullptr, nullptr, SOCK_CLOEXEC);
  pair->server.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(server_port);
  if (pair->client.fd < 0 ||
      ::connect(pair->server.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    ::close(pair->client.fd);
    ::close(pair->server.fd);
    return;
  }
  const int on = 1;
  for (End* end : {&pair->client, &pair->server}) {
    ::setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = end;
    ::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, end->fd, &event);
  }
  pair->client.other = &pair->server;
  pair->server.other = &pair->client;
  pair.release();  // freed when either end closes
}

// False when the pair is over.
bool forward(End& from, char* buffer, std::size_t size) {
  const ssize_t got = ::recv(from.fd, buffer, size, 0);
  if (got <= 0) return false;
  return ::send(from.other->fd, buffer, static_cast<std::size_t>(got), MSG_NOSIGNAL) == got;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: floor LISTEN_PORT SERVER_PORT\n");
    return 1;
  }
  const int listen_fd = listen_on(std::atoi(argv[1]));
  const int server_port = std::atoi(argv[2]);
  const int epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;
  ::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
  std::vector<char> buffer(65536);
  std::array<epoll_event, 256> events;
  for (;;) {
    const int count = ::epoll_wait(epoll_fd, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      auto* end = static_cast<End*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (end == nullptr) {
        accept_pair(epoll_fd, listen_fd, server_port);
      } else if (end->fd >= 0 && !forward(*end, buffer.data(), buffer.size())) {
        // Both ends may be in this batch: they stay allocated, with closed descriptors, until the process ends.
        ::close(end->other->fd);
        ::close(end->fd);
        end->fd = end->other->fd = -1;
      }
    }
  }
}
