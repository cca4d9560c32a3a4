// SPDX-License-Identifier: PostgreSQL
//
// A load generator that measures what clients of a busy server see, and not what a polite client sees.
//
// pgbench asks again when it has been answered: while the server stalls it asks nothing, and of all the requests real
// clients would have made in that time it counts one ("coordinated omission").  Here each request has an intended
// start, drawn beforehand (Poisson or constant arrivals), and its latency counts from there, whether the server, the
// pool or the generator's own queue in front of its connections made it late.  A closed loop (--clients) is there too.
//
// If the first column of an answer is named began_at (SELECT clock_timestamp() AS began_at, ...), the time from the
// intended start to that instant is reported as "wait": how long the client stood in front of the server.  The part of
// it that comes after the request was sent is "admission".  Both must run on the same machine: clocks are compared.
//
// Thousands of connections are served by one thread; "late" says how late that thread itself was.
//
// Exit status: 0, or 2 if a request has failed or was not finished in the end; 1 if the load could not be run.

#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "load/generator.hpp"

namespace {

using load::die;

constexpr char kUsage[] = R"(usage: open_loop [options] [CONNINFO]

CONNINFO and the environment are libpq's.  The load:
  --rate R                 open loop: R requests per second
  --arrivals KIND          poisson (default) or constant
  --burst RATE:FROM:FOR    another rate from second FROM on, for so many seconds; may be repeated
  --connections N          connections of the open loop (50)
  --clients N, -c N        closed loop instead: N connections, each starts when it has been answered
  --think MS               closed loop: pause between two requests of a client
  --query SQL              what a request is (SELECT 1)
  --script FILE            ... or several statements, see load/script.hpp
  --define NAME=VALUE, -D  a variable of the script
  --warmup S               seconds before the measured time (0)
  --seconds S              measured time (10): intended starts in it count
  --drain S                longest time to wait for the last answers (30)
  --seed N                 of arrivals and variables (1)
The report:
  --csv FILE               the percentiles, one measure per line
  --histogram FILE         the distributions: measure,low_us,high_us,count
  --requests FILE          each request: intended_us,queued_us,wait_us,latency_us,sqlstate (wait -1: not told)
  --before-leaving COMMAND runs when all is answered, with the connections still open
  --progress               a line on standard error each second
)";

double number(const char *text, double low, double high) {
  char *end;
  const double value = strtod(text, &end);
  if (end == text || *end != '\0' || !(value >= low && value <= high))
    die(std::string("not a number between ") + std::to_string(low) + " and " + std::to_string(high) + ": " + text);
  return value;
}

FILE *create(const char *name) {
  FILE *file = fopen(name, "w");
  if (file == nullptr) die(std::string("could not create ") + name);
  return file;
}

void finish_file(FILE *file) {
  if (file != nullptr && (ferror(file) != 0 || fclose(file) != 0)) die("could not write a file");
}

load::Burst parse_burst(const std::string &text) {
  std::istringstream words(text);
  std::string word;
  double values[3];
  for (double &value : values) {
    if (!std::getline(words, word, ':')) die("not RATE:FROM:FOR: " + text);
    value = number(word.c_str(), 0, 1e6);
  }
  return {values[0], values[1], values[1] + values[2]};
}

std::string contents(const char *name) {
  std::ifstream file(name);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) die(std::string("could not read ") + name);
  return text.str();
}

struct Ending {
  const char *command = nullptr;
  FILE *csv = nullptr;
  FILE *histogram = nullptr;
};

enum Option { kRate = 256, kArrivals, kBurst, kConnections, kThink, kQuery, kScript, kWarmup, kSeconds, kDrain, kSeed,
              kCsv, kHistogram, kRequests, kBeforeLeaving, kProgress, kHelp };

const option kOptions[] = {{"rate", required_argument, nullptr, kRate},
                           {"arrivals", required_argument, nullptr, kArrivals},
                           {"burst", required_argument, nullptr, kBurst},
                           {"connections", required_argument, nullptr, kConnections},
                           {"clients", required_argument, nullptr, 'c'},
                           {"think", required_argument, nullptr, kThink},
                           {"query", required_argument, nullptr, kQuery},
                           {"script", required_argument, nullptr, kScript},
                           {"define", required_argument, nullptr, 'D'},
                           {"warmup", required_argument, nullptr, kWarmup},
                           {"seconds", required_argument, nullptr, kSeconds},
                           {"drain", required_argument, nullptr, kDrain},
                           {"seed", required_argument, nullptr, kSeed},
                           {"csv", required_argument, nullptr, kCsv},
                           {"histogram", required_argument, nullptr, kHistogram},
                           {"requests", required_argument, nullptr, kRequests},
                           {"before-leaving", required_argument, nullptr, kBeforeLeaving},
                           {"progress", no_argument, nullptr, kProgress},
                           {"help", no_argument, nullptr, kHelp},
                           {nullptr, 0, nullptr, 0}};

void take_arrivals(load::Options &options, const std::string &kind) {
  if (kind != "poisson" && kind != "constant") die("arrivals are poisson or constant, not " + kind);
  options.poisson = kind == "poisson";
}

