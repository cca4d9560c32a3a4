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
// Thousands of connections are served by one thread, with an engine of its own for the protocol (load/wire.hpp): it
// shares the machine with what it measures.  "late" says how late that thread itself was.
//
// Exit status: 0, or 2 if a request has failed or was not finished in the end, or an idle connection was lost; 1 if the
// load could not be run.

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

constexpr char kUsage[] = R"(usage: load_generator [options] [CONNINFO]

CONNINFO is "host= port= dbname= user= [sslmode=require]"; the server must trust.  The load:
  --rate R                 open loop: R requests per second
  --arrivals KIND          poisson (default) or constant
  --burst RATE:FROM:FOR    another rate from second FROM on, for so many seconds; may be repeated
  --connections N          connections of the open loop (50)
  --clients N, -c N        closed loop instead: N connections, each starts when it has been answered
  --think MS               closed loop: pause between two requests of a client
  --begin-together         closed loop: all clients are meant to start at the same instant
  --reconnect              each request opens a connection and closes it
  --hold-idle N            so many further connections, opened first, that never ask anything
  --opening-at-once N      connections that are being opened at the same time before the load (32)
  --query SQL              what a request is (SELECT 1)
  --script FILE            ... or several statements, see load/script.hpp
  --script NAME=FILE[@W]   ... or a mix of several such, by weight (1)
  --define NAME=VALUE, -D  a variable of the scripts
  --protocol KIND          simple (default) or prepared
  --warmup S               seconds before the measured time (0)
  --seconds S              measured time (10): intended starts in it count
  --operations N           end after N requests in all; --seconds (3600) is the longest time then
  --drain S                longest time to wait for the last answers (30)
  --seed N                 of arrivals and variables (1)
The report:
  --csv FILE               the percentiles, one measure per line; and totals in FILE.summary.csv: name,value
  --histogram FILE         the distributions: measure,low_us,high_us,count
  --requests FILE          each request: intended_us,queued_us,wait_us,latency_us,sqlstate (wait -1: not told)
  --samples FILE           each 100 ms: at_ms,succeeded,failed,active,slowest_us
  --after-opening COMMAND  runs when the connections are open, before the load
  --before-leaving COMMAND runs when all is answered, with the connections still open
  --watch-stalls           also how long processors did not run what was due; without the right to
                           real-time priorities other processes count as well
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
  const char *after_opening = nullptr;
  const char *command = nullptr;
  FILE *csv = nullptr;
  FILE *summary = nullptr;
  FILE *histogram = nullptr;
};

enum Option { kRate = 256, kArrivals, kBurst, kConnections, kThink, kQuery, kScript, kWarmup, kSeconds, kDrain, kSeed,
              kCsv, kHistogram, kRequests, kBeforeLeaving, kProgress, kHelp, kBeginTogether, kReconnect, kHoldIdle,
              kOpeningAtOnce, kProtocol, kOperations, kSamples, kAfterOpening, kWatchStalls };

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
                           {"begin-together", no_argument, nullptr, kBeginTogether},
                           {"reconnect", no_argument, nullptr, kReconnect},
                           {"hold-idle", required_argument, nullptr, kHoldIdle},
                           {"opening-at-once", required_argument, nullptr, kOpeningAtOnce},
                           {"protocol", required_argument, nullptr, kProtocol},
                           {"operations", required_argument, nullptr, kOperations},
                           {"samples", required_argument, nullptr, kSamples},
                           {"after-opening", required_argument, nullptr, kAfterOpening},
                           {"watch-stalls", no_argument, nullptr, kWatchStalls},
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

// FILE, NAME=FILE or NAME=FILE@WEIGHT.
void take_script(load::Options &options, const std::string &text) {
  const size_t equals = text.find('=');
  std::string file = equals == std::string::npos ? text : text.substr(equals + 1);
  double weight = 1;
  const size_t at = file.rfind('@');
  const bool weighed = at != std::string::npos && at + 1 < file.size() &&
                       file.find_first_not_of("0123456789.", at + 1) == std::string::npos;
  if (weighed) {
    weight = number(file.c_str() + at + 1, 1e-6, 1e6);
    file.resize(at);
  }
  options.scripts.push_back(load::parse_script(contents(file.c_str())));
  options.scripts.back().name = equals == std::string::npos ? file : text.substr(0, equals);
  options.scripts.back().weight = weight;
}

void take_protocol(load::Options &options, const std::string &kind) {
  if (kind != "simple" && kind != "prepared") die("the protocol is simple or prepared, not " + kind);
  options.prepared = kind == "prepared";
}

void take_csv(Ending &ending, const std::string &name) {
  ending.csv = create(name.c_str());
  ending.summary = create((name + ".summary.csv").c_str());
}

