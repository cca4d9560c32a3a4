// SPDX-License-Identifier: PostgreSQL
//
// pg_hba.conf as the dispatcher knows it: which rule a client falls under.

#ifndef SLUICE_PG_AUTH_HBA_RULES_HPP
#define SLUICE_PG_AUTH_HBA_RULES_HPP

#include "pg/compat.hpp"

extern "C" {
#include "libpq/libpq-be.h"
}

namespace sluice::pg {

// What is kept of the rule that decided; copies, so that a reload during the
// exchange does no harm.
struct MatchedRule {
  bool undecided;   // more must be known of the client's host name; the rest says nothing
  UserAuth method;  // uaImplicitReject: no rule matched
  ClientCertMode certificate;
  ClientCertName certificate_name;  // which of its names is compared
  int line_number;  // 0 if no rule matched
  const char *raw_line;
  const char *source_file;
  const char *user_map;  // null = none
};

// Reads pg_hba.conf.  False, with the reasons in the log: the rules read before
// stay in force.  Needs no transaction, and may be called inside one.
bool load_hba_rules();

// The first rule that fits the client, whose role is `role` (InvalidOid if there
// is none of that name: groups then do not match).  What is known of the client's host
// name is in remote_hostname and remote_hostname_resolv, as the server keeps it; if a
// rule needs more the answer is `undecided`: have it looked up (name_board.hpp), and
// ask again.  Needs a transaction; allocates in CurrentMemoryContext.
MatchedRule find_hba_rule(const Port *port, Oid role);

// Whether one of `tokens` (AuthToken) stands for the role: its name, "all", a
// group it belongs to, or an expression.  For pg_ident.conf too.
bool tokens_match_role(List *tokens, const char *role_name, Oid role);

// Compares `subject` with a compiled expression; a REG_... code.  `groups` may be
// null if `group_count` is 0.
int execute_regex(regex_t *regex, const char *subject, int group_count, regmatch_t *groups);

// Reads an authentication file: splits it and hands each line to `parse`, which
// answers with a node allocated in CurrentMemoryContext, or null after a LOG
// message.  True if every line was good; `lines` then holds the nodes, and they
// live in `context`.  May raise ERROR (out of memory), never leaving the file open.
using ParseLine = void *(*)(TokenizedAuthLine *line);
bool parse_authentication_file(const char *name, MemoryContext context, ParseLine parse, List **lines);

}  // namespace sluice::pg

#endif
