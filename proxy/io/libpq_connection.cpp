#include "proxy/io/libpq_connection.hpp"

#include <fmt/format.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace pgweir::io {

using boost::asio::posix::stream_descriptor;

namespace {

constexpr const char* kApplicationName = "pgweir monitor";
/// A file that cannot exist: libpq would otherwise look for certificates in the home directory of the process.
constexpr const char* kNoFile = "/dev/null/none";

bool is_sqlstate(std::string_view text) {
  return text.size() == 5 && text.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string_view::npos;
}

// "FATAL:  28P01: password ..." in the verbose form: takes the code out of the line, so that it reads as usual.
void take_sqlstate(std::string& line, std::string& sqlstate) {
  for (std::size_t at = line.find(":  "); at != std::string::npos; at = line.find(":  ", at + 1)) {
    const std::string_view rest = std::string_view(line).substr(at + 3);
    if (rest.size() < 7 || !is_sqlstate(rest.substr(0, 5)) || rest.substr(5, 2) != ": ") continue;
    sqlstate = std::string(rest.substr(0, 5));
    line.erase(at + 3, 7);
    return;
  }
}

// Which host it is about is told anyway, and so is the severity.
void drop_preamble(std::string& line) {
  if (line.starts_with("connection to server ")) {
    if (const std::size_t at = line.find(" failed: "); at != std::string::npos) line.erase(0, at + 9);
  }
  for (const std::string_view word : {"FATAL:  ", "ERROR:  ", "DETAIL:  ", "HINT:  "}) {
    if (line.starts_with(word)) line.erase(0, word.size());
  }
}

// The system's CA certificates, where the workers take them from too if no file is configured.
std::string system_ca_file() {
  for (const char* file : {::X509_get_default_cert_file(), "/etc/ssl/certs/ca-certificates.crt"}) {
    if (::access(file, R_OK) == 0) return file;
  }
  return kNoFile;
}

struct Option {
  const char* key;
  std::string value;
};

std::vector<Option> connection_options(const core::HostPort& host, const std::string& address,
                                       const core::MonitorLogin& login) {
  const bool verifies = login.sslmode >= core::SslMode::VerifyCa;
  std::vector<Option> options{{"host", host.host},
                              {"port", std::to_string(host.port)},
                              {"dbname", login.dbname},
                              {"user", login.user},
                              {"application_name", kApplicationName},
                              {"client_encoding", "UTF8"},
                              {"target_session_attrs", "any"},
                              // A hot standby would answer nothing if the role or the database were serializable.
                              {"options", "-c default_transaction_isolation=read\\ committed"},
                              {"gssencmode", "disable"},
                              {"sslmode", host.is_unix() ? "disable" : std::string(core::to_string(login.sslmode))},
                              {"sslrootcert", !login.ca_file.empty() && verifies ? login.ca_file
                                              : verifies                         ? system_ca_file()
                                                                                 : kNoFile},
                              {"sslcrl", kNoFile},
                              {"sslcert", login.cert_file.empty() ? kNoFile : login.cert_file},
                              {"sslkey", login.key_file.empty() ? kNoFile : login.key_file}};
  if (!address.empty()) options.push_back({"hostaddr", address});
  if (login.password) options.push_back({"password", *login.password});
  return options;
}

PGconn* start(const std::vector<Option>& options) {
  std::vector<const char*> keys, values;
  for (const Option& option : options) {
    keys.push_back(option.key);
    values.push_back(option.value.c_str());
  }
  keys.push_back(nullptr);
  values.push_back(nullptr);
  return ::PQconnectStartParams(keys.data(), values.data(), 0);
}

std::string field(const PGresult* result, int code) {
  const char* text = ::PQresultErrorField(result, code);
  return text == nullptr ? std::string() : text;
}

LibpqFailure failure_of(const PGresult* result) {
  LibpqFailure failure;
  failure.sqlstate = field(result, PG_DIAG_SQLSTATE);
  failure.text = field(result, PG_DIAG_MESSAGE_PRIMARY);
  if (const std::string detail = field(result, PG_DIAG_MESSAGE_DETAIL); !detail.empty()) {
    failure.text += "; " + detail;
  }
  if (failure.text.empty()) failure.text = fmt::format("unexpected result {}", ::PQresStatus(::PQresultStatus(result)));
  failure.refused = failure.sqlstate == "57P03";
  return failure;
}

}  // namespace

