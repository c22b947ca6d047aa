#include "proxy/io/logger.hpp"

#include <fcntl.h>
#include <sys/time.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace pgweir::io {

namespace {

constexpr std::size_t kLineMax = 2047;

constexpr std::array<std::string_view, 6> kWords{"FATAL", "ERROR", "WARNING", "LOG", "DEBUG", "NOISE"};
constexpr std::array<int, 4> kSyslogPriorities{LOG_CRIT, LOG_ERR, LOG_WARNING, LOG_INFO};

int facility_of(std::string_view name) {
  struct Entry {
    std::string_view name;
    int facility;
  };
  static constexpr std::array<Entry, 12> kFacilities{{{"auth", LOG_AUTH},
                                                      {"authpriv", LOG_AUTHPRIV},
                                                      {"daemon", LOG_DAEMON},
                                                      {"user", LOG_USER},
                                                      {"local0", LOG_LOCAL0},
                                                      {"local1", LOG_LOCAL1},
                                                      {"local2", LOG_LOCAL2},
                                                      {"local3", LOG_LOCAL3},
                                                      {"local4", LOG_LOCAL4},
                                                      {"local5", LOG_LOCAL5},
                                                      {"local6", LOG_LOCAL6},
                                                      {"local7", LOG_LOCAL7}}};
  for (const auto& entry : kFacilities) {
    if (entry.name == name) return entry.facility;
  }
  return LOG_DAEMON;
}

/// One line being put together on the stack; what does not fit is left out, the newline always fits.
class Line {
 public:
  void append(std::string_view piece) noexcept {
    const std::size_t n = std::min(piece.size(), kLineMax - 1 - size_);
    std::memcpy(bytes_.data() + size_, piece.data(), n);
    size_ += n;
  }
  void append_text(std::string_view text) noexcept {
    while (!text.empty()) {
      const std::size_t end = text.find('\n');
      append(text.substr(0, end));
      if (end == std::string_view::npos) return;
      append("\n\t");
      text.remove_prefix(end + 1);
    }
  }
  void finish() noexcept { bytes_[size_++] = '\n'; }
  [[nodiscard]] std::string_view view() const noexcept { return {bytes_.data(), size_}; }

 private:
  std::array<char, kLineMax> bytes_;
  std::size_t size_ = 0;
};

/// localtime_r takes a lock of the C library and may look at the zone file, hence once per second and thread.
void append_time(Line& line) noexcept {
  struct Cache {
    time_t second = -1;
    char date[32] = "";
    char zone[16] = "";
  };
  thread_local Cache cache;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (now.tv_sec != cache.second) {
    tm local{};
    ::localtime_r(&now.tv_sec, &local);
    if (::strftime(cache.date, sizeof cache.date, "%Y-%m-%d %H:%M:%S", &local) == 0) cache.date[0] = '\0';
    if (::strftime(cache.zone, sizeof cache.zone, "%Z", &local) == 0) cache.zone[0] = '\0';
    cache.second = now.tv_sec;
  }
  const auto ms = static_cast<int>(now.tv_nsec / 1000000);
  const char fraction[5] = {'.', static_cast<char>('0' + ms / 100), static_cast<char>('0' + ms / 10 % 10),
                            static_cast<char>('0' + ms % 10), ' '};
  line.append(cache.date);
  line.append({fraction, sizeof fraction});
  line.append(cache.zone);
}

void write_all(int fd, std::string_view bytes) noexcept {
  // A short write of a line means a full disk or a signal; trying once more is all that can be done about it.
  const ssize_t written = ::write(fd, bytes.data(), bytes.size());
  if (written < 0 || static_cast<std::size_t>(written) == bytes.size()) return;
  bytes.remove_prefix(static_cast<std::size_t>(written));
  [[maybe_unused]] const ssize_t rest = ::write(fd, bytes.data(), bytes.size());
}

}  // namespace

Logger::~Logger() {
  if (logfile_fd_ >= 0) ::close(logfile_fd_);
}

void Logger::configure(const LogSettings& settings) {
  if (!settings.logfile.empty()) {
    open_logfile(settings.logfile);
    to_logfile_ = true;
  } else {
    to_logfile_ = false;
  }
  to_stderr_ = settings.to_stderr;
  max_level_ = static_cast<int>(LogLevel::Log) + std::min(std::max(settings.verbosity, 0), 2);
  apply_syslog(settings);
}

void Logger::open_logfile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
  if (fd < 0) throw std::runtime_error(fmt::format("could not open log file '{}': {}", path, std::strerror(errno)));
  if (logfile_fd_ < 0) {
    logfile_fd_ = fd;
    return;
  }
  const int result = ::dup3(fd, logfile_fd_, O_CLOEXEC);
  const int error = errno;
  ::close(fd);
  if (result < 0) throw std::runtime_error(fmt::format("could not open log file '{}': {}", path, std::strerror(error)));
}

void Logger::apply_syslog(const LogSettings& settings) {
  const std::lock_guard lock(syslog_mutex_);
  if (to_syslog_) ::closelog();
  to_syslog_ = settings.syslog;
  if (!settings.syslog) return;
  syslog_ident_ = settings.syslog_ident;
  syslog_facility_ = facility_of(settings.syslog_facility);
  ::openlog(syslog_ident_.c_str(), LOG_PID, syslog_facility_);
}

void Logger::write(LogLevel level, std::string_view text) noexcept {
  if (!enabled(level)) return;
  const int saved_errno = errno;
  const bool to_file = to_logfile_.load(std::memory_order_relaxed);
  if (to_file || to_stderr_.load(std::memory_order_relaxed)) {
    Line line;
    append_time(line);
    const fmt::format_int pid(::getpid());
    line.append(" [");
    line.append({pid.data(), pid.size()});
    line.append("] ");
    line.append(kWords[static_cast<std::size_t>(level)]);
    line.append(" ");
    line.append_text(text);
    line.finish();
    if (to_stderr_.load(std::memory_order_relaxed)) write_all(STDERR_FILENO, line.view());
    if (to_file) write_all(logfile_fd_.load(std::memory_order_relaxed), line.view());
  }
  if (to_syslog_.load(std::memory_order_relaxed) && level <= LogLevel::Log) {
    const std::lock_guard lock(syslog_mutex_);
    const int length = static_cast<int>(std::min(text.size(), kLineMax));
    ::syslog(kSyslogPriorities[static_cast<std::size_t>(level)], "%.*s", length, text.data());
  }
  errno = saved_errno;
}

Logger& log() {
  // Never destroyed: other static objects may still want to say something at exit.
  static Logger& logger = *new Logger;
  return logger;
}

}  // namespace pgweir::io
