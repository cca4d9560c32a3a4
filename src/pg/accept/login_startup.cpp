// SPDX-License-Identifier: PostgreSQL
//
// What a client says of itself before it has proved anything.
//
// The bytes are taken apart by core/accept/startup_packet, which raises nothing;
// here its findings get the server's words.  Names are cut as the server cuts them,
// and are known to the log's prefix before anything but the packet's form can be
// refused.  The
// settings are only collected: the backend that serves the client first applies
// them, and tells it which of them are wrong.

#include "pg/compat.hpp"

#include "pg/accept/login_startup.hpp"

extern "C" {
#include "common/string.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
}

#include "core/accept/startup_options.hpp"

namespace sluice::pg {

static void raise_startup_error(const StartupPacket &packet) {
  if (packet.error == StartupError::unsupported_protocol)
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                    errmsg("unsupported frontend protocol %u.%u: server supports %u.0 to %u.%u",
                           protocol_major(packet.protocol), protocol_minor(packet.protocol), kProtocolMajor,
                           kProtocolMajor, 0)));
  ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("%s", describe(packet.error))));
}

static void check_replication(const char *value) {
  bool replication;
  if (strcmp(value, "database") == 0)
    replication = true;
  else if (!parse_bool(value, &replication))
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("invalid value for parameter \"%s\": \"%s\"", "replication", value),
                    errhint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")));
  if (replication)
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                    errmsg("replication connections are not supported on the pooled port"),
                    errhint("Connect to port %d, where the server itself serves them.", PostPortNumber)));
}

static void append_negotiation(StringInfo output, const StartupPacket &packet) {
  const int start = output->len;
  appendStringInfoChar(output, 'v');
  appendBinaryStringInfo(output, "\0\0\0\0", 4);
  const uint32 newest = pg_hton32(make_protocol(kProtocolMajor, 0));
  const uint32 count = pg_hton32(static_cast<uint32>(packet.unknown_protocol_option_count));
  appendBinaryStringInfo(output, reinterpret_cast<const char *>(&newest), 4);
  appendBinaryStringInfo(output, reinterpret_cast<const char *>(&count), 4);
  for (std::size_t i = 0; i < packet.unknown_protocol_option_count; i++)
    appendBinaryStringInfo(output, packet.unknown_protocol_options[i],
                           static_cast<int>(strlen(packet.unknown_protocol_options[i])) + 1);
  const uint32 length = pg_hton32(static_cast<uint32>(output->len - start - 1));
  memcpy(output->data + start + 1, &length, sizeof(length));
}

static char *copy_name(const char *name) {
  char *copy = pstrdup(name);
  if (strlen(copy) >= NAMEDATALEN) copy[NAMEDATALEN - 1] = '\0';
  return copy;
}

// Who wants to log in.  Runs in the login's context.
void accept_startup_packet(Login *login) {
  const StartupPacket &packet = login->packet;
  Port &port = login->port;

  port.proto = packet.protocol;
  if (packet.kind == StartupKind::invalid) raise_startup_error(packet);
  // As far as known, for the prefix of the log's lines.
  if (packet.user != nullptr) port.user_name = copy_name(packet.user);
  if (packet.database != nullptr) port.database_name = copy_name(packet.database);
  if (packet.replication != nullptr) check_replication(packet.replication);
  if (packet.user == nullptr || packet.user[0] == '\0')
    ereport(ERROR, (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                    errmsg("no PostgreSQL user name specified in startup packet")));
  if (packet.database == nullptr || packet.database[0] == '\0') port.database_name = copy_name(packet.user);
  if (packet.application_name != nullptr) {
    port.application_name = pstrdup(packet.application_name);
    clean_ascii(port.application_name);
  }
  if (protocol_minor(packet.protocol) > 0 || packet.unknown_protocol_option_count > 0)
    append_negotiation(&login->output, packet);
}

// ------------------------------------------------------------------ its settings

static void append_setting(StringInfo settings, const char *name, const char *value) {
  appendBinaryStringInfo(settings, name, static_cast<int>(strlen(name)) + 1);
  appendBinaryStringInfo(settings, value, static_cast<int>(strlen(value)) + 1);
}

// The settings of the start-up packet in the order the server applies them:
// switches first, then parameters.  application_name has its own place.
void collect_startup_settings(const Login *login, StringInfo settings) {
  const StartupPacket &packet = login->packet;

  if (packet.options != nullptr) {
    const std::size_t buffer_size = options_buffer_bytes(strlen(packet.options)) + kDebugLevelBytes;
    char *buffer = static_cast<char *>(palloc(buffer_size));
    auto *options = static_cast<StartupParameter *>(palloc(sizeof(StartupParameter) * 512));
    const OptionsResult result = parse_startup_options(packet.options, buffer, buffer_size, options, 512);
    if (result.error == OptionsError::missing_value)
      ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
                      errmsg(result.flag == 'c' ? "-c %s requires a value" : "--%s requires a value",
                             result.argument)));
    if (result.error != OptionsError::none)
      ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
                      errmsg("invalid command-line argument for server process: %s",
                             result.argument != nullptr ? result.argument : packet.options),
                      errhint("Try \"%s --help\" for more information.", "postgres")));
    for (std::size_t i = 0; i < result.count; i++) append_setting(settings, options[i].name, options[i].value);
  }
  for (std::size_t i = 0; i < packet.parameter_count; i++)
    if (strcmp(packet.parameters[i].name, "application_name") != 0)
      append_setting(settings, packet.parameters[i].name, packet.parameters[i].value);
}

}  // namespace sluice::pg
