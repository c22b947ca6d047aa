// The physical limit to measure a proxy against: one thread, one epoll set, one recv and one send per direction,
// nothing parsed, one server connection per client. It is a measuring device for the loopback interface, not a proxy to
// use: it forwards as long as the sockets take what they are given, and gives up a pair where they do not.
//
//   floor LISTEN_PORT SERVER_PORT                   forwards
//   floor LISTEN_PORT SERVER_PORT CERTIFICATE KEY   the same, and speaks TLS with clients: what OpenSSL costs at least
//   floor LISTEN_PORT welcome                       has no server: whatever a client sends first is answered with a
//                                                   welcome that never changes, and the end of its input with a close
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace std::literals;

struct End {
  int fd = -1;
  End* other = nullptr;  ///< none in `welcome`
  SSL* ssl = nullptr;
  bool welcomed = false;
};

struct Pair {
  End client, server;
};

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

int listen_on(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1, seconds = 45;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds);  // as the poolers do
  const sockaddr_in address = loopback(port);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || ::listen(fd, 1024) != 0) {
    fail("floor: listen");
  }
  return fd;
}

/// AuthenticationOk, what a PostgreSQL 15 reports, BackendKeyData, ReadyForQuery.
std::string make_welcome() {
  std::string out;
  const auto append = [&out](char type, std::string_view body) {
    const std::uint32_t length = htonl(static_cast<std::uint32_t>(body.size() + 4));
    out += type;
    out.append(reinterpret_cast<const char*>(&length), sizeof length).append(body);
  };
  append('R', "\0\0\0\0"sv);
  for (const std::string_view parameter :
       {"application_name\0\0"sv, "client_encoding\0UTF8\0"sv, "DateStyle\0ISO, MDY\0"sv,
        "default_transaction_read_only\0off\0"sv, "in_hot_standby\0off\0"sv, "integer_datetimes\0on\0"sv,
        "IntervalStyle\0postgres\0"sv, "is_superuser\0on\0"sv, "server_encoding\0UTF8\0"sv,
        "server_version\00015.0\0"sv, "session_authorization\0postgres\0"sv, "standard_conforming_strings\0on\0"sv,
        "TimeZone\0Etc/UTC\0"sv}) {
    append('S', parameter);
  }
  append('K', "\0\0\0\1\0\0\0\2"sv);
  append('Z', "I"sv);
  return out;
}

class Floor {
 public:
  Floor(int listen_port, int server_port, SSL_CTX* tls)
      : listen_fd_(listen_on(listen_port)), server_port_(server_port), tls_(tls) {
    add(listen_fd_, nullptr);
  }

  [[noreturn]] void run() {
    std::array<epoll_event, 256> events;
    for (;;) {
      const int count = ::epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < count; ++i) {
        auto* end = static_cast<End*>(events[static_cast<std::size_t>(i)].data.ptr);
        if (end == nullptr) {
          while (accept_client()) {
          }
        } else if (end->fd >= 0 && !(end->other != nullptr ? forward(*end) : welcome(*end))) {
          close(*end);
        }
      }
    }
  }

 private:
  void add(int fd, End* end) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = end;
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
  }

  // False when nobody waits.
  bool accept_client() {
    auto pair = std::make_unique<Pair>();
    End& client = pair->client;
    client.fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client.fd < 0) return false;
    if ((tls_ != nullptr && !begin_tls(client)) || (server_port_ != 0 && !connect_server(*pair))) {
      close(client);
      return true;
    }
    const int on = 1;
    for (End* end : {&client, client.other}) {
      if (end == nullptr) continue;
      ::setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      add(end->fd, end);
    }
    // What came together with the end of the handshake makes no event any more.
    if (client.ssl != nullptr && SSL_has_pending(client.ssl) == 1 && !forward(client)) close(client);
    pair.release();  // Both ends may be in one batch: they stay allocated, with closed descriptors, until the end.
    return true;
  }

  // An SSLRequest is expected, and its answer and the handshake waited for.
  bool begin_tls(End& client) {
    std::array<char, 8> request;
    client.ssl = SSL_new(tls_);
    return client.ssl != nullptr && ::recv(client.fd, request.data(), request.size(), MSG_WAITALL) == 8 &&
           ::send(client.fd, "S", 1, MSG_NOSIGNAL) == 1 && SSL_set_fd(client.ssl, client.fd) == 1 &&
           SSL_accept(client.ssl) == 1;
  }

  bool connect_server(Pair& pair) const {
    pair.server.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair.client.other = &pair.server;
    pair.server.other = &pair.client;
    const sockaddr_in address = loopback(server_port_);
    return ::connect(pair.server.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }

  // False when the pair is over.
  bool forward(End& from) {
    do {
      const ssize_t got = receive(from);
      if (got <= 0 || send(*from.other, {buffer_.data(), static_cast<std::size_t>(got)}) != got) return false;
    } while (from.ssl != nullptr && SSL_has_pending(from.ssl) == 1);
    return true;
  }

  // False when the client has left.
  bool welcome(End& client) {
    if (receive(client) <= 0) return false;
    if (client.welcomed) return true;
    client.welcomed = true;
    return send(client, welcome_) == static_cast<ssize_t>(welcome_.size());
  }

  ssize_t receive(End& from) {
    if (from.ssl != nullptr) return SSL_read(from.ssl, buffer_.data(), static_cast<int>(buffer_.size()));
    return ::recv(from.fd, buffer_.data(), buffer_.size(), 0);
  }

  static ssize_t send(End& to, std::string_view bytes) {
    if (to.ssl != nullptr) return SSL_write(to.ssl, bytes.data(), static_cast<int>(bytes.size()));
    return ::send(to.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }

  static void close(End& end) {
    for (End* one : {&end, end.other}) {
      if (one == nullptr || one->fd < 0) continue;
      SSL_free(one->ssl);
      one->ssl = nullptr;
      ::close(one->fd);
      one->fd = -1;
    }
  }

  int epoll_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
  int listen_fd_;
  int server_port_;  ///< 0: none
  SSL_CTX* tls_;
  std::vector<char> buffer_ = std::vector<char>(65536);
  std::string welcome_ = make_welcome();
};

SSL_CTX* make_tls(const char* certificate, const char* key) {
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  if (context == nullptr || SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
    fail("floor: certificate and key");
  }
  SSL_CTX_set_read_ahead(context, 1);  // one recv for a record, not two
  return context;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 5) {
    std::fprintf(stderr, "usage: floor LISTEN_PORT {SERVER_PORT [CERTIFICATE KEY] | welcome}\n");
    return 1;
  }
  ::signal(SIGPIPE, SIG_IGN);
  const int server_port = argv[2] == "welcome"sv ? 0 : std::atoi(argv[2]);
  Floor(std::atoi(argv[1]), server_port, argc == 5 ? make_tls(argv[3], argv[4]) : nullptr).run();
}
