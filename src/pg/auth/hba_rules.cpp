// SPDX-License-Identifier: PostgreSQL
//
// pg_hba.conf, parsed by the server's own parser and matched here.
//
// Why the server's matching is not used
//   load_hba() keeps its rules in a child of PostmasterContext, which every
//   process that is not the postmaster deletes; what is left in a background
//   worker is a dangling pointer, and load_hba() would free it a second time.
//   The parser itself (tokenize_auth_file, parse_hba_line) keeps nothing, so the
//   syntax, its errors and its messages are the server's.
//
// A reload builds the new list in a memory context of its own and swaps it in
// only if every line was good; a client in the middle of its exchange holds
// copies of what it needs (MatchedRule).
//
// Host names
//   The server resolves the client's address to a name and back.  That can take
//   seconds, and the dispatcher serves everybody.  So a rule with a host name is
//   matched against what is known of the client so far; where that is not enough the
//   search ends undecided, the login is parked, another process looks up what is
//   missing (resolver.cpp), and the search begins again, with the rules as they are
//   then.  A client takes at most two such rounds: its name, and, if a rule has that
//   name, the addresses of the name.
//   The server looks at the address of a rule before it looks at databases and roles;
//   here host names come last, so that nobody waits for the name service because of
//   a rule that is for others.  Which rule matches is the same.  The log's detail
//   about the client's name is missing where only rules for others have one.
//   One look-up is beyond reach: the parser resolves the names of RADIUS servers
//   while it reads the file, here as in the postmaster.

#include "pg/auth/hba_rules.hpp"

#include "core/auth/name_lookup.hpp"
#include "pg/auth/shared_catalog.hpp"

extern "C" {
#include "libpq/ifaddr.h"
#include "mb/pg_wchar.h"
#include "utils/guc.h"
#include "utils/memutils.h"
}

