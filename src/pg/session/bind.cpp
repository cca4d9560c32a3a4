// SPDX-License-Identifier: PostgreSQL
//
// Bind: a portal from a prepared statement and parameter values.
//
// Values are read where they lie in the message; the server's input functions want
// them terminated, so the byte behind each value is replaced meanwhile (the message
// buffer always has one byte more than the body).

#include "pg/compat.hpp"

extern "C" {
#include "access/xact.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "mb/stringinfo_mb.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"
}

#include "core/session/bind_message.hpp"
#include "pg/session/extended_query.hpp"
#include "pg/session/statements.hpp"
#include "pg/session/transaction.hpp"

namespace sluice::pg {

// Which parameter an error is about.
struct ParameterContext {
  const char *portal_name;
  int number;        // from 0; -1 before the first
  const char *text;  // its value, if it came as text
};

extern "C" {

static void parameter_error_context(void *argument) {
  const auto *context = static_cast<ParameterContext *>(argument);
  StringInfoData quoted;

  if (context->number < 0) return;
  initStringInfo(&quoted);
  if (context->text != nullptr) {
    appendStringInfoString(&quoted, " = ");
    appendStringInfoStringQuoted(&quoted, context->text, log_parameter_max_length_on_error);
  }
  if (context->portal_name != nullptr && context->portal_name[0] != '\0')
    errcontext("portal \"%s\" parameter $%d%s", context->portal_name, context->number + 1, quoted.data);
  else
    errcontext("unnamed portal parameter $%d%s", context->number + 1, quoted.data);
  pfree(quoted.data);
}

}  // extern "C"

[[noreturn]] static void raise_body_error(BodyError error) {
  ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg_internal("%s", _(describe(error)))));
  pg_unreachable();
}

// `name` as it was read from `fields`.
static const char *name_to_server(const BindMessage &fields, const char *name) {
  if (name == nullptr) raise_body_error(fields.error());
  return pg_client_to_server(name, static_cast<int>(strlen(name)));
}

static FormatCodes read_formats(BindMessage *fields) {
  FormatCodes formats;
  if (!fields->read_formats(&formats)) raise_body_error(fields->error());
  return formats;
}

// Keeps the text of a value for the context of later errors, a little more of it
// than will be shown.
static char *keep_text(const char *text) {
  MemoryContext caller = MemoryContextSwitchTo(MessageContext);
  char *kept = log_parameter_max_length_on_error < 0
                   ? pstrdup(text)
                   : pnstrdup(text, static_cast<Size>(log_parameter_max_length_on_error) + 2 * MAX_MULTIBYTE_CHAR_LEN);
  MemoryContextSwitchTo(caller);
  return kept;
}

static Datum read_text_value(Oid type, char *bytes, int length, ParameterContext *context, char **kept) {
  Oid input_function, io_parameter;
  char *text = nullptr;

  getTypeInputInfo(type, &input_function, &io_parameter);
  if (bytes != nullptr) text = pg_client_to_server(bytes, length);
  context->text = text;
  const Datum value = OidInputFunctionCall(input_function, text, io_parameter, -1);
  context->text = nullptr;
  if (text != nullptr) {
    if (kept != nullptr) *kept = keep_text(text);
    if (text != bytes) pfree(text);
  }
  return value;
}

static Datum read_binary_value(Oid type, char *bytes, int length, int number) {
  Oid receive_function, io_parameter;
  StringInfoData buffer;

  buffer.data = bytes;
  buffer.len = length;
  buffer.maxlen = length + 1;
  buffer.cursor = 0;
  getTypeBinaryInputInfo(type, &receive_function, &io_parameter);
  const Datum value =
      OidReceiveFunctionCall(receive_function, bytes != nullptr ? &buffer : nullptr, io_parameter, -1);
  if (bytes != nullptr && buffer.cursor != buffer.len)
    ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
                    errmsg("incorrect binary data format in bind parameter %d", number + 1)));
  return value;
}

static void read_value(BindMessage *fields, ParamExternData *parameter, Oid type, int16 format,
                       ParameterContext *context, char **kept) {
  BindValue value;
  char behind = '\0';

  if (!fields->read_value(&value)) raise_body_error(fields->error());
  auto *bytes = const_cast<char *>(value.bytes);
  const int32 length = value.length;
  if (bytes != nullptr) {
    behind = bytes[length];
    bytes[length] = '\0';
  }
  if (format == kTextFormat)
    parameter->value = read_text_value(type, bytes, length, context, kept);
  else if (format == kBinaryFormat)
    parameter->value = read_binary_value(type, bytes, length, context->number);
  else
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unsupported format code: %d", format)));
  if (bytes != nullptr) bytes[length] = behind;
  parameter->isnull = bytes == nullptr;
  parameter->pflags = PARAM_FLAG_CONST;  // lets custom plans make use of the value
  parameter->ptype = type;
}

static ParamListInfo read_values(BindMessage *fields, const CachedPlanSource *source, const FormatCodes &formats,
                                 const char *portal_name, int count) {
  if (count == 0) return nullptr;
  const bool keep_texts = log_parameter_max_length_on_error != 0;
  char **texts = nullptr;
  ParameterContext context{portal_name, -1, nullptr};
  ErrorContextCallback callback;

  callback.previous = error_context_stack;
  callback.callback = parameter_error_context;
  callback.arg = &context;
  error_context_stack = &callback;
  ParamListInfo parameters = makeParamList(count);
  if (keep_texts) texts = static_cast<char **>(palloc0(static_cast<Size>(count) * sizeof(char *)));
  for (int i = 0; i < count; i++) {
    context.number = i;
    read_value(fields, &parameters->params[i], source->param_types[i], formats.of(i), &context,
               keep_texts ? &texts[i] : nullptr);
  }
  error_context_stack = callback.previous;
  if (keep_texts)
    parameters->paramValuesStr = BuildParamLogString(parameters, texts, log_parameter_max_length_on_error);
  return parameters;
}

