// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/session/state_timing.hpp"

extern "C" {
#include "utils/guc.h"

PG_FUNCTION_INFO_V1(sluice_time_session_state);
PGDLLEXPORT Datum sluice_time_session_state(PG_FUNCTION_ARGS);
}

#include <ctime>

#include "pg/session/client_settings.hpp"
#include "pg/session/pins.hpp"
#include "pg/session/session.hpp"
#include "pg/session/session_settings.hpp"

namespace sluice::pg {

constexpr int kSettings = 10;

static const char *const kNames[kSettings] = {"search_path", "work_mem",         "DateStyle",          "TimeZone",
                                              "app.user_id", "statement_timeout", "extra_float_digits", "lock_timeout",
                                              "app.tenant",  "application_name"};
static const char *const kValues[2][kSettings] = {
    {"public", "5MB", "ISO, DMY", "Europe/Berlin", "1001", "5s", "1", "1s", "acme", "first"},
    {"\"$user\", public", "6MB", "SQL, MDY", "America/New_York", "1002", "6s", "2", "2s", "umbrella", "second"}};

static int requested_rounds = 0;

static double now_us() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

static double time_check(int rounds) {
  const double start_us = now_us();
  for (int i = 0; i < rounds; i++) {
    update_pins();
    (void)store_session_settings();
  }
  return (now_us() - start_us) / rounds;
}

// Two clients whose settings have the same names and other values.
static double time_switch(int rounds) {
  static ClientSlot clients[2];
  ClientSlot *own = session.client;
  bool stored = true;

  for (int i = 0; i < 2; i++) {
    for (int k = 0; k < kSettings; k++)
      (void)set_config_option(kNames[k], kValues[i][k], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SET, true, ERROR, false);
    session.client = &clients[i];
    stored = store_session_settings() && stored;
    session.client = own;
  }
  const double start_us = now_us();
  for (int i = 0; i < rounds; i++) {
    withdraw_other_session_settings(&clients[i & 1]);
    establish_session_settings(&clients[i & 1]);
  }
  const double elapsed_us = (now_us() - start_us) / rounds;
  for (ClientSlot &client : clients) release_session_settings(&client);
  return stored ? elapsed_us : -1;
}

void run_requested_timing() {
  const int rounds = requested_rounds;
  if (rounds <= 0 || session.client == nullptr || session.held) return;
  requested_rounds = 0;
  const double check_us = time_check(rounds);
  const double switch_us = time_switch(rounds);
  withdraw_other_session_settings(session.client);
  establish_session_settings(session.client);
  ereport(NOTICE, (errmsg("session state check: %.3f us", check_us)));
  ereport(NOTICE, (errmsg("change of %d settings: %.3f us", kSettings, switch_us)));
}

}  // namespace sluice::pg

extern "C" Datum sluice_time_session_state(PG_FUNCTION_ARGS) {
  if (!superuser())
    ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be superuser to measure session state")));
  sluice::pg::requested_rounds = PG_GETARG_INT32(0);
  PG_RETURN_VOID();
}
