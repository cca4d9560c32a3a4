/* SPDX-License-Identifier: PostgreSQL
 *
 * A module as others have written them: it wants to see the server's SSL context, and calls the hook that it found.
 */
#include "postgres.h"

#include "fmgr.h"
#include "libpq/libpq.h"
#include "libpq/libpq-be.h"

PG_MODULE_MAGIC;

void _PG_init(void);

static openssl_tls_init_hook_typ found;

static void
note_context(SSL_CTX *context, bool server_starts)
{
	ereport(LOG, (errmsg("tls_hook was shown a context")));
	if (found != NULL)
		found(context, server_starts);
}

void
_PG_init(void)
{
	found = openssl_tls_init_hook;
	openssl_tls_init_hook = note_context;
}
