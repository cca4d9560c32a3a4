// SPDX-License-Identifier: PostgreSQL
//
// PostgreSQL's own header, and everything that differs between the versions
// pg_sluice is built for (15 to 18).  No other file looks at PG_VERSION_NUM.

#ifndef SLUICE_PG_COMPAT_HPP
#define SLUICE_PG_COMPAT_HPP

extern "C" {
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
}

// ---------------------------------------------------------------- authentication files and secrets (pg/auth)
//
// 16 made the splitting of pg_hba.conf and pg_ident.conf recursive (include
// directives: the lines carry their file), allowed regular expressions for
// databases and roles, and moved compiled expressions from malloc to palloc.
// 17 took db_user_namespace away and began to log "trust".  18 made
// log_connections a list and the MD5 salt unsigned.

extern "C" {
#include "libpq/crypt.h"
#include "libpq/hba.h"
#include "utils/guc.h"
#if PG_VERSION_NUM >= 180000
#include "tcop/backend_startup.h"
#else
#include "postmaster/postmaster.h"
#endif
#if PG_VERSION_NUM < 160000
#include "storage/fd.h"
#include "utils/memutils.h"
#endif
}

namespace sluice::pg {

// An authentication file split into lines.  The lines live until
// close_authentication_file, which must run even when parsing raises.
struct AuthenticationFile {
  FILE *file;
  List *lines;  // of TokenizedAuthLine
  MemoryContext lines_context;  // 15 only
};

// False, after a LOG message, when the file cannot be opened.
inline bool open_authentication_file(const char *name, AuthenticationFile *opened) {
  opened->lines = NIL;
  opened->lines_context = nullptr;
#if PG_VERSION_NUM >= 160000
  opened->file = open_auth_file(name, LOG, 0, nullptr);
#else
  opened->file = AllocateFile(name, "r");
  if (opened->file == nullptr)
    ereport(LOG, (errcode_for_file_access(), errmsg("could not open authentication file \"%s\": %m", name)));
#endif
  return opened->file != nullptr;
}

inline void split_authentication_file(const char *name, AuthenticationFile *opened) {
#if PG_VERSION_NUM >= 160000
  tokenize_auth_file(name, opened->file, &opened->lines, LOG, 0);
#else
  opened->lines_context = tokenize_auth_file(name, opened->file, &opened->lines, LOG);
#endif
}

inline void close_authentication_file(AuthenticationFile *opened) {
#if PG_VERSION_NUM >= 160000
  free_auth_file(opened->file, 0);
#else
  FreeFile(opened->file);
  if (opened->lines_context != nullptr) MemoryContextDelete(opened->lines_context);
#endif
}

// The file a rule was read from.
inline char *rule_source_file(const HbaLine *rule) {
#if PG_VERSION_NUM >= 160000
  return rule->sourcefile;
#else
  (void)rule;
  return HbaFileName;
#endif
}

// "Connection matched ..." as this server's own log says it; palloc'd.
inline char *describe_matched_rule(const char *source_file, int line_number, const char *raw_line) {
#if PG_VERSION_NUM >= 160000
  return psprintf(_("Connection matched file \"%s\" line %d: \"%s\""), source_file, line_number, raw_line);
#else
  (void)source_file;
  return psprintf(_("Connection matched pg_hba.conf line %d: \"%s\""), line_number, raw_line);
#endif
}

// The compiled regular expression of a database or role name, or null.
inline regex_t *token_regex(const AuthToken *token) {
#if PG_VERSION_NUM >= 160000
  return token->regex;
#else
  (void)token;
  return nullptr;
#endif
}

// The three interesting parts of a line of pg_ident.conf.  Before 16 a role
// name there is always literal, which a quoted token expresses.
inline const char *mapped_system_user(const IdentLine *line) {
#if PG_VERSION_NUM >= 160000
  return line->system_user->string;
#else
  return line->ident_user;
#endif
}

inline regex_t *mapped_system_user_regex(IdentLine *line) {
#if PG_VERSION_NUM >= 160000
  return line->system_user->regex;
#else
  return line->ident_user[0] == '/' ? &line->re : nullptr;
#endif
}

inline AuthToken mapped_role(const IdentLine *line) {
#if PG_VERSION_NUM >= 160000
  return *line->pg_user;
#else
  AuthToken token{};
  token.string = line->pg_role;
  token.quoted = true;
  return token;
#endif
}

// Frees what the deletion of its memory context would miss.
inline void forget_mapping(IdentLine *line) {
#if PG_VERSION_NUM >= 160000
  (void)line;
#else
  if (line->ident_user[0] == '/') pg_regfree(&line->re);
#endif
}

inline bool logs_authentication() {
#if PG_VERSION_NUM >= 180000
  return (log_connections & LOG_CONNECTION_AUTHENTICATION) != 0;
#else
  return Log_connections;
#endif
}

constexpr bool kLogsTrustedConnections = PG_VERSION_NUM >= 170000;

// With db_user_namespace the salted name is not the role's, so MD5 cannot work.
inline bool md5_authentication_is_impossible() {
#if PG_VERSION_NUM >= 170000
  return false;
#else
  return Db_user_namespace;
#endif
}

inline int verify_md5_response(const char *role, const char *secret, const char *response, const char *salt, int length,
                               const char **log_detail) {
#if PG_VERSION_NUM >= 180000
  return md5_crypt_verify(role, secret, response, reinterpret_cast<const uint8 *>(salt), length, log_detail);
#else
  return md5_crypt_verify(role, secret, response, salt, length, log_detail);
#endif
}

}  // namespace sluice::pg

