// The load generator for what pgbench cannot do: logins at full speed, thousands of idle clients, hostile clients.
#include <fmt/format.h>
#include <getopt.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "bench/client/loads.hpp"

namespace {

using pgweir::bench::LoadOptions;

int usage() {
  fmt::print(
      stderr,
      "usage: client logins|idle|slow_reader|one_byte|pipeline|rows --port=PORT [--user=NAME] [--database=NAME]\n"
      "       [--password=TEXT] [--tls] [--clients=N] [--seconds=S] [--users=N]\n"
      "--users: N logins, each of another user: NAME000, NAME001, ...\n");
  return 2;
}

bool parse(int argc, char** argv, LoadOptions& options) {
  const option known[] = {{"port", required_argument, nullptr, 'p'},
                          {"user", required_argument, nullptr, 'u'},
                          {"database", required_argument, nullptr, 'd'},
                          {"password", required_argument, nullptr, 'w'},
                          {"tls", no_argument, nullptr, 't'},
                          {"clients", required_argument, nullptr, 'c'},
                          {"seconds", required_argument, nullptr, 's'},
                          {"users", required_argument, nullptr, 'n'},
                          {nullptr, 0, nullptr, 0}};
  int found = 0;
  while ((found = ::getopt_long(argc, argv, "", known, nullptr)) != -1) {
    switch (found) {
      case 'p':
        options.target.port = std::atoi(optarg);
        break;
      case 'u':
        options.target.user = optarg;
        break;
      case 'd':
        options.target.database = optarg;
        break;
      case 'w':
        options.target.password = optarg;
        break;
      case 't':
        options.target.tls = true;
        break;
      case 'c':
        options.clients = std::atoi(optarg);
        break;
      case 's':
        options.seconds = std::atof(optarg);
        break;
      case 'n':
        options.users = std::atoi(optarg);
        break;
      default:
        return false;
    }
  }
  return options.target.port > 0 && options.clients > 0 && options.seconds > 0 && optind == argc;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return usage();
  const std::string_view kind = argv[1];
  LoadOptions options;
  if (!parse(argc - 1, argv + 1, options)) return usage();
  try {
    if (kind == "logins") {
      pgweir::bench::run_logins(options);
    } else if (kind == "idle") {
      pgweir::bench::run_idle(options);
    } else if (const auto hostile = pgweir::bench::find_hostile(kind)) {
      hostile(options);
    } else {
      return usage();
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "client {}: {}\n", kind, error.what());
    return 1;
  }
  return 0;
}
