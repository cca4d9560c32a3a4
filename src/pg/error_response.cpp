// SPDX-License-Identifier: PostgreSQL
#include "pg/error_response.hpp"

extern "C" {
#include "libpq/pqformat.h"
#include "utils/memutils.h"
}

namespace sluice::pg {

static emit_log_hook_type previous_emit_log_hook = nullptr;
static bool hook_installed = false;
static bool errors_are_fatal = false;

static void append_field(StringInfo output, char field, const char *value) {
  if (value == nullptr) return;
  appendStringInfoCharMacro(output, field);
  appendBinaryStringInfo(output, value, static_cast<int>(strlen(value)) + 1);
}

void append_fatal_response(StringInfo output, int sqlerrcode, const char *message, const char *detail,
                           const char *hint) {
  const int start = output->len;

  appendStringInfoChar(output, 'E');
  appendBinaryStringInfo(output, "\0\0\0\0", 4);
  append_field(output, 'S', _("FATAL"));
  append_field(output, 'V', "FATAL");
  append_field(output, 'C', unpack_sql_state(sqlerrcode));
  append_field(output, 'M', message);
  append_field(output, 'D', detail);
  append_field(output, 'H', hint);
  appendStringInfoChar(output, '\0');

  const uint32 length = pg_hton32(static_cast<uint32>(output->len - start - 1));
  memcpy(output->data + start + 1, &length, sizeof(length));
}

void append_fatal_response(StringInfo output, const ErrorData *error) {
  append_fatal_response(output, error->sqlerrcode, error->message, error->detail, error->hint);
}

void append_ancient_response(StringInfo output, const ErrorData *error) {
  appendStringInfo(output, "E%s:  %s\n", _("FATAL"), error->message);
  appendStringInfoChar(output, '\0');
}

extern "C" {

static void severity_hook(ErrorData *error) {
  if (errors_are_fatal && (error->elevel == ERROR || error->elevel == LOG_SERVER_ONLY)) error->elevel = FATAL;
  if (previous_emit_log_hook) previous_emit_log_hook(error);
}

}  // extern "C"

void install_severity_hook() {
  if (hook_installed) return;
  hook_installed = true;
  previous_emit_log_hook = emit_log_hook;
  emit_log_hook = severity_hook;
}

void show_errors_as_fatal(bool on) { errors_are_fatal = on; }

// Raised as LOG, which never leaves the function, and renamed by the hook.
void log_as_fatal(const ErrorData *error) {
  install_severity_hook();
  errors_are_fatal = true;
  ereport(LOG_SERVER_ONLY,
          (errcode(error->sqlerrcode), errmsg_internal("%s", error->message ? error->message : ""),
           error->detail_log ? errdetail_internal("%s", error->detail_log)
                             : (error->detail ? errdetail_internal("%s", error->detail) : 0),
           error->hint ? errhint("%s", error->hint) : 0, errhidestmt(true)));
  errors_are_fatal = false;
}

}  // namespace sluice::pg