LibpqFailure parse_libpq_error(std::string_view message) {
  LibpqFailure failure;
  std::vector<std::string> told;
  bool on_socket = false;
  while (!message.empty()) {
    const std::size_t end = std::min(message.find('\n'), message.size());
    std::string line(message.substr(0, end));
    message.remove_prefix(std::min(end + 1, message.size()));
    // Advice is indented; the place in PostgreSQL's source helps nobody.
    if (line.empty() || line.front() == '\t' || line.starts_with("LOCATION:")) continue;
    on_socket = on_socket || line.starts_with("connection to server on socket");
    take_sqlstate(line, failure.sqlstate);
    drop_preamble(line);
    // With and without TLS, it mostly fails alike.
    if (std::find(told.begin(), told.end(), line) == told.end()) told.push_back(std::move(line));
  }
  failure.text = told.empty() ? "connection failed" : fmt::format("{}", fmt::join(told, "; "));
  // libpq keeps no errno: its texts are strerror's.
  const auto says = [&](int error) { return failure.text.find(std::strerror(error)) != std::string::npos; };
  const bool nobody_listens = failure.sqlstate.empty() && (says(ECONNREFUSED) || (on_socket && says(ENOENT)));
  failure.refused = failure.sqlstate == "57P03" || nobody_listens;
  return failure;
}

LibpqConnection::LibpqConnection(boost::asio::io_context& context) : context_(context), socket_(context) {}

LibpqConnection::~LibpqConnection() {
  close();
}

void LibpqConnection::close() {
  life_.reset();
  if (socket_.is_open()) (void)socket_.release();
  if (connection_ != nullptr) ::PQfinish(std::exchange(connection_, nullptr));
  state_ = State::Closed;
  opened_ = nullptr;
  answered_ = nullptr;
  result_.reset();
  last_words_.clear();
}

void LibpqConnection::wait(stream_descriptor::wait_type what, void (LibpqConnection::*next)()) {
  if (!socket_.is_open()) socket_.assign(::PQsocket(connection_));
  life_ = std::make_shared<char>();
  socket_.async_wait(what, [this, next, life = std::weak_ptr<char>(life_)](const boost::system::error_code& error) {
    if (life.expired() || error == boost::asio::error::operation_aborted) return;
    (this->*next)();
  });
}

void LibpqConnection::later(std::function<void()> action) {
  life_ = std::make_shared<char>();
  boost::asio::post(context_, [life = std::weak_ptr<char>(life_), action = std::move(action)] {
    if (!life.expired()) action();
  });
}

// ---- connecting ----

void LibpqConnection::open(const core::HostPort& host, const std::string& address, const core::MonitorLogin& login,
                           Opened opened) {
  close();
  connection_ = start(connection_options(host, address, login));
  if (connection_ == nullptr) throw std::bad_alloc();
  opened_ = std::move(opened);
  state_ = State::Connecting;
  ::PQsetNoticeReceiver(connection_, on_notice, this);
  (void)::PQsetErrorVerbosity(connection_, PQERRORS_VERBOSE);
  polling_ = PGRES_POLLING_WRITING;
  if (::PQstatus(connection_) == CONNECTION_BAD || ::PQsocket(connection_) < 0) {
    return later([this] { open_failed(); });
  }
  wait(stream_descriptor::wait_write, &LibpqConnection::poll_connect);
}

