// SPDX-License-Identifier: PostgreSQL
//
// An application server that takes payments for many users at once, to see how a pool serves transactions that wait
// for somebody outside: an external call of 50 to 150 ms in the middle of each, and one step that needs a second
// connection while it holds the first.
//
//   payments_clients prepare CONNINFO           makes the tables anew
//   payments_clients run [options] CONNINFO     the users, for a set time
//   payments_clients watch [options] CONNINFO   pool and memory meanwhile, see payments_watch.hpp
//   payments_clients check FILE CONNINFO        does the database agree with what the clients were told?
//
// What the users do is in payments_steps.hpp, how they do it in payments_server.hpp, what is compared in the end in
// payments_told.hpp.  Times are those of steps that succeeded.
//
// Exit status: 0; 1 if it could not be done; 2 if "check" has found a difference.  Errors of steps are results.

#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "payments_common.hpp"
#include "payments_server.hpp"
#include "payments_watch.hpp"

namespace {

using payments::append_to;
using payments::die;

constexpr char kUsage[] = R"(usage:
payments_clients prepare CONNINFO
payments_clients check FILE CONNINFO
payments_clients run [options] CONNINFO
  --users N             users at once, each with a connection of its own (100)
  --seconds S           how long they begin new steps (120)
  --journeys N          ... or until each user has begun so many journeys through all steps
  --drain S             how long they may take for the last one (30)
  --external FROM:TO    milliseconds of an external call (50:150)
  --think MS            mean pause of a user between two steps (0)
  --idle-extras N       second connections the application keeps idle (10)
  --seed N              of amounts, merchants and external calls (1)
  --label NAME          the first column of all files (none)
  --steps FILE          a line for each step is added
  --errors FILE         a line for each step and SQLSTATE is added
  --samples FILE        what the users do, twice a second, is added
  --told FILE           for "check"
  --progress            a line on standard error each second
payments_clients watch [options] CONNINFO
  --sluice              the pool is pg_sluice's
  --process NAME=PID    memory of a process; NAME=PID+ and of its children; may be repeated
  --every MS            between two looks at the pool (500)
  --memory-every MS     ... at memory (5000)
  --seconds S --label NAME --pool FILE --memory FILE
)";

double number(const char *text, double low, double high) {
  char *end;
  const double value = strtod(text, &end);
  if (end == text || *end != '\0' || !(value >= low && value <= high))
    die(std::string("not a sensible number: ") + text);
  return value;
}

enum Option {
  kUsers = 256,
  kSeconds,
  kJourneys,
  kDrain,
  kExternal,
  kThink,
  kIdleExtras,
  kSeed,
  kLabel,
  kSteps,
  kErrors,
  kSamples,
  kTold,
  kProgress,
  kSluice,
  kProcess,
  kEvery,
  kMemoryEvery,
  kPool,
  kMemory,
  kHelp
};

const option kOptions[] = {{"users", required_argument, nullptr, kUsers},
                           {"seconds", required_argument, nullptr, kSeconds},
                           {"journeys", required_argument, nullptr, kJourneys},
                           {"drain", required_argument, nullptr, kDrain},
                           {"external", required_argument, nullptr, kExternal},
                           {"think", required_argument, nullptr, kThink},
                           {"idle-extras", required_argument, nullptr, kIdleExtras},
                           {"seed", required_argument, nullptr, kSeed},
                           {"label", required_argument, nullptr, kLabel},
                           {"steps", required_argument, nullptr, kSteps},
                           {"errors", required_argument, nullptr, kErrors},
                           {"samples", required_argument, nullptr, kSamples},
                           {"told", required_argument, nullptr, kTold},
                           {"progress", no_argument, nullptr, kProgress},
                           {"sluice", no_argument, nullptr, kSluice},
                           {"process", required_argument, nullptr, kProcess},
                           {"every", required_argument, nullptr, kEvery},
                           {"memory-every", required_argument, nullptr, kMemoryEvery},
                           {"pool", required_argument, nullptr, kPool},
                           {"memory", required_argument, nullptr, kMemory},
                           {"help", no_argument, nullptr, kHelp},
                           {nullptr, 0, nullptr, 0}};

struct Arguments {
  payments::Settings run;
  payments::WatchSettings watch;
  std::string label = "none";
  std::string steps;
  std::string errors;
  std::string samples;
  std::string told;
};

