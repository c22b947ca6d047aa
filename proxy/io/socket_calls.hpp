// The system calls of the byte path, as recv(2), send(2) and epoll_wait(2) describe them. In a process with threads
// those of the C library are cancellation points: each brackets its call with two atomic exchanges, a twentieth of all
// that a transaction takes in user space. No thread here is ever cancelled. Sanitizers must see what is read and
// written, so they get the library's.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

namespace pgweir::io {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)

inline ssize_t receive_bytes(int fd, void* buffer, std::size_t size) {
  return ::recv(fd, buffer, size, 0);
}
inline ssize_t send_bytes(int fd, const void* bytes, std::size_t size) {
  return ::send(fd, bytes, size, MSG_NOSIGNAL);
}
inline int wait_for_events(int epoll, epoll_event* events, int max, int timeout_ms) {
  return ::epoll_wait(epoll, events, max, timeout_ms);
}

#else

inline ssize_t receive_bytes(int fd, void* buffer, std::size_t size) {
  return ::syscall(SYS_recvfrom, fd, buffer, size, 0, nullptr, nullptr);
}
inline ssize_t send_bytes(int fd, const void* bytes, std::size_t size) {
  return ::syscall(SYS_sendto, fd, bytes, size, MSG_NOSIGNAL, nullptr, 0);
}
inline int wait_for_events(int epoll, epoll_event* events, int max, int timeout_ms) {
  return static_cast<int>(::syscall(SYS_epoll_pwait, epoll, events, max, timeout_ms, nullptr, 0));
}

#endif

}  // namespace pgweir::io
