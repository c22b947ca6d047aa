// The log: line form, levels and destinations as PgBouncer's, so that existing parsers work. It decides nothing about
// what is worth a line. No secrets and no query text are to be given to it.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace pgweir::io {

/// In falling severity. The words printed are FATAL, ERROR, WARNING, LOG, DEBUG, NOISE.
enum class LogLevel : int { Fatal, Error, Warning, Log, Debug, Noise };

/// Destinations are independent of each other.
struct LogSettings {
  bool to_stderr = true;
  std::string logfile;  // Empty: none.
  bool syslog = false;  // Gets LOG and above only.
  std::string syslog_facility = "daemon";
  std::string syslog_ident = "pgbouncer";
  int verbosity = 0;  // 0: up to LOG, 1: DEBUG, 2 and more: NOISE.

  bool operator==(const LogSettings&) const = default;
};

/// Any thread may write; each line is one write(2) per destination. configure() from one thread at a time.
class Logger {
 public:
  Logger() = default;
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;
  ~Logger();

  /// Opens the log file anew even if its name has not changed, for rotation. Throws std::runtime_error if that fails;
  /// then nothing has changed.
  void configure(const LogSettings& settings);

  [[nodiscard]] bool enabled(LogLevel level) const noexcept {
    return static_cast<int>(level) <= max_level_.load(std::memory_order_relaxed);
  }
  /// Writes one line: "YYYY-MM-DD HH:MM:SS.mmm TZ [PID] LEVEL text\n", local time; newlines in `text` become newline
  /// and tab; cut to 2047 bytes with the final newline.
  void write(LogLevel level, std::string_view text) noexcept;

  template <typename... Args>
  void print(LogLevel level, fmt::format_string<Args...> form, Args&&... args) {
    if (!enabled(level)) return;
    fmt::memory_buffer text;
    fmt::format_to(std::back_inserter(text), form, std::forward<Args>(args)...);
    write(level, {text.data(), text.size()});
  }
  template <typename... Args>
  void fatal(fmt::format_string<Args...> form, Args&&... args) {
    print(LogLevel::Fatal, form, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void error(fmt::format_string<Args...> form, Args&&... args) {
    print(LogLevel::Error, form, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void warning(fmt::format_string<Args...> form, Args&&... args) {
    print(LogLevel::Warning, form, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void info(fmt::format_string<Args...> form, Args&&... args) {
    print(LogLevel::Log, form, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void debug(fmt::format_string<Args...> form, Args&&... args) {
    print(LogLevel::Debug, form, std::forward<Args>(args)...);
  }
  template <typename... Args>
  void noise(fmt::format_string<Args...> form, Args&&... args) {
    print(LogLevel::Noise, form, std::forward<Args>(args)...);
  }

 private:
  void open_logfile(const std::string& path);
  void apply_syslog(const LogSettings& settings);

  std::atomic<int> max_level_{static_cast<int>(LogLevel::Log)};
  std::atomic<bool> to_stderr_{true};
  std::atomic<bool> to_syslog_{false};
  // Once open, the number never changes: reopening puts the new file under it with dup2, so that writers need no lock.
  std::atomic<int> logfile_fd_{-1};
  std::atomic<bool> to_logfile_{false};
  std::mutex syslog_mutex_;  // openlog keeps a pointer into syslog_ident_.
  std::string syslog_ident_;
  int syslog_facility_ = 0;
};

/// The process's log.
[[nodiscard]] Logger& log();

}  // namespace pgweir::io