void take_external(payments::Settings &run, const std::string &text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) die("not FROM:TO: " + text);
  run.external_from_ms = number(text.substr(0, colon).c_str(), 0, 1e6);
  run.external_to_ms = number(text.substr(colon + 1).c_str(), run.external_from_ms, 1e6);
}

payments::ProcessGroup parse_process(std::string text) {
  const bool with_children = !text.empty() && text.back() == '+';
  if (with_children) text.pop_back();
  const size_t equals = text.find('=');
  if (equals == std::string::npos) die("not NAME=PID: " + text);
  return {text.substr(0, equals), static_cast<int>(number(text.c_str() + equals + 1, 1, 1e9)), with_children};
}

void take_run_option(Arguments &arguments, int which) {
  payments::Settings &run = arguments.run;
  switch (which) {
    case kUsers:
      run.users = static_cast<size_t>(number(optarg, 1, 100000));
      break;
    case kJourneys:
      run.journeys = static_cast<uint64_t>(number(optarg, 1, 1e12));
      break;
    case kDrain:
      run.drain_s = number(optarg, 0, 3600);
      break;
    case kExternal:
      take_external(run, optarg);
      break;
    case kThink:
      run.think_ms = number(optarg, 0, 1e6);
      break;
    case kIdleExtras:
      run.idle_extras = static_cast<size_t>(number(optarg, 0, 1e5));
      break;
    case kSeed:
      run.seed = static_cast<uint64_t>(number(optarg, 0, 1e12));
      break;
    case kSteps:
      arguments.steps = optarg;
      break;
    case kErrors:
      arguments.errors = optarg;
      break;
    case kSamples:
      arguments.samples = optarg;
      break;
    case kTold:
      arguments.told = optarg;
      break;
    case kProgress:
      run.progress = true;
      break;
    case kHelp:
      fputs(kUsage, stdout);
      exit(0);
    default:
      fputs(kUsage, stderr);
      exit(1);
  }
}

void take_option(Arguments &arguments, int which) {
  payments::WatchSettings &watch = arguments.watch;
  switch (which) {
    case kSeconds:
      watch.seconds = arguments.run.seconds = number(optarg, 0.01, 1e7);
      break;
    case kLabel:
      watch.label = arguments.label = optarg;
      break;
    case kSluice:
      watch.sluice = true;
      break;
    case kProcess:
      watch.processes.push_back(parse_process(optarg));
      break;
    case kEvery:
      watch.every_ms = number(optarg, 1, 1e7);
      break;
    case kMemoryEvery:
      watch.memory_every_ms = number(optarg, 1, 1e7);
      break;
    case kPool:
      watch.pool_file = optarg;
      break;
    case kMemory:
      watch.memory_file = optarg;
      break;
    default:
      take_run_option(arguments, which);
  }
}

// ---- what "run" writes

// The least value that at least this part of all do not exceed; 0 if there are none.
uint32_t percentile(const std::vector<uint32_t> &sorted, double fraction) {
  if (sorted.empty()) return 0;
  const size_t rank = static_cast<size_t>(fraction * static_cast<double>(sorted.size()) + 0.999999);
  return sorted[rank == 0 ? 0 : std::min(rank, sorted.size()) - 1];
}