void take_variable(load::Options &options, const std::string &text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) die("not NAME=VALUE: " + text);
  options.variables[text.substr(0, equals)] = text.substr(equals + 1);
}

void take_option(load::Options &options, Ending &ending, int which) {
  switch (which) {
    case kRate: options.rate = number(optarg, 0.001, 1e6); break;
    case kArrivals: take_arrivals(options, optarg); break;
    case kBurst: options.bursts.push_back(parse_burst(optarg)); break;
    case kConnections: options.connections = static_cast<size_t>(number(optarg, 1, 100000)); break;
    case 'c':
      options.closed = true;
      options.connections = static_cast<size_t>(number(optarg, 1, 100000));
      break;
    case kThink: options.think_ms = number(optarg, 0, 1e6); break;
    case kQuery: options.script = load::script_of_query(optarg); break;
    case kScript: options.script = load::parse_script(contents(optarg)); break;
    case 'D': take_variable(options, optarg); break;
    case kWarmup: options.warmup_s = number(optarg, 0, 3600); break;
    case kSeconds: options.seconds = number(optarg, 0.01, 86400); break;
    case kDrain: options.drain_s = number(optarg, 0, 3600); break;
    case kSeed: options.seed = static_cast<uint64_t>(number(optarg, 0, 1e15)); break;
    case kCsv: ending.csv = create(optarg); break;
    case kHistogram: ending.histogram = create(optarg); break;
    case kRequests: options.requests = create(optarg); break;
    case kBeforeLeaving: ending.command = optarg; break;
    case kProgress: options.progress = true; break;
    case kHelp: fputs(kUsage, stdout); exit(0);
    default: fputs(kUsage, stderr); exit(1);
  }
}

void check_options(load::Options &options) {
  if (options.script.steps.empty()) options.script = load::script_of_query("SELECT 1");
  if (options.closed == (options.rate > 0)) die("either --rate or --clients is needed");
  if (options.closed && !options.bursts.empty()) die("a closed loop has no bursts");
}

void raise_descriptor_limit(size_t wanted) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die("could not read the limit of open files");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die("could not raise the limit of open files");
  if (limit.rlim_max < wanted + 32) die("the limit of open files is too low: " + std::to_string(limit.rlim_max));
}

void print_report(const load::Options &options, const load::Result &result) {
  if (options.closed)
    printf("load: closed loop, %zu clients, pause %g ms\n", options.connections, options.think_ms);
  else
    printf("load: open loop, %g requests per second, %s arrivals, %zu connections\n", options.rate,
           options.poisson ? "Poisson" : "constant", options.connections);
  printf("measured: %g s after %g s, seed %" PRIu64 "\n", options.seconds, options.warmup_s, options.seed);
  printf("requests: %" PRIu64 "\nsucceeded: %" PRIu64 "\nfailed: %" PRIu64 "\n", result.requests, result.succeeded,
         result.failed);
  for (const auto &error : result.errors) printf("error %s: %" PRIu64 "\n", error.first.c_str(), error.second);
  printf("unfinished: %" PRIu64 "\n", result.unfinished);
  if (result.connections_lost > 0 || result.reconnects_failed > 0)
    printf("connections lost: %" PRIu64 ", attempts to replace them that failed: %" PRIu64 "\n",
           result.connections_lost, result.reconnects_failed);
  printf("most queued here: %" PRIu64 "\n", result.most_queued);
  printf("throughput: %.1f per second\n", static_cast<double>(result.completed_in_time) / options.seconds);
}

void print_measurements(const load::Result &result, FILE *table, const Ending &ending) {
  load::Measurement::print_header(table, false);
  if (ending.csv != nullptr) load::Measurement::print_header(ending.csv, true);
  if (ending.histogram != nullptr) fputs("measure,low_us,high_us,count\n", ending.histogram);
  for (const load::Measurement *measurement :
       {&result.latency, &result.wait, &result.admission, &result.service, &result.queued, &result.late}) {
    if (measurement->count() == 0 && measurement != &result.latency) continue;
    measurement->print(table, false);
    if (ending.csv != nullptr) measurement->print(ending.csv, true);
    if (ending.histogram != nullptr) measurement->print_histogram(ending.histogram);
  }
}

}  // namespace

int main(int argc, char **argv) {
  static load::Options options;
  Ending ending;
  int which;
  while ((which = getopt_long(argc, argv, "c:D:", kOptions, nullptr)) != -1) take_option(options, ending, which);
  if (optind < argc) options.conninfo = argv[optind++];
  if (optind < argc) die(std::string("unexpected: ") + argv[optind]);
  check_options(options);
  raise_descriptor_limit(options.connections);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1);
  if (options.requests != nullptr) fputs("intended_us,queued_us,wait_us,latency_us,sqlstate\n", options.requests);

  load::Generator generator(options);
  generator.connect_all();
  generator.run();
  if (ending.command != nullptr && system(ending.command) != 0)
    die(std::string("the command failed: ") + ending.command);

  const load::Result &result = generator.result();
  print_report(options, result);
  print_measurements(result, stdout, ending);
  for (FILE *file : {ending.csv, ending.histogram, options.requests}) finish_file(file);
  return result.failed > 0 || result.unfinished > 0 ? 2 : 0;
}