size_t count(const char *text, double low) { return static_cast<size_t>(number(text, low, 1e6)); }

// What concerns the load; false if the option is another one.
bool take_load_option(load::Options &options, int which) {
  switch (which) {
    case kRate: options.rate = number(optarg, 0.001, 1e6); return true;
    case kArrivals: take_arrivals(options, optarg); return true;
    case kBurst: options.bursts.push_back(parse_burst(optarg)); return true;
    case kConnections: options.connections = count(optarg, 1); return true;
    case 'c':
      options.closed = true;
      options.connections = count(optarg, 1);
      return true;
    case kThink: options.think_ms = number(optarg, 0, 1e6); return true;
    case kBeginTogether: options.begin_together = true; return true;
    case kReconnect: options.reconnect = true; return true;
    case kHoldIdle: options.held_idle = count(optarg, 0); return true;
    case kOpeningAtOnce: options.opening_at_once = count(optarg, 1); return true;
    case kQuery: options.scripts = {load::script_of_query(optarg)}; return true;
    case kScript: take_script(options, optarg); return true;
    case 'D': take_variable(options, optarg); return true;
    case kProtocol: take_protocol(options, optarg); return true;
    case kWarmup: options.warmup_s = number(optarg, 0, 3600); return true;
    case kSeconds: options.seconds = number(optarg, 0.01, 86400); return true;
    case kOperations: options.operations = static_cast<uint64_t>(number(optarg, 1, 1e12)); return true;
    case kDrain: options.drain_s = number(optarg, 0, 3600); return true;
    case kSeed: options.seed = static_cast<uint64_t>(number(optarg, 0, 1e15)); return true;
    default: return false;
  }
}

void take_option(load::Options &options, Ending &ending, int which) {
  if (take_load_option(options, which)) return;
  switch (which) {
    case kCsv: take_csv(ending, optarg); break;
    case kHistogram: ending.histogram = create(optarg); break;
    case kRequests: options.requests = create(optarg); break;
    case kSamples: options.samples = create(optarg); break;
    case kAfterOpening: ending.after_opening = optarg; break;
    case kBeforeLeaving: ending.command = optarg; break;
    case kProgress: options.progress = true; break;
    case kWatchStalls: options.watch_stalls = true; break;
    case kHelp: fputs(kUsage, stdout); exit(0);
    default: fputs(kUsage, stderr); exit(1);
  }
}

void check_options(load::Options &options, bool seconds_given) {
  if (options.scripts.empty()) options.scripts = {load::script_of_query("SELECT 1")};
  const bool only_held = options.held_idle > 0 && !options.closed && options.rate == 0;
  if (only_held) {
    options.closed = true;
    options.connections = 0;
  }
  if (options.closed == (options.rate > 0)) die("either --rate or --clients is needed");
  if (options.closed && !options.bursts.empty()) die("a closed loop has no bursts");
  if (!options.closed && options.begin_together) die("only a closed loop can begin together");
  if (options.operations > 0 && options.warmup_s > 0) die("a number of operations has no warm-up");
  if (options.operations > 0 && !seconds_given) options.seconds = 3600;
  for (size_t i = 0; i < options.scripts.size(); i++)
    for (size_t j = 0; j < i; j++)
      if (options.scripts[i].name == options.scripts[j].name) die("two scripts are named " + options.scripts[i].name);
}

void raise_descriptor_limit(size_t wanted) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die("could not read the limit of open files");
  const rlim_t needed = wanted + 32;
  // Root may have more than its hard limit.
  const rlimit raised = {needed, needed};
  if (limit.rlim_max < needed && setrlimit(RLIMIT_NOFILE, &raised) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die("could not raise the limit of open files");
  if (limit.rlim_max < needed) die("the limit of open files is too low: " + std::to_string(limit.rlim_max));
}

double throughput(const load::Result &result) {
  return static_cast<double>(result.completed_in_time) / result.seconds;
}

void run_command(const char *command) {
  fflush(nullptr);
  if (command != nullptr && system(command) != 0) die(std::string("the command failed: ") + command);
}