namespace sluice::pg {
namespace {

MemoryContext rules_context = nullptr;
List *rules = NIL;  // of HbaLine, in the order of the file

void *parse_rule(TokenizedAuthLine *line) {
  return parse_hba_line(line, LOG);
}

bool has_host_name(const HbaLine *rule) {
  return rule->conntype != ctLocal && rule->ip_cmp_method == ipCmpMask && rule->hostname != nullptr;
}

// ---------------------------------------------------------------- addresses

bool is_gss_encrypted(const Port *port) {
#ifdef ENABLE_GSS
  return port->gss != nullptr && port->gss->enc;
#else
  (void)port;
  return false;
#endif
}

bool matches_connection_type(const HbaLine *rule, const Port *port) {
  const bool is_local = port->raddr.addr.ss_family == AF_UNIX;

  switch (rule->conntype) {
    case ctLocal:
      return is_local;
    case ctHost:
      return !is_local;
    case ctHostSSL:
      return !is_local && port->ssl_in_use;
    case ctHostNoSSL:
      return !is_local && !port->ssl_in_use;
    case ctHostGSS:
      return !is_local && is_gss_encrypted(port);
    case ctHostNoGSS:
      return !is_local && !is_gss_encrypted(port);
  }
  return false;
}

bool is_in_range(const SockAddr *client, const sockaddr_storage *address, const sockaddr_storage *mask) {
  return client->addr.ss_family == address->ss_family && pg_range_sockaddr(&client->addr, address, mask) != 0;
}

struct InterfaceSearch {
  const SockAddr *client;
  bool whole_network;  // samenet; otherwise samehost
  bool found;
};

size_t address_length(int family) {
  switch (family) {
    case AF_INET:
      return sizeof(sockaddr_in);
    case AF_INET6:
      return sizeof(sockaddr_in6);
    default:
      return 0;
  }
}

extern "C" void compare_with_interface(sockaddr *address, sockaddr *netmask, void *argument) {
  auto *search = static_cast<InterfaceSearch *>(argument);
  const size_t length = address_length(address->sa_family);
  sockaddr_storage own{};
  sockaddr_storage mask{};

  if (search->found || length == 0) return;
  memcpy(&own, address, length);
  if (search->whole_network)
    memcpy(&mask, netmask, length);
  else if (pg_sockaddr_cidr_mask(&mask, nullptr, address->sa_family) < 0)
    return;
  search->found = is_in_range(search->client, &own, &mask);
}

bool is_on_own_interface(const SockAddr *client, bool whole_network) {
  InterfaceSearch search{client, whole_network, false};

  errno = 0;
  if (pg_foreach_ifaddr(compare_with_interface, &search) < 0) {
    ereport(LOG, (errmsg("error enumerating network interfaces: %m")));
    return false;
  }
  return search.found;
}

// Host names are the caller's affair.
bool matches_address(const HbaLine *rule, const SockAddr *client) {
  if (rule->conntype == ctLocal) return true;
  switch (rule->ip_cmp_method) {
    case ipCmpAll:
      return true;
    case ipCmpSameHost:
      return is_on_own_interface(client, false);
    case ipCmpSameNet:
      return is_on_own_interface(client, true);
    case ipCmpMask:
      return is_in_range(client, &rule->addr, &rule->mask);
  }
  return false;
}

// ---------------------------------------------------------------- names

bool is_keyword(const AuthToken *token, const char *keyword) {
  return !token->quoted && strcmp(token->string, keyword) == 0;
}

bool matches_name(const AuthToken *token, const char *name) {
  regex_t *regex = token_regex(token);
  if (regex != nullptr) return execute_regex(regex, name, 0, nullptr) == REG_OKAY;
  return strcmp(token->string, name) == 0;
}

bool tokens_match_database(List *tokens, const char *database, const char *role_name, Oid role) {
  ListCell *cell;
  foreach (cell, tokens) {
    auto *token = static_cast<AuthToken *>(lfirst(cell));
    if (is_keyword(token, "all")) return true;
    if (is_keyword(token, "sameuser")) {
      if (strcmp(database, role_name) == 0) return true;
    } else if (is_keyword(token, "samerole") || is_keyword(token, "samegroup")) {
      if (is_member_of(role, database)) return true;
    } else if (!is_keyword(token, "replication") && matches_name(token, database)) {
      return true;
    }
  }
  return false;
}

// ---------------------------------------------------------------- the answer

HostNameVerdict matches_host_name(const HbaLine *rule, const Port *port) {
  const HostNameFacts facts{port->remote_hostname, static_cast<ForwardLookup>(port->remote_hostname_resolv)};
  return judge_host_name(rule->hostname, facts);
}

MatchedRule copy_rule(const HbaLine *rule) {
  MatchedRule copy{};
  copy.method = rule->auth_method;
  copy.certificate = rule->clientcert;
  copy.certificate_name = rule->clientcertname;
  copy.line_number = rule->linenumber;
  copy.raw_line = pstrdup(rule->rawline);
  copy.source_file = pstrdup(rule_source_file(rule));
  copy.user_map = rule->usermap != nullptr ? pstrdup(rule->usermap) : nullptr;
  return copy;
}

}  // namespace

int execute_regex(regex_t *regex, const char *subject, int group_count, regmatch_t *groups) {
  const int length = static_cast<int>(strlen(subject));
  auto *wide = static_cast<pg_wchar *>(palloc((length + 1) * sizeof(pg_wchar)));
  const int wide_length = pg_mb2wchar_with_len(subject, wide, length);
  const int result = pg_regexec(regex, wide, wide_length, 0, nullptr, group_count, groups, 0);

  pfree(wide);
  return result;
}

bool tokens_match_role(List *tokens, const char *role_name, Oid role) {
  ListCell *cell;
  foreach (cell, tokens) {
    auto *token = static_cast<AuthToken *>(lfirst(cell));
    if (!token->quoted && token->string[0] == '+') {
      if (is_member_of(role, token->string + 1)) return true;
    } else if (is_keyword(token, "all") || matches_name(token, role_name)) {
      return true;
    }
  }
  return false;
}

bool parse_authentication_file(const char *name, MemoryContext context, ParseLine parse, List **lines) {
  AuthenticationFile opened;
  volatile bool good = true;

  *lines = NIL;
  if (!open_authentication_file(name, &opened)) return false;

  const MemoryContext caller_context = MemoryContextSwitchTo(context);
  PG_TRY();
  {
    split_authentication_file(name, &opened);

    // After a bad line the rest is parsed all the same, for its messages.
    ListCell *cell;
    foreach (cell, opened.lines) {
      auto *line = static_cast<TokenizedAuthLine *>(lfirst(cell));
      void *parsed = line->err_msg == nullptr ? parse(line) : nullptr;
      if (parsed != nullptr)
        *lines = lappend(*lines, parsed);
      else
        good = false;
    }
  }
  PG_FINALLY();
  {
    MemoryContextSwitchTo(caller_context);
    close_authentication_file(&opened);
  }
  PG_END_TRY();
  return good;
}

bool load_hba_rules() {
  List *loaded;
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "sluice pg_hba.conf", ALLOCSET_SMALL_SIZES);
  bool good = parse_authentication_file(HbaFileName, context, parse_rule, &loaded);

  if (good && loaded == NIL) {
    ereport(LOG,
            (errcode(ERRCODE_CONFIG_FILE_ERROR), errmsg("configuration file \"%s\" contains no entries", HbaFileName)));
    good = false;
  }
  if (!good) {
    MemoryContextDelete(context);
    return false;
  }
  if (rules_context != nullptr) MemoryContextDelete(rules_context);
  MemoryContextSetParent(context, TopMemoryContext);
  rules_context = context;
  rules = loaded;
  return true;
}

MatchedRule find_hba_rule(const Port *port, Oid role) {
  MatchedRule none{};
  ListCell *cell;

  foreach (cell, rules) {
    auto *rule = static_cast<HbaLine *>(lfirst(cell));
    const bool names_host = has_host_name(rule);

    if (!matches_connection_type(rule, port)) continue;
    if (!names_host && !matches_address(rule, &port->raddr)) continue;
    if (!tokens_match_database(rule->databases, port->database_name, port->user_name, role)) continue;
    if (!tokens_match_role(rule->roles, port->user_name, role)) continue;
    if (!names_host) return copy_rule(rule);

    switch (matches_host_name(rule, port)) {
      case HostNameVerdict::yes:
        return copy_rule(rule);
      case HostNameVerdict::no:
        break;
      case HostNameVerdict::needs_reverse:
      case HostNameVerdict::needs_forward:
        none.undecided = true;
        return none;
    }
  }
  none.method = uaImplicitReject;
  return none;
}

}  // namespace sluice::pg