double mean(const std::vector<uint32_t> &values) {
  double sum = 0;
  for (const uint32_t value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

void write_steps(const Arguments &arguments, const payments::ApplicationServer &server) {
  FILE *file = append_to(arguments.steps.c_str(),
                         "leg,step,count,errors,mean_us,p50_us,p90_us,p99_us,min_us,max_us,database_p50_us,"
                         "database_p90_us,database_max_us,begin_p50_us,begin_p90_us,begin_max_us,bytes_per_s,seconds");
  const std::vector<std::string> names = payments::ApplicationServer::names();
  for (size_t place = 0; place < names.size(); place++) {
    const payments::StepTimes &times = server.times()[place];
    fprintf(file, "%s,%s,%zu,%" PRIu64 ",%.0f", arguments.label.c_str(), names[place].c_str(),
            times.elapsed.size() + times.failed, times.failed, mean(times.elapsed));
    for (const double fraction : {0.5, 0.9, 0.99, 0.0, 1.0}) fprintf(file, ",%u", percentile(times.elapsed, fraction));
    for (const std::vector<uint32_t> *values : {&times.database, &times.begin})
      for (const double fraction : {0.5, 0.9, 1.0}) fprintf(file, ",%u", percentile(*values, fraction));
    fprintf(file, ",%.0f,%.2f\n", static_cast<double>(times.bytes) / server.seconds(), server.seconds());
  }
  if (fclose(file) != 0) die("could not write " + arguments.steps);
}

// In the order they were taken; leg and time like those of "watch", which starts at about the same time.
void write_samples(const Arguments &arguments, const payments::ApplicationServer &server) {
  FILE *file =
      append_to(arguments.samples.c_str(), "leg,at_s,external,waiting,waiting_for_second,working,steps,errors");
  for (const payments::UsersSample &sample : server.samples())
    fprintf(file, "%s,%.2f,%d,%d,%d,%d,%" PRIu64 ",%" PRIu64 "\n", arguments.label.c_str(), sample.at_s,
            sample.external, sample.waiting, sample.waiting_for_second, sample.working, sample.steps, sample.errors);
  if (fclose(file) != 0) die("could not write " + arguments.samples);
}

// The text comes last, and has no comma.
std::string csv_text(std::string text) {
  for (char &letter : text)
    if (letter == ',') letter = ';';
  return text;
}

void write_errors(const Arguments &arguments, const payments::ApplicationServer &server) {
  FILE *file = append_to(arguments.errors.c_str(), "leg,step,sqlstate,count,text");
  const std::vector<std::string> names = payments::ApplicationServer::names();
  for (const auto &[key, error] : server.errors())
    fprintf(file, "%s,%s,%s,%" PRIu64 ",%s\n", arguments.label.c_str(), names[key.first].c_str(), key.second.c_str(),
            error.count, csv_text(error.text).c_str());
  if (fclose(file) != 0) die("could not write " + arguments.errors);
}

void print_summary(const payments::ApplicationServer &server) {
  uint64_t steps = 0;
  uint64_t errors = 0;
  for (size_t place = payments::ApplicationServer::kFirstStep; place < server.times().size(); place++)
    steps += server.times()[place].elapsed.size();
  for (const auto &entry : server.errors()) errors += entry.second.count;
  printf("steps: %" PRIu64 "\nerrors: %" PRIu64 "\nseconds: %.2f\nsecond connections: %zu\n", steps, errors,
         server.seconds(), server.most_extras());
}

int run(const Arguments &arguments) {
  prctl(PR_SET_TIMERSLACK, 1);
  payments::ApplicationServer server(arguments.run);
  server.run();
  if (!arguments.steps.empty()) write_steps(arguments, server);
  if (!arguments.errors.empty()) write_errors(arguments, server);
  if (!arguments.samples.empty()) write_samples(arguments, server);
  if (!arguments.told.empty()) {
    FILE *file = fopen(arguments.told.c_str(), "w");
    if (file == nullptr) die("could not write " + arguments.told);
    server.told().write(file);
    if (fclose(file) != 0) die("could not write " + arguments.told);
  }
  print_summary(server);
  return 0;
}

int check(const char *name, const char *conninfo) {
  FILE *file = fopen(name, "r");
  if (file == nullptr) die(std::string("could not read ") + name);
  const payments::Told told = payments::Told::read(file);
  fclose(file);
  PGconn *database = payments::connect_or_die(conninfo);
  const bool same = told.agrees_with(database, stdout);
  PQfinish(database);
  return same ? 0 : 2;
}

void prepare(const char *conninfo) {
  PGconn *database = payments::connect_or_die(conninfo);
  PQclear(payments::query(database, payments::kTables));
  PQfinish(database);
}

}  // namespace

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  Arguments arguments;
  int which;
  while ((which = getopt_long(argc, argv, "", kOptions, nullptr)) != -1) take_option(arguments, which);
  const std::string what = optind < argc ? argv[optind] : "";
  const int left = argc - optind - 1;
  if (what == "run" && left == 1) {
    arguments.run.conninfo = argv[optind + 1];
    return run(arguments);
  }
  if (what == "check" && left == 2) return check(argv[optind + 1], argv[optind + 2]);
  if (what == "prepare" && left == 1) {
    prepare(argv[optind + 1]);
  } else if (what == "watch" && left == 1 && !arguments.watch.pool_file.empty() &&
             !arguments.watch.memory_file.empty()) {
    arguments.watch.conninfo = argv[optind + 1];
    payments::watch(arguments.watch);
  } else {
    fputs(kUsage, stderr);
    return 1;
  }
  return 0;
}