void print_report(const load::Options &options, const load::Result &result) {
  if (options.held_idle > 0 || !options.reconnect)
    printf("opened: %zu connections in %.3f s\n", static_cast<size_t>(result.opening.count()), result.opening_s);
  if (options.closed)
    printf("load: closed loop, %zu clients, pause %g ms\n", options.connections, options.think_ms);
  else
    printf("load: open loop, %g requests per second, %s arrivals, %zu connections\n", options.rate,
           options.poisson ? "Poisson" : "constant", options.connections);
  printf("measured: %.6g s after %g s, seed %" PRIu64 "\n", result.seconds, options.warmup_s, options.seed);
  printf("requests: %" PRIu64 "\nsucceeded: %" PRIu64 "\nfailed: %" PRIu64 "\n", result.requests, result.succeeded,
         result.failed);
  for (const auto &error : result.errors) printf("error %s: %" PRIu64 "\n", error.first.c_str(), error.second);
  printf("unfinished: %" PRIu64 "\n", result.unfinished);
  if (result.connections_lost > 0 || result.reconnects_failed > 0)
    printf("connections lost: %" PRIu64 ", attempts to replace them that failed: %" PRIu64 "\n",
           result.connections_lost, result.reconnects_failed);
  printf("most queued here: %" PRIu64 "\n", result.most_queued);
  printf("most at work: %" PRIu64 "\n", result.peak_concurrency);
  const load::Stalls &stalls = result.stalls;
  if (stalls.watched)
    printf("stalls of the machine: %" PRIu64 " of 3 ms or more, %.1f ms on an average processor, the longest %.1f ms%s\n",
           stalls.count, stalls.total_ms, stalls.longest_ms, stalls.realtime ? "" : "; other processes included");
  printf("throughput: %.1f per second\n", throughput(result));
}

void print_summary(const load::Options &options, const load::Result &result, FILE *out) {
  const auto whole = [&](const char *name, uint64_t value) { fprintf(out, "%s,%" PRIu64 "\n", name, value); };
  const auto real = [&](const char *name, double value) { fprintf(out, "%s,%.6g\n", name, value); };
  const double opened = static_cast<double>(result.opening.count());
  fputs("name,value\n", out);
  whole("requests", result.requests);
  whole("succeeded", result.succeeded);
  whole("failed", result.failed);
  whole("unfinished", result.unfinished);
  fprintf(out, "throughput_per_s,%.1f\n", throughput(result));
  real("seconds", result.seconds);
  whole("peak_concurrency", result.peak_concurrency);
  whole("most_queued", result.most_queued);
  whole("bytes_received", result.bytes_received);
  whole("bytes_sent", result.bytes_sent);
  whole("connections_lost", result.connections_lost);
  whole("reconnects_failed", result.reconnects_failed);
  whole("opened", result.opening.count());
  real("opening_seconds", result.opening_s);
  // Of the load if it reconnects, else of the beginning.
  fprintf(out, "connect_rate_per_s,%.1f\n",
          options.reconnect ? static_cast<double>(result.connect.count()) / result.seconds
                            : result.opening_s > 0 ? opened / result.opening_s : 0);
  fprintf(out, "cpu_us_per_request,%.2f\n",
          result.finished > 0 ? result.cpu_us / static_cast<double>(result.finished) : 0);
  if (result.stalls.watched) {
    whole("stalls_realtime", result.stalls.realtime ? 1 : 0);
    whole("stalls", result.stalls.count);
    real("stalled_ms", result.stalls.total_ms);
    real("longest_stall_ms", result.stalls.longest_ms);
  }
  for (const auto &error : result.errors) whole(("error." + error.first).c_str(), error.second);
}

void print_measurements(load::Result &result, FILE *table, const Ending &ending) {
  load::Measurement::print_header(table, false);
  if (ending.csv != nullptr) load::Measurement::print_header(ending.csv, true);
  if (ending.histogram != nullptr) fputs("measure,low_us,high_us,count\n", ending.histogram);
  for (const load::Measurement *measurement : result.measurements()) {
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
  bool seconds_given = false;
  while ((which = getopt_long(argc, argv, "c:D:", kOptions, nullptr)) != -1) {
    take_option(options, ending, which);
    if (which == kSeconds) seconds_given = true;
  }
  if (optind < argc) options.conninfo = argv[optind++];
  if (optind < argc) die(std::string("unexpected: ") + argv[optind]);
  check_options(options, seconds_given);
  raise_descriptor_limit(options.connections + options.held_idle);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1);
  if (options.requests != nullptr) fputs("intended_us,queued_us,wait_us,latency_us,sqlstate\n", options.requests);
  if (options.samples != nullptr) fputs("at_ms,succeeded,failed,active,slowest_us\n", options.samples);

  load::Generator generator(options);
  generator.connect_all();
  run_command(ending.after_opening);
  generator.run();
  run_command(ending.command);

  load::Result &result = generator.result();
  print_report(options, result);
  print_measurements(result, stdout, ending);
  if (ending.summary != nullptr) print_summary(options, result, ending.summary);
  for (FILE *file : {ending.csv, ending.summary, ending.histogram, options.requests, options.samples})
    finish_file(file);
  const bool herd_lost = options.held_idle > 0 && result.connections_lost > 0;
  return result.failed > 0 || result.unfinished > 0 || herd_lost ? 2 : 0;
}
