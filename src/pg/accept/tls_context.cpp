// SPDX-License-Identifier: PostgreSQL
//
// Certificates, keys, ciphers, protocol versions, revocation lists and the
// passphrase command are all loaded by the server's be_tls_init().  It keeps the
// result to itself, but shows the context it is filling to openssl_tls_init_hook;
// a second reference taken there is a reference to the finished context when
// be_tls_init() says that it succeeded.
//
// A key whose passphrase may be asked for only once (ssl_passphrase_command without
// ssl_passphrase_command_supports_reload) has been loaded by the postmaster, and
// the dispatcher, being its child, has inherited the result.  That is why the
// context of the server's start is kept: from a start that fails to load it, no
// dispatcher comes.  Contexts of the postmaster's later reloads are not: nothing
// here learns whether they succeeded.
//
// A module that installs its own hook and does not call ours is not a problem: the
// dispatcher puts ours in front again before it loads anything.

#include "pg/accept/tls_context.hpp"

extern "C" {
#include "libpq/libpq.h"
#include "postmaster/postmaster.h"
}

#include "pg/accept/tls_session.hpp"

namespace sluice::pg {

#ifdef USE_OPENSSL

static openssl_tls_init_hook_typ next_hook = nullptr;
static SSL_CTX *of_server_start = nullptr;
static SSL_CTX *latest = nullptr;   // shown to the hook; perhaps never finished
static SSL_CTX *in_force = nullptr;

static void replace(SSL_CTX *&kept, SSL_CTX *context) {
  if (kept != nullptr) SSL_CTX_free(kept);
  kept = context;
}

extern "C" {

static void note_context(SSL_CTX *context, bool server_starts) {
  if (next_hook != nullptr) next_hook(context, server_starts);
  SSL_CTX *&kept = server_starts && !IsUnderPostmaster ? of_server_start : latest;
  SSL_CTX_up_ref(context);
  replace(kept, context);
}

}  // extern "C"

static void put_hook_in_front() {
  if (openssl_tls_init_hook == note_context) return;
  next_hook = openssl_tls_init_hook;
  openssl_tls_init_hook = note_context;
}

void keep_server_tls_context() { put_hook_in_front(); }

static bool key_can_be_loaded_again() {
  return ssl_passphrase_command[0] == '\0' || ssl_passphrase_command_supports_reload;
}

static void take_into_force(SSL_CTX *context) {
  SSL_CTX_up_ref(context);
  replace(in_force, context);
  prepare_tls_context(context);
}

void load_tls_context(bool dispatcher_starts) {
  if (!EnableSSL) {
    replace(in_force, nullptr);
    return;
  }
  const bool inherited = dispatcher_starts && of_server_start != nullptr;
  if (inherited && !key_can_be_loaded_again()) {
    take_into_force(of_server_start);
    return;
  }
  put_hook_in_front();
  const bool loaded = secure_initialize(false) == 0 && latest != nullptr;
  if (loaded)
    take_into_force(latest);
  else if (inherited)
    take_into_force(of_server_start);
  replace(latest, nullptr);
  if (!loaded)
    ereport(LOG, (in_force != nullptr
                      ? errmsg("the pooled port keeps its former SSL configuration")
                      : errmsg("the pooled port offers no SSL because its configuration could not be loaded")));
}

bool tls_is_offered() { return in_force != nullptr; }

SSL_CTX *tls_context() { return in_force; }

#else

void keep_server_tls_context() {}
void load_tls_context(bool) {}
bool tls_is_offered() { return false; }

#endif

}  // namespace sluice::pg
