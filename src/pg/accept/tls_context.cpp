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
// context of the server's start is kept, for a dispatcher that cannot load one of its
// own: from a start that fails to load it, no dispatcher comes.  Contexts of the
// postmaster's later reloads are not kept: nothing here learns whether they succeeded.
//
// Other modules have such hooks, too.  One that does not call ours is not a problem:
// the dispatcher puts ours in front again before it loads anything.  One that does
// would then be called by us and call us; so it gets from us what ours was put in front of
// when the library was loaded.

#include "pg/accept/tls_context.hpp"

extern "C" {
#include "libpq/libpq.h"
#include "postmaster/postmaster.h"
}

#include "pg/accept/tls_session.hpp"

namespace sluice::pg {

#ifdef USE_OPENSSL

static openssl_tls_init_hook_typ found_at_load = nullptr;
static openssl_tls_init_hook_typ next_hook = nullptr;
static bool inside = false;
static SSL_CTX *of_server_start = nullptr;
static SSL_CTX *latest = nullptr;   // shown to the hook; perhaps never finished
static SSL_CTX *in_force = nullptr;

static void replace(SSL_CTX *&kept, SSL_CTX *context) {
  if (kept != nullptr) SSL_CTX_free(kept);
  kept = context;
}

extern "C" {

static void note_context(SSL_CTX *context, bool server_starts) {
  if (inside) {
    if (found_at_load != nullptr) found_at_load(context, server_starts);
    return;
  }
  inside = true;
  if (next_hook != nullptr) next_hook(context, server_starts);
  inside = false;
  if (!IsUnderPostmaster && !server_starts) return;
  SSL_CTX *&kept = IsUnderPostmaster ? latest : of_server_start;
  SSL_CTX_up_ref(context);
  replace(kept, context);
}

}  // extern "C"

static void put_hook_in_front() {
  if (openssl_tls_init_hook == note_context) return;
  next_hook = openssl_tls_init_hook;
  openssl_tls_init_hook = note_context;
}

void keep_server_tls_context() {
  found_at_load = openssl_tls_init_hook;
  put_hook_in_front();
}

static void take_into_force(SSL_CTX *context) {
  SSL_CTX_up_ref(context);
  replace(in_force, context);
  prepare_tls_context(context);
}

void load_tls_context() {
  if (!EnableSSL) {
    replace(in_force, nullptr);
    return;
  }
  inside = false;  // a hook may have left by an error
  put_hook_in_front();
  const bool loaded = secure_initialize(false) == 0 && latest != nullptr;
  if (loaded)
    take_into_force(latest);
  else if (in_force == nullptr && of_server_start != nullptr)
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
void load_tls_context() {}
bool tls_is_offered() { return false; }

#endif

}  // namespace sluice::pg
