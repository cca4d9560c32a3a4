// SPDX-License-Identifier: PostgreSQL
//
// pg_ident.conf, parsed by the server's own parser and matched here, for the
// reasons told in hba_rules.cpp.
//
// Before PostgreSQL 16 compiled regular expressions live in malloc's memory and
// have to be freed one by one (forget_mapping); this process lives as long as the
// server, so each reload would otherwise leave some behind.

#include "pg/auth/ident_map.hpp"

#include "pg/auth/hba_rules.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "utils/guc.h"
#include "utils/memutils.h"
}

namespace sluice::pg {
namespace {

MemoryContext map_context = nullptr;
List *mappings = NIL;  // of IdentLine, in the order of the file

enum class MappingResult { no_match, match, error };

void *parse_mapping(TokenizedAuthLine *line) {
  return parse_ident_line(line, LOG);
}

void forget_mappings(List *lines, MemoryContext context) {
  ListCell *cell;
  foreach (cell, lines) forget_mapping(static_cast<IdentLine *>(lfirst(cell)));
  if (context != nullptr) MemoryContextDelete(context);
}

// A role name in which "\1" is still to be replaced.  Keywords, groups and
// expressions (16 and later) are taken as they are.
const char *back_reference(const AuthToken *token) {
  const bool is_group = !token->quoted && token->string[0] == '+';
  return is_group || token_regex(token) != nullptr ? nullptr : strstr(token->string, "\\1");
}

char *replace_back_reference(const AuthToken *token, const char *reference, const char *subject,
                             const regmatch_t *group) {
  StringInfoData name;
  initStringInfo(&name);
  appendBinaryStringInfo(&name, token->string, static_cast<int>(reference - token->string));
  appendBinaryStringInfo(&name, subject + group->rm_so, static_cast<int>(group->rm_eo - group->rm_so));
  appendStringInfoString(&name, reference + 2);
  return name.data;
}

// Applies the expression of a line to the system user; on a match `token` becomes
// the role name to compare with.
MappingResult apply_expression(IdentLine *line, const char *system_user, AuthToken *token) {
  const char *expression = mapped_system_user(line) + 1;
  regmatch_t groups[2];
  const int result = execute_regex(mapped_system_user_regex(line), system_user, 2, groups);

  if (result == REG_NOMATCH) return MappingResult::no_match;
  if (result != REG_OKAY) {
    char reason[100];
    pg_regerror(result, mapped_system_user_regex(line), reason, sizeof(reason));
    ereport(LOG, (errcode(ERRCODE_INVALID_REGULAR_EXPRESSION),
                  errmsg("regular expression match for \"%s\" failed: %s", expression, reason)));
    return MappingResult::error;
  }

  const char *reference = back_reference(token);
  if (reference == nullptr) return MappingResult::match;
  if (groups[1].rm_so < 0) {
    ereport(LOG, (errcode(ERRCODE_INVALID_REGULAR_EXPRESSION),
                  errmsg("regular expression \"%s\" has no subexpressions as requested by backreference in \"%s\"",
                         expression, token->string)));
    return MappingResult::error;
  }
  token->string = replace_back_reference(token, reference, system_user, &groups[1]);
  token->quoted = true;  // what came from the client's name is never a keyword
  return MappingResult::match;
}

MappingResult try_mapping(IdentLine *line, const char *map_name, const char *role_name, Oid role,
                          const char *system_user) {
  if (strcmp(line->usermap, map_name) != 0) return MappingResult::no_match;

  AuthToken token = mapped_role(line);
  if (mapped_system_user_regex(line) != nullptr) {
    const MappingResult result = apply_expression(line, system_user, &token);
    if (result != MappingResult::match) return result;
  } else if (strcmp(mapped_system_user(line), system_user) != 0) {
    return MappingResult::no_match;
  }
  return tokens_match_role(list_make1(&token), role_name, role) ? MappingResult::match : MappingResult::no_match;
}

}  // namespace

bool load_ident_map() {
  List *loaded;
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "sluice pg_ident.conf", ALLOCSET_SMALL_SIZES);

  if (!parse_authentication_file(IdentFileName, context, parse_mapping, &loaded)) {
    forget_mappings(loaded, context);
    return false;
  }
  forget_mappings(mappings, map_context);
  MemoryContextSetParent(context, TopMemoryContext);
  mappings = loaded;
  map_context = context;
  return true;
}

bool is_mapped(const char *map_name, const char *role_name, Oid role, const char *system_user) {
  if (map_name == nullptr || map_name[0] == '\0') {
    if (strcmp(role_name, system_user) == 0) return true;
    ereport(LOG,
            (errmsg("provided user name (%s) and authenticated user name (%s) do not match", role_name, system_user)));
    return false;
  }

  ListCell *cell;
  foreach (cell, mappings) {
    auto *line = static_cast<IdentLine *>(lfirst(cell));
    const MappingResult result = try_mapping(line, map_name, role_name, role, system_user);
    if (result == MappingResult::match) return true;
    if (result == MappingResult::error) return false;
  }
  ereport(LOG, (errmsg("no match in usermap \"%s\" for user \"%s\" authenticated as \"%s\"", map_name, role_name,
                       system_user)));
  return false;
}

}  // namespace sluice::pg
