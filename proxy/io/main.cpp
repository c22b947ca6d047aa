// The command line, as PgBouncer's, and the order of start-up.
#include <fmt/format.h>
#include <getopt.h>
#include <openssl/crypto.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "pgweir_version.hpp"
#include "proxy/io/logger.hpp"
#include "proxy/io/process.hpp"
#include "proxy/io/resolver.hpp"
#include "proxy/io/runtime.hpp"

namespace {

using pgweir::io::log;

void print_usage(const char* program) {
  fmt::print(
      "{} is a connection pooler for PostgreSQL.\n\n"
      "Usage:\n  {} [OPTION]... CONFIG_FILE\n\n"
      "Options:\n"
      "  -d, --daemon         run in background (as a daemon)\n"
      "  -q, --quiet          log nothing to stderr\n"
      "  -R, --reboot         take over clients and servers from the process that runs\n"
      "  -u, --user=USERNAME  assume identity of USERNAME\n"
      "  -v, --verbose        increase verbosity\n"
      "      --check          check the configuration and the files it names, start nothing\n"
      "  -V, --version        show version, then exit\n"
      "  -h, --help           show this help, then exit\n",
      program, program);
}

void print_version() {
  fmt::print("PgWeir {}\nepoll\nadns: {}\ntls: {}\n", PGWEIR_VERSION, pgweir::io::resolver_version(),
             OpenSSL_version(OPENSSL_VERSION));
}

struct CommandLine {
  pgweir::io::Options options;
  bool check = false;
};

// Exits for --help, --version and mistakes.
CommandLine parse_command_line(int argc, char** argv) {
  static const option names[] = {{"daemon", no_argument, nullptr, 'd'},
                                 {"quiet", no_argument, nullptr, 'q'},
                                 {"reboot", no_argument, nullptr, 'R'},
                                 {"user", required_argument, nullptr, 'u'},
                                 {"verbose", no_argument, nullptr, 'v'},
                                 {"version", no_argument, nullptr, 'V'},
                                 {"help", no_argument, nullptr, 'h'},
                                 {"check", no_argument, nullptr, 1},
                                 {nullptr, 0, nullptr, 0}};
  CommandLine result;
  int choice;
  while ((choice = getopt_long(argc, argv, "dqRu:vVh", names, nullptr)) != -1) {
    switch (choice) {
      case 'd':
        result.options.daemon = true;
        break;
      case 'q':
        result.options.quiet = true;
        break;
      case 'R':
        result.options.reboot = true;
        break;
      case 'u':
        result.options.user = optarg;
        break;
      case 'v':
        ++result.options.verbose;
        break;
      case 'V':
        print_version();
        std::exit(0);
      case 'h':
        print_usage(argv[0]);
        std::exit(0);
      case 1:
        result.check = true;
        break;
      default:
        fmt::print(stderr, "Try \"{} --help\" for more information.\n", argv[0]);
        std::exit(1);
    }
  }
  if (argc - optind != 1) {
    fmt::print(stderr, "{}: need exactly one configuration file, got {}\nTry \"{} --help\" for more information.\n",
               argv[0], argc - optind, argv[0]);
    std::exit(1);
  }
  result.options.config_file = argv[optind];
  return result;
}

int check_only(const pgweir::io::LoadedConfig& loaded) {
  for (const std::string& warning : loaded.warnings) fmt::print(stderr, "{}\n", warning);
  for (const std::string& problem : loaded.problems) fmt::print(stderr, "{}\n", problem);
  const bool ok = loaded.settings != nullptr && loaded.warnings.empty();
  if (ok) fmt::print("configuration is valid\n");
  return ok ? 0 : 1;
}

int start(const CommandLine& line) {
  pgweir::io::LoadedConfig loaded = pgweir::io::load_settings(line.options.config_file, nullptr, line.options.verbose);
  if (line.check) return check_only(loaded);
  for (const std::string& warning : loaded.warnings) log().error("{}", warning);
  for (const std::string& problem : loaded.problems) log().error("{}", problem);
  if (!loaded.settings) {
    log().fatal("cannot load config file");
    return 1;
  }
  const pgweir::core::Config& config = *loaded.settings->config;
  if (line.options.daemon && config.pidfile.empty()) {
    log().fatal("daemon needs pidfile configured");
    return 1;
  }
  pgweir::io::switch_user(!line.options.user.empty() ? line.options.user : config.user.value_or(""));
  pgweir::io::refuse_root("PgWeir");
  pgweir::io::configure_log(config, line.options);
  int code = 0;
  bool all_ended = false;
  {
    pgweir::io::Runtime runtime(line.options, std::move(loaded));
    code = runtime.run();
    all_ended = runtime.finish();
  }
  // A thread that hangs in a module of PAM must not find what it uses taken down.
  if (!all_ended) std::_Exit(code);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  const CommandLine line = parse_command_line(argc, argv);
  try {
    return start(line);
  } catch (const std::exception& e) {
    log().fatal("{}", e.what());
    return 1;
  }
}