// ---------------------------------------------------------------- end of authentication files and secrets

// ---------------------------------------------------------------- session

extern "C" {
#include "common/string.h"
#include "nodes/nodes.h"
#include "replication/slot.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/guc_tables.h"
#include "utils/pgstat_internal.h"
#include "utils/portal.h"
}

namespace sluice::pg {

// Drops the temporary replication slots of this process.
inline void drop_temporary_slots() {
#if PG_VERSION_NUM >= 170000
  ReplicationSlotCleanup(false);
#else
  ReplicationSlotCleanup();
#endif
}

// Replaces what is not printable ASCII, in place.
inline void clean_ascii(char *text) {
#if PG_VERSION_NUM >= 160000
  char *cleaned = pg_clean_ascii(text, 0);
  strlcpy(text, cleaned, strlen(text) + 1);
  pfree(cleaned);
#else
  pg_clean_ascii(text);
#endif
}

// All settings.  From 16 on the array is palloc'd by the call.
inline struct config_generic **all_settings(int *count) {
#if PG_VERSION_NUM >= 160000
  return get_guc_variables(count);
#else
  *count = GetNumConfigOptions();
  return get_guc_variables();
#endif
}

// Runs a portal for its client; true when it has been run to completion.
inline bool run_portal(Portal portal, long max_rows, DestReceiver *receiver, QueryCompletion *completion) {
#if PG_VERSION_NUM >= 180000
  return PortalRun(portal, max_rows, true, receiver, receiver, completion);
#else
  return PortalRun(portal, max_rows, true, true, receiver, receiver, completion);
#endif
}

// Does this process hold locks whose partition is `partition`?
inline bool lock_list_has_entries(int partition) {
#if PG_VERSION_NUM >= 160000
  return !dlist_is_empty(&MyProc->myProcLocks[partition]);
#else
  return !SHMQueueEmpty(&MyProc->myProcLocks[partition]);
#endif
}

// Sessions of this process's database that have not been added to pg_stat_database yet.
inline PgStat_Counter *unreported_sessions() {
  PgStat_StatDBEntry *statistics = pgstat_prep_database_pending(MyDatabaseId);
#if PG_VERSION_NUM >= 160000
  return &statistics->sessions;
#else
  return &statistics->n_sessions;
#endif
}

}  // namespace sluice::pg

// ---------------------------------------------------------------- end of session

// ---------------------------------------------------------------- reserved connections
//
// 16 added reserved_connections, for members of pg_use_reserved_connections, and
// other words.

extern "C" {
#include "catalog/pg_authid.h"
#include "postmaster/postmaster.h"
#include "utils/acl.h"
}