// libpq may close its socket and open another one, so the reactor must not know of it meanwhile.
void LibpqConnection::poll_connect() {
  if (socket_.is_open()) (void)socket_.release();
  polling_ = ::PQconnectPoll(connection_);
  if (polling_ == PGRES_POLLING_FAILED || ::PQsocket(connection_) < 0) return open_failed();
  if (polling_ != PGRES_POLLING_OK) {
    return wait(polling_ == PGRES_POLLING_READING ? stream_descriptor::wait_read : stream_descriptor::wait_write,
                &LibpqConnection::poll_connect);
  }
  if (::PQsetnonblocking(connection_, 1) != 0) return open_failed();
  state_ = State::Idle;
  watch();
  const Opened opened = std::exchange(opened_, nullptr);
  opened(nullptr);
}

void LibpqConnection::open_failed() {
  LibpqFailure failure = parse_libpq_error(::PQerrorMessage(connection_));
  failure.needs_password = ::PQconnectionNeedsPassword(connection_) != 0;
  const Opened opened = std::exchange(opened_, nullptr);
  close();
  opened(&failure);
}

// ---- asking ----

void LibpqConnection::ask(const std::string& statement, Answered answered) {
  answered_ = std::move(answered);
  state_ = State::Asking;
  result_.reset();
  if (::PQsendQuery(connection_, statement.c_str()) == 0) return later([this] { finish_answer(); });
  flush();
}

void LibpqConnection::flush() {
  const int left = ::PQflush(connection_);
  if (left < 0) return later([this] { finish_answer(); });
  if (left > 0) return wait(stream_descriptor::wait_write, &LibpqConnection::flush);
  wait(stream_descriptor::wait_read, &LibpqConnection::read_answer);
}

// The first failure counts; without one, the last result.
void LibpqConnection::read_answer() {
  const bool alive = ::PQconsumeInput(connection_) != 0;
  while (::PQisBusy(connection_) == 0) {
    LibpqResult next(::PQgetResult(connection_));
    if (!next) return finish_answer();
    const bool failed = result_ && ::PQresultStatus(result_.get()) == PGRES_FATAL_ERROR;
    if (!failed) result_ = std::move(next);
  }
  if (!alive) return finish_answer();
  wait(stream_descriptor::wait_read, &LibpqConnection::read_answer);
}

void LibpqConnection::finish_answer() {
  LibpqResult result = std::move(result_);
  const Answered answered = std::exchange(answered_, nullptr);
  const bool rows = result && ::PQresultStatus(result.get()) == PGRES_TUPLES_OK;
  const bool broken = ::PQstatus(connection_) == CONNECTION_BAD || (!rows && !result);
  LibpqFailure failure;
  if (!rows) {
    failure = result && !field(result.get(), PG_DIAG_SQLSTATE).empty()
                  ? failure_of(result.get())
                  : parse_libpq_error(::PQerrorMessage(connection_));
  }
  if (broken) {
    close();
  } else {
    state_ = State::Idle;
    watch();
  }
  if (rows) {
    answered(std::move(result), nullptr);
  } else {
    answered(nullptr, &failure);
  }
}

// ---- while nothing is asked ----

void LibpqConnection::watch() {
  wait(stream_descriptor::wait_read, &LibpqConnection::idle_readable);
}

void LibpqConnection::idle_readable() {
  const bool alive = ::PQconsumeInput(connection_) != 0;
  (void)::PQisBusy(connection_);  // reads what has come: the server's last words arrive as a notice
  if (alive && ::PQstatus(connection_) == CONNECTION_OK) return watch();
  const std::string text = !last_words_.empty() ? last_words_ : parse_libpq_error(::PQerrorMessage(connection_)).text;
  close();
  if (lost_) lost_(text);
}

void LibpqConnection::on_notice(void* self, const PGresult* notice) {
  auto& connection = *static_cast<LibpqConnection*>(self);
  if (field(notice, PG_DIAG_SEVERITY_NONLOCALIZED) == "FATAL") connection.last_words_ = failure_of(notice).text;
}

}  // namespace pgweir::io
