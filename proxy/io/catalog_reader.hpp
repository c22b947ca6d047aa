// Reads the catalogues of the databases whose reads go to standbys, and builds what the router knows of them: after a
// change of the catalogue, and every few minutes. On a thread of its own, since one of many thousand objects takes its
// time: probes are not to wait for it.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proxy/core/monitor_plan.hpp"
#include "proxy/io/libpq_connection.hpp"
#include "proxy/io/resolver.hpp"
#include "router/catalog_knowledge.hpp"
#include "router/statement_class.hpp"

namespace pgweir::io {

class CatalogReader {
 public:
  using Groups = std::map<std::string, core::MonitoredGroup>;
  /// On this object's thread; null: nothing is known any more.
  using Publish = std::function<void(const std::string& group, const std::string& dbname,
                                     std::shared_ptr<const router::CatalogKnowledge> knowledge)>;
  /// Any thread: an address of a name, told on the thread of the context.
  using LookupFrom =
      std::function<void(const std::string& name, boost::asio::io_context& context, Resolver::Callback reply)>;

  CatalogReader(Publish publish, LookupFrom lookup);
  CatalogReader(const CatalogReader&) = delete;
  CatalogReader& operator=(const CatalogReader&) = delete;
  /// Waits for a catalogue that is being worked on.
  ~CatalogReader();

  /// Starts the thread. Once.
  void start();
  /// Any thread: what is to be read from now on.
  void set_groups(Groups groups);
  /// Any thread: whom to ask.
  void set_table(const std::string& group, std::shared_ptr<const router::HostTable> table);
  /// Any thread: the catalogue has been changed on the primary; or clients have come for a database of the entry `*`.
  void changed(const std::string& group, const std::string& dbname);

 private:
  using Key = std::pair<std::string, std::string>;  // group, name on the servers
  struct Job;

  void apply(const Groups& groups);
  void make_job(const Key& key, const core::MonitorLogin& login, bool permanent);
  void run_due();
  void begin(Job& job, std::size_t host);
  void connect(Job& job, const core::HostPort& host, const std::string& address);
  void take_rows(Job& job, const PGresult* rows);
  void fail(Job& job, const std::string& text);
  void finish(Job& job, std::chrono::steady_clock::duration pause);
  void arm();
  [[nodiscard]] std::optional<std::size_t> choose_host(const Job& job) const;

  Publish publish_;
  LookupFrom lookup_;
  boost::asio::io_context context_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer timer_;
  Groups groups_;
  std::map<std::string, std::shared_ptr<const router::HostTable>> tables_;
  std::map<Key, std::unique_ptr<Job>> jobs_;
  std::size_t running_ = 0;
  std::uint64_t generation_ = 0;
  router::Classifier classifier_;
  std::thread thread_;
};

}  // namespace pgweir::io