namespace sluice::pg {

struct SlotReserve {
  int superuser;
  int privileged;  // beside them
};

inline SlotReserve slot_reserve() {
#if PG_VERSION_NUM >= 160000
  return {SuperuserReservedConnections, ReservedConnections};
#else
  return {ReservedBackends, 0};
#endif
}

// Asks the catalogs about memberships: see is_member_of().
inline bool may_use_reserved_connections(Oid role) {
#if PG_VERSION_NUM >= 160000
  return has_privs_of_role(role, ROLE_PG_USE_RESERVED_CONNECTIONS);
#else
  (void)role;
  return false;
#endif
}

[[noreturn]] inline void raise_reserved_slots(bool for_superusers) {
#if PG_VERSION_NUM >= 160000
  if (for_superusers)
    ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                    errmsg("remaining connection slots are reserved for roles with the %s attribute", "SUPERUSER")));
  ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                  errmsg("remaining connection slots are reserved for roles with privileges of the \"%s\" role",
                         "pg_use_reserved_connections")));
#else
  (void)for_superusers;
  ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                  errmsg("remaining connection slots are reserved for non-replication superuser connections")));
#endif
  pg_unreachable();
}

}  // namespace sluice::pg

// ---------------------------------------------------------------- end of reserved connections

// ---------------------------------------------------------------- statistics of processes

extern "C" {
#include "utils/backend_status.h"
}

namespace sluice::pg {

// What pg_stat_activity shows of process `number`, 1 to pgstat_fetch_stat_numbackends(): a copy made at the first call
// of a transaction.  May be null.
inline LocalPgBackendStatus *backend_status_entry(int number) {
#if PG_VERSION_NUM >= 160000
  return pgstat_get_local_beentry_by_index(number);
#else
  return pgstat_fetch_stat_local_beentry(number);
#endif
}

}  // namespace sluice::pg

// ---------------------------------------------------------------- end of statistics of processes

// ---------------------------------------------------------------- databases and roles that change
//
// 16 asks about all kinds of objects through one pair of functions, and words the
// refusal to end somebody's session differently.  17 lets a worker start for a role
// that may not log in.

extern "C" {
#include "catalog/pg_database.h"
#include "catalog/pg_tablespace.h"
#include "postmaster/bgworker.h"
#include "utils/acl.h"
}

namespace sluice::pg {

inline bool owns_database(Oid database, Oid role) {
#if PG_VERSION_NUM >= 160000
  return object_ownercheck(DatabaseRelationId, database, role);
#else
  return pg_database_ownercheck(database, role);
#endif
}

inline bool may_create_in_tablespace(Oid tablespace, Oid role) {
#if PG_VERSION_NUM >= 160000
  return object_aclcheck(TableSpaceRelationId, tablespace, role, ACL_CREATE) == ACLCHECK_OK;
#else
  return pg_tablespace_aclcheck(tablespace, role, ACL_CREATE) == ACLCHECK_OK;
#endif
}

// In the words of TerminateOtherDBBackends().
inline void refuse_termination(bool of_superuser) {
#if PG_VERSION_NUM >= 160000
  ereport(ERROR,
          (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied to terminate process"),
           of_superuser
               ? errdetail("Only roles with the %s attribute may terminate processes of roles with the %s attribute.",
                           "SUPERUSER", "SUPERUSER")
               : errdetail("Only roles with privileges of the role whose process is being terminated or with privileges "
                           "of the \"%s\" role may terminate this process.",
                           "pg_signal_backend")));
#else
  ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                  of_superuser ? errmsg("must be a superuser to terminate superuser process")
                               : errmsg("must be a member of the role whose process is being terminated or member of "
                                        "pg_signal_backend")));
#endif
}

// For a worker some client has been let in before: a session of its own on the
// server's own port would not be asked again either.  New clients are asked when they
// log in, whoever serves them.
#if PG_VERSION_NUM >= 170000
constexpr uint32 kStartsForEstablishedClients = BGWORKER_BYPASS_ALLOWCONN | BGWORKER_BYPASS_ROLELOGINCHECK;
#else
constexpr uint32 kStartsForEstablishedClients = BGWORKER_BYPASS_ALLOWCONN;
#endif

}  // namespace sluice::pg

// ---------------------------------------------------------------- end of databases and roles that change

// port.h turns these into macros; C++ headers included later must not see them.
#undef printf
#undef fprintf
#undef sprintf
#undef snprintf
#undef vprintf
#undef vfprintf
#undef vsprintf
#undef vsnprintf
#undef strerror
#undef strerror_r
#undef bind
#undef select

#endif