static void check_counts(const CachedPlanSource *source, const char *name, const FormatCodes &formats, int count) {
  if (!formats.fit(count))
    ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
                    errmsg("bind message has %d parameter formats but %d parameters", formats.count(), count)));
  if (count != source->num_params)
    ereport(ERROR,
            (errcode(ERRCODE_PROTOCOL_VIOLATION),
             errmsg("bind message supplies %d parameters, but prepared statement \"%s\" requires %d", count, name,
                    source->num_params)));
  // Input functions may be anyone's: not in an aborted transaction.
  if (IsAbortedTransactionBlockState() &&
      (count != 0 || source->raw_parse_tree == nullptr || !ends_transaction(source->raw_parse_tree->stmt)))
    refuse_in_aborted_transaction();
}

static void log_bind_duration(const char *portal_name, const char *name, const CachedPlanSource *source,
                              ParamListInfo parameters) {
  char elapsed_ms[32];
  switch (check_log_duration(elapsed_ms, false)) {
    case 1:
      ereport(LOG, (errmsg("duration: %s ms", elapsed_ms), errhidestmt(true)));
      break;
    case 2:
      ereport(LOG, (errmsg("duration: %s ms  bind %s%s%s: %s", elapsed_ms, name[0] != '\0' ? name : "<unnamed>",
                           portal_name[0] != '\0' ? "/" : "", portal_name, source->query_string),
                    errhidestmt(true), errdetail_parameters(parameters)));
      break;
    default:
      break;
  }
}

static void report_source(const CachedPlanSource *source) {
  ListCell *cell;

  debug_query_string = source->query_string;
  pgstat_report_activity(STATE_RUNNING, source->query_string);
  foreach (cell, source->query_list) {
    const Query *query = lfirst_node(Query, cell);
    if (query->queryId == 0) continue;
    pgstat_report_query_id(query->queryId, false);
    break;
  }
  set_ps_display("BIND");
}

// As the server wants them, aligned; null if there are none.
static int16 *copy_codes(const FormatCodes &formats) {
  if (formats.count() == 0) return nullptr;
  auto *codes = static_cast<int16 *>(palloc(static_cast<Size>(formats.count()) * sizeof(int16)));
  for (int i = 0; i < formats.count(); i++) codes[i] = formats.code(i);
  return codes;
}

// Plans the statement for these values and starts the portal.
static void start_portal(Portal portal, CachedPlanSource *source, const char *query, char *statement_name,
                         ParamListInfo parameters, bool pop_snapshot, int format_count, int16 *result_formats) {
  ParamsErrorCbData data;
  ErrorContextCallback callback;

  data.portalName = portal->name;
  data.params = parameters;
  callback.previous = error_context_stack;
  callback.callback = ParamsErrorCallback;
  callback.arg = &data;
  error_context_stack = &callback;
  CachedPlan *plan = GetCachedPlan(source, parameters, nullptr, nullptr);
  // Nothing may fail between these two: the plan's reference would be lost.
  PortalDefineQuery(portal, statement_name, query, source->commandTag, plan->stmt_list, plan);
  if (pop_snapshot) PopActiveSnapshot();
  PortalStart(portal, parameters, 0, InvalidSnapshot);
  PortalSetResultFormat(portal, format_count, result_formats);
  error_context_stack = callback.previous;
}

void handle_bind(StringInfo message) {
  const bool log_usage = log_statement_stats;
  BindMessage fields(message->data, static_cast<std::size_t>(message->len));
  const char *portal_name = name_to_server(fields, fields.read_portal_name());
  const char *name = name_to_server(fields, fields.read_statement_name());
  CachedPlanSource *source = name[0] != '\0' ? find_statement(name) : find_unnamed_statement();

  if (source == nullptr)
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_PSTATEMENT), errmsg("unnamed prepared statement does not exist")));
  report_source(source);
  if (log_usage) ResetUsage();
  begin_command();
  MemoryContextSwitchTo(MessageContext);
  const FormatCodes formats = read_formats(&fields);
  int count;
  if (!fields.read_value_count(&count)) raise_body_error(fields.error());
  check_counts(source, name, formats, count);

  // Only the unnamed portal may be replaced.
  const bool unnamed = portal_name[0] == '\0';
  Portal portal = CreatePortal(portal_name, unnamed, unnamed);
  MemoryContext caller = MemoryContextSwitchTo(portal->portalContext);
  const char *query = pstrdup(source->query_string);
  char *statement_name = name[0] != '\0' ? pstrdup(name) : nullptr;
  const bool needs_snapshot =
      count > 0 || (source->raw_parse_tree != nullptr && analyze_requires_snapshot(source->raw_parse_tree));
  if (needs_snapshot) PushActiveSnapshot(GetTransactionSnapshot());
  ParamListInfo parameters = read_values(&fields, source, formats, portal->name, count);
  MemoryContextSwitchTo(caller);
  const FormatCodes result_formats = read_formats(&fields);
  if (!fields.read_end()) raise_body_error(fields.error());

  start_portal(portal, source, query, statement_name, parameters, needs_snapshot, result_formats.count(),
               copy_codes(result_formats));
  pq_putemptymessage('2');
  log_bind_duration(portal_name, name, source, parameters);
  if (log_usage) ShowUsage("BIND MESSAGE STATISTICS");
  debug_query_string = nullptr;
}

}  // namespace sluice::pg
