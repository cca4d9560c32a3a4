/* pg_sluice--1.0.sql */
-- SPDX-License-Identifier: PostgreSQL

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_sluice" to load this file. \quit

-- Each view stands on a function of the same name.  Reading is for everyone
-- (the functions themselves hide what only some may see), changing for whom it
-- is granted to.  Times end in _at (timestamps), _ms, _us or _s (durations).

COMMENT ON SCHEMA sluice IS
  'Connection pools inside the server: what they are doing, and how to direct them.';

GRANT USAGE ON SCHEMA sluice TO PUBLIC;

-- --------------------------------------------------------------------------
-- pools: One row for each pool, a pool being one database and one role.

CREATE FUNCTION sluice.pools(
  OUT database               name,
  OUT role                   name,
  OUT mode                   text,
  OUT total                  integer,
  OUT active                 integer,
  OUT idle                   integer,
  OUT in_transaction         integer,
  OUT held                   integer,
  OUT pinned                 integer,
  OUT starting               integer,
  OUT retiring               integer,
  OUT clients                integer,
  OUT waiting                integer,
  OUT min_size               integer,
  OUT max_size               integer,
  OUT transactions           bigint,
  OUT leases                 bigint,
  OUT waits                  bigint,
  OUT wait_p50_us            bigint,
  OUT wait_p95_us            bigint,
  OUT wait_p99_us            bigint,
  OUT wait_max_us            bigint,
  OUT acquire_timeouts       bigint,
  OUT starts                 bigint,
  OUT start_failures         bigint,
  OUT starts_elided          bigint,
  OUT retirements            bigint,
  OUT clients_total          bigint,
  OUT cancels                bigint,
  OUT clients_lost           bigint,
  OUT pins_temporary_objects bigint,
  OUT pins_advisory_lock     bigint,
  OUT pins_listen            bigint,
  OUT pins_held_cursor       bigint,
  OUT pins_loaded_library    bigint,
  OUT pins_random_seed       bigint,
  OUT pins_replication       bigint,
  OUT pins_backup            bigint,
  OUT pins_function          bigint,
  OUT pins_state_too_large   bigint,
  OUT pins_refused           bigint,
  OUT pin_timeouts           bigint,
  OUT leaks                  bigint,
  OUT nested_acquires        bigint,
  OUT peak_waiting           integer,
  OUT peak_backends          integer,
  OUT created_at             timestamp with time zone,
  OUT statistics_since       timestamp with time zone
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_pools'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 10;

CREATE VIEW sluice.pools AS
  SELECT * FROM sluice.pools();

GRANT SELECT ON sluice.pools TO PUBLIC;

COMMENT ON FUNCTION sluice.pools() IS
  'Pools; read the view sluice.pools.';
COMMENT ON VIEW sluice.pools IS
  'Pools (one database and one role each): their backends by state, their clients, and what has been counted since statistics_since. No lock is taken: numbers of one row are snapshots that may be moments apart. Counters restart with sluice.reset_statistics(), with the server, and when a pool that nobody used is made anew.';
COMMENT ON COLUMN sluice.pools.database IS
  'Database of the pool.';
COMMENT ON COLUMN sluice.pools.role IS
  'Role the pool''s backends run as: the one its clients have logged in with.';
COMMENT ON COLUMN sluice.pools.mode IS
  'When clients give their backend back: transaction (at the end of each transaction), session (when they leave) or statement (as transaction, and transaction blocks are refused). See sluice.pool_mode.';
COMMENT ON COLUMN sluice.pools.total IS
  'Backends now: active + idle + in_transaction + held + pinned + starting + retiring.';
COMMENT ON COLUMN sluice.pools.active IS
  'Backends that execute for a client.';
COMMENT ON COLUMN sluice.pools.idle IS
  'Backends without work, those lingering on a client included.';
COMMENT ON COLUMN sluice.pools.in_transaction IS
  'Backends whose client thinks between the statements of a transaction. They count against sluice.max_backends, not against max_size.';
COMMENT ON COLUMN sluice.pools.held IS
  'Backends whose client is idle outside a transaction but keeps them, as in session mode. They count against max_size.';
COMMENT ON COLUMN sluice.pools.pinned IS
  'Backends whose client is idle outside a transaction and pinned to them by session state that cannot be carried. They count against sluice.max_backends, not against max_size.';
COMMENT ON COLUMN sluice.pools.starting IS
  'Backends that are not ready yet.';
COMMENT ON COLUMN sluice.pools.retiring IS
  'Backends that are leaving.';
COMMENT ON COLUMN sluice.pools.clients IS
  'Clients connected and authenticated.';
COMMENT ON COLUMN sluice.pools.waiting IS
  'Of these clients, those that wait for a backend.';
COMMENT ON COLUMN sluice.pools.min_size IS
  'Backends kept when idle, as the pool''s newest backend saw sluice.min_pool_size.';
COMMENT ON COLUMN sluice.pools.max_size IS
  'Most backends that may begin a transaction at a time, as the pool''s newest backend saw sluice.max_pool_size; where that is -1, the result of the sizing rule.';
COMMENT ON COLUMN sluice.pools.transactions IS
  'Transactions finished.';
COMMENT ON COLUMN sluice.pools.leases IS
  'Times a client got a backend.';
COMMENT ON COLUMN sluice.pools.waits IS
  'Of these leases, those that had to queue for a backend.';
COMMENT ON COLUMN sluice.pools.wait_p50_us IS
  'Median time a lease waited for a backend, in microseconds, over all leases: one that found a backend free waited 0. Off by at most 1.6 percent. NULL before the first lease.';
COMMENT ON COLUMN sluice.pools.wait_p95_us IS
  '95th percentile of the time a lease waited for a backend, in microseconds.';
COMMENT ON COLUMN sluice.pools.wait_p99_us IS
  '99th percentile of the time a lease waited for a backend, in microseconds.';
COMMENT ON COLUMN sluice.pools.wait_max_us IS
  'Longest time a lease waited for a backend, in microseconds.';
COMMENT ON COLUMN sluice.pools.acquire_timeouts IS
  'Clients that waited longer than sluice.acquire_timeout and got an error.';
COMMENT ON COLUMN sluice.pools.starts IS
  'Backends started.';
COMMENT ON COLUMN sluice.pools.start_failures IS
  'Backends that could not start.';
COMMENT ON COLUMN sluice.pools.starts_elided IS
  'Starts that were put off because another was under way while more clients waited than that was for, and then not needed.';
COMMENT ON COLUMN sluice.pools.retirements IS
  'Backends that have left, for whatever reason.';
COMMENT ON COLUMN sluice.pools.clients_total IS
  'Clients that have connected to this pool.';
COMMENT ON COLUMN sluice.pools.cancels IS
  'Cancel requests with a valid key, whether or not a query was running.';
COMMENT ON COLUMN sluice.pools.clients_lost IS
  'Clients that vanished inside a transaction or a result.';
COMMENT ON COLUMN sluice.pools.pins_temporary_objects IS
  'Times a client has been pinned to its backend by temporary objects.';
COMMENT ON COLUMN sluice.pools.pins_advisory_lock IS
  'Times a client has been pinned to its backend by an advisory lock held by the session.';
COMMENT ON COLUMN sluice.pools.pins_listen IS
  'Times a client has been pinned to its backend by listening to notifications.';
COMMENT ON COLUMN sluice.pools.pins_held_cursor IS
  'Times a client has been pinned to its backend by a cursor WITH HOLD.';
COMMENT ON COLUMN sluice.pools.pins_loaded_library IS
  'Times a client has been pinned to its backend by a library loaded by LOAD.';
COMMENT ON COLUMN sluice.pools.pins_random_seed IS
  'Times a client has been pinned to its backend by a seed set by setseed().';
COMMENT ON COLUMN sluice.pools.pins_replication IS
  'Times a client has been pinned to its backend by a replication origin or a temporary replication slot.';
COMMENT ON COLUMN sluice.pools.pins_backup IS
  'Times a client has been pinned to its backend by an online backup in progress.';
COMMENT ON COLUMN sluice.pools.pins_function IS
  'Times a client has been pinned to its backend by one of the functions named in sluice.pin_functions.';
COMMENT ON COLUMN sluice.pools.pins_state_too_large IS
  'Times a client has been pinned to its backend by session state for which there was no shared memory.';
COMMENT ON COLUMN sluice.pools.pins_refused IS
  'Statements refused because they would have pinned their client; see sluice.on_session_state.';
COMMENT ON COLUMN sluice.pools.pin_timeouts IS
  'Clients that were idle and pinned for longer than sluice.pin_timeout and have been ended.';
COMMENT ON COLUMN sluice.pools.leaks IS
  'Transactions that held a backend for longer than sluice.leak_threshold while clients waited.';
COMMENT ON COLUMN sluice.pools.nested_acquires IS
  'Times all backends were held by applications that waited for another connection: probably for themselves.';
COMMENT ON COLUMN sluice.pools.peak_waiting IS
  'Most clients that have waited at once.';
COMMENT ON COLUMN sluice.pools.peak_backends IS
  'Most backends at once.';
COMMENT ON COLUMN sluice.pools.created_at IS
  'When the pool was made, by its first client.';
COMMENT ON COLUMN sluice.pools.statistics_since IS
  'Since when the counters, percentiles and peaks of this row have been kept.';

-- --------------------------------------------------------------------------
-- clients: One row for each client connected to the port of pg_sluice.

CREATE FUNCTION sluice.clients(
  OUT client           integer,
  OUT database         name,
  OUT role             name,
  OUT state            text,
  OUT application_name text,
  OUT client_addr      inet,
  OUT client_port      integer,
  OUT backend_pid      integer,
  OUT connected_at     timestamp with time zone,
  OUT state_age_ms     double precision,
  OUT waiting_ms       double precision,
  OUT transactions     bigint,
  OUT waited_us        bigint,
  OUT held             boolean,
  OUT pins             text[],
  OUT pinned_ms        double precision,
  OUT cancel_pid       integer,
  OUT ssl              boolean,
  OUT ssl_by           text,
  OUT ssl_version      text,
  OUT ssl_cipher       text,
  OUT ssl_bits         integer,
  OUT ssl_client_dn    text,
  OUT ssl_client_serial numeric,
  OUT ssl_issuer_dn    text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_clients'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 100;

CREATE VIEW sluice.clients AS
  SELECT * FROM sluice.clients();

GRANT SELECT ON sluice.clients TO PUBLIC;

COMMENT ON FUNCTION sluice.clients() IS
  'Clients; read the view sluice.clients.';
COMMENT ON VIEW sluice.clients IS
  'Clients connected to the port of pg_sluice. No lock is taken: a row is a snapshot. Origin and names of other roles'' clients are shown to members of pg_read_all_stats only, as in pg_stat_activity.';
COMMENT ON COLUMN sluice.clients.client IS
  'Number of the client''s slot, the argument of sluice.cancel_client() and sluice.disconnect_client(). It is given to another client when this one has left.';
COMMENT ON COLUMN sluice.clients.database IS
  'Database of its pool; NULL until it is authenticated.';
COMMENT ON COLUMN sluice.clients.role IS
  'Role it has logged in with; NULL until it is authenticated.';
COMMENT ON COLUMN sluice.clients.state IS
  'authenticating: logging in; ready: has sent something and waits for a backend; leased: has a backend, also one that only lingers on it; idle: has nothing to do; closing: on its way out.';
COMMENT ON COLUMN sluice.clients.application_name IS
  'What it called itself when it connected. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.clients.client_addr IS
  'Address it comes from; NULL for a Unix socket. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.clients.client_port IS
  'TCP port it comes from; -1 for a Unix socket. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.clients.backend_pid IS
  'Process that serves it now, as in pg_stat_activity and sluice.backends; NULL unless leased.';
COMMENT ON COLUMN sluice.clients.connected_at IS
  'When it connected.';
COMMENT ON COLUMN sluice.clients.state_age_ms IS
  'How long it has been in its state, in milliseconds, to the grain of the coarse clock (about 4).';
COMMENT ON COLUMN sluice.clients.waiting_ms IS
  'How long it has been waiting for a backend, in milliseconds; NULL unless it is.';
COMMENT ON COLUMN sluice.clients.transactions IS
  'Transactions it has finished.';
COMMENT ON COLUMN sluice.clients.waited_us IS
  'Time it has waited for backends, summed, in microseconds.';
COMMENT ON COLUMN sluice.clients.held IS
  'Whether it keeps its backend until it leaves, as in session mode.';
COMMENT ON COLUMN sluice.clients.pins IS
  'What pins it to its backend between transactions: temporary_objects, advisory_lock, listen, held_cursor, loaded_library, random_seed, replication, backup, function, state_too_large. NULL unless it is pinned.';
COMMENT ON COLUMN sluice.clients.pinned_ms IS
  'How long it has been pinned, in milliseconds, to the grain of the coarse clock (about 4); NULL unless it is.';
COMMENT ON COLUMN sluice.clients.cancel_pid IS
  'Process number it was told for cancel requests: what its driver calls the backend''s pid. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.clients.ssl IS
  'Whether its connection is encrypted. NULL until it is authenticated, and unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.clients.ssl_by IS
  'Who encrypts: dispatcher, which relays every byte, or kernel. NULL unless it is encrypted and the reader may see it.';
COMMENT ON COLUMN sluice.clients.ssl_version IS
  'Version of the protocol, as in pg_stat_ssl. NULL likewise.';
COMMENT ON COLUMN sluice.clients.ssl_cipher IS
  'Cipher, as in pg_stat_ssl. NULL likewise.';
COMMENT ON COLUMN sluice.clients.ssl_bits IS
  'Bits of the cipher''s key, as in pg_stat_ssl. NULL likewise.';
COMMENT ON COLUMN sluice.clients.ssl_client_dn IS
  'Distinguished name of its certificate, cut to 63 bytes, as in pg_stat_ssl. NULL likewise, and if it sent no certificate.';
COMMENT ON COLUMN sluice.clients.ssl_client_serial IS
  'Serial number of its certificate, as in pg_stat_ssl. NULL likewise.';
COMMENT ON COLUMN sluice.clients.ssl_issuer_dn IS
  'Distinguished name of who issued its certificate, cut to 63 bytes, as in pg_stat_ssl. NULL likewise.';

-- --------------------------------------------------------------------------
-- backends: One row for each pooled backend.

CREATE FUNCTION sluice.backends(
  OUT backend            integer,
  OUT pid                integer,
  OUT database           name,
  OUT role               name,
  OUT state              text,
  OUT client             integer,
  OUT client_application text,
  OUT pins               text[],
  OUT state_age_ms       double precision,
  OUT lease_age_ms       double precision,
  OUT started_at         timestamp with time zone,
  OUT age_ms             double precision,
  OUT expires_in_s       double precision,
  OUT transactions       bigint,
  OUT retire_reason      text,
  OUT failure_sqlstate   text,
  OUT failure_message    text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_backends'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 100;

CREATE VIEW sluice.backends AS
  SELECT * FROM sluice.backends();

GRANT SELECT ON sluice.backends TO PUBLIC;

COMMENT ON FUNCTION sluice.backends() IS
  'Pooled backends; read the view sluice.backends.';
COMMENT ON VIEW sluice.backends IS
  'Pooled backends. No lock is taken: a row is a snapshot. For the query, the wait event and the client''s address, join pg_stat_activity on pid.';
COMMENT ON COLUMN sluice.backends.backend IS
  'Number of the backend''s slot.';
COMMENT ON COLUMN sluice.backends.pid IS
  'Process, as in pg_stat_activity; NULL until it runs.';
COMMENT ON COLUMN sluice.backends.database IS
  'Database of its pool.';
COMMENT ON COLUMN sluice.backends.role IS
  'Role of its pool.';
COMMENT ON COLUMN sluice.backends.state IS
  'starting: not ready yet; waiting: without work; assigned: a new client has been given to it; lingering: without work, still beside its last client; active: executes; thinking: its client''s turn inside a transaction; held: its client''s turn outside a transaction, and the client keeps it; pinned: the same, because of session state that cannot be carried; retiring: leaving; failed: could not start.';
COMMENT ON COLUMN sluice.backends.client IS
  'Client it serves or lingers on, as in sluice.clients; NULL if none.';
COMMENT ON COLUMN sluice.backends.client_application IS
  'What that client called itself when it connected. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.backends.pins IS
  'What pins that client to it, as in sluice.clients; NULL unless it is pinned.';
COMMENT ON COLUMN sluice.backends.state_age_ms IS
  'How long it has been in its state, in milliseconds, to the grain of the coarse clock (about 4).';
COMMENT ON COLUMN sluice.backends.lease_age_ms IS
  'How long it has served this client, in milliseconds; NULL if none.';
COMMENT ON COLUMN sluice.backends.started_at IS
  'When its process started.';
COMMENT ON COLUMN sluice.backends.age_ms IS
  'Age of its process in milliseconds.';
COMMENT ON COLUMN sluice.backends.expires_in_s IS
  'Seconds until it is replaced because of sluice.max_lifetime; 0 when it only waits for its client to finish; NULL if never.';
COMMENT ON COLUMN sluice.backends.transactions IS
  'Transactions it has executed.';
COMMENT ON COLUMN sluice.backends.retire_reason IS
  'Why it has been told to leave; NULL unless it has been.';
COMMENT ON COLUMN sluice.backends.failure_sqlstate IS
  'SQLSTATE with which it could not start; NULL unless its state is failed.';
COMMENT ON COLUMN sluice.backends.failure_message IS
  'Message with which it could not start; NULL unless its state is failed. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';

-- --------------------------------------------------------------------------
-- status: One row about the whole.

CREATE FUNCTION sluice.status(
  OUT port                    integer,
  OUT dispatcher_pid          integer,
  OUT statistician_pid        integer,
  OUT clients                 integer,
  OUT max_clients             integer,
  OUT unauthenticated         integer,
  OUT backends                integer,
  OUT max_backends            integer,
  OUT pools                   integer,
  OUT max_pools               integer,
  OUT connections_total       bigint,
  OUT connections_refused     bigint,
  OUT authentication_failures bigint,
  OUT protocol_violations     bigint,
  OUT started_at              timestamp with time zone
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_status'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1;

CREATE VIEW sluice.status AS
  SELECT (SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'pg_sluice') AS version, s.*
  FROM sluice.status() s;

GRANT SELECT ON sluice.status TO PUBLIC;

COMMENT ON FUNCTION sluice.status() IS
  'State of pg_sluice as a whole; read the view sluice.status.';
COMMENT ON VIEW sluice.status IS
  'One row about pg_sluice as a whole: its processes, what is in use of what there is, and what has been counted since started_at. No lock is taken: the numbers are snapshots.';
COMMENT ON COLUMN sluice.status.version IS
  'Version of the SQL objects in this database.';
COMMENT ON COLUMN sluice.status.port IS
  'Port the dispatcher listens on; NULL if it does not.';
COMMENT ON COLUMN sluice.status.dispatcher_pid IS
  'Process that accepts clients; NULL if there is none.';
COMMENT ON COLUMN sluice.status.statistician_pid IS
  'Process that samples and gives advice; NULL if there is none.';
COMMENT ON COLUMN sluice.status.clients IS
  'Clients connected, those logging in included.';
COMMENT ON COLUMN sluice.status.max_clients IS
  'Most clients; see sluice.max_clients.';
COMMENT ON COLUMN sluice.status.unauthenticated IS
  'Of the clients, those that are logging in.';
COMMENT ON COLUMN sluice.status.backends IS
  'Pooled backends, of all pools together.';
COMMENT ON COLUMN sluice.status.max_backends IS
  'Most pooled backends; see sluice.max_backends.';
COMMENT ON COLUMN sluice.status.pools IS
  'Pools open.';
COMMENT ON COLUMN sluice.status.max_pools IS
  'Most pools; see sluice.max_pools.';
COMMENT ON COLUMN sluice.status.connections_total IS
  'Connections accepted.';
COMMENT ON COLUMN sluice.status.connections_refused IS
  'Connections refused because some limit was reached.';
COMMENT ON COLUMN sluice.status.authentication_failures IS
  'Connections that could not log in.';
COMMENT ON COLUMN sluice.status.protocol_violations IS
  'Connections closed because they broke the protocol.';
COMMENT ON COLUMN sluice.status.started_at IS
  'When the server created pg_sluice''s shared memory. The counters of this row are never reset before the next start.';

-- --------------------------------------------------------------------------
-- Functions that change something.

CREATE FUNCTION sluice.cancel_client(client integer)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sluice_cancel_client'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION sluice.cancel_client(integer) IS
  'Cancels the query a client has running, never that of the next client of the same backend. True if its backend was told, false if no backend serves it. The argument is the column client of sluice.clients.';

CREATE FUNCTION sluice.disconnect_client(client integer)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sluice_disconnect_client'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION sluice.disconnect_client(integer) IS
  'Ends a client''s connection, rolling back its transaction; its backend lives on. True if the process concerned was told, false if there is no such client. The argument is the column client of sluice.clients.';

CREATE FUNCTION sluice.retire_backends(database text DEFAULT NULL, role text DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'sluice_retire_backends'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION sluice.retire_backends(text, text) IS
  'Asks the pooled backends of a database, of a role, or all of them to leave as soon as their clients have given them back; pools start new ones as needed. Returns how many were newly asked.';

CREATE FUNCTION sluice.reset_statistics()
RETURNS timestamp with time zone
AS 'MODULE_PATHNAME', 'sluice_reset_statistics'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION sluice.reset_statistics() IS
  'Restarts the counters, percentiles and peaks of all pools and applications, sluice.errors, and the fit of the measured knee; returns the new statistics_since. The counters of sluice.status, sluice.history and sluice.events go on, and a calibration stays.';

REVOKE ALL ON FUNCTION sluice.cancel_client(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION sluice.disconnect_client(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION sluice.retire_backends(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION sluice.reset_statistics() FROM PUBLIC;

-- --------------------------------------------------------------------------
-- Errors and events.

CREATE FUNCTION sluice.errors(
  OUT class            text,
  OUT sqlstate         text,
  OUT count            bigint,
  OUT first_at         timestamp with time zone,
  OUT last_at          timestamp with time zone,
  OUT last_message     text,
  OUT statistics_since timestamp with time zone
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_errors'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 20;

CREATE VIEW sluice.errors AS
  SELECT * FROM sluice.errors() e ORDER BY e.class, e.sqlstate;

GRANT SELECT ON sluice.errors TO PUBLIC;

COMMENT ON FUNCTION sluice.errors() IS
  'Errors counted; read the view sluice.errors.';
COMMENT ON VIEW sluice.errors IS
  'Errors that clients of the pooled port have met, a row for each class and SQLSTATE since the server started or statistics were reset. Direct connections are not counted, nor are errors that a function has caught.';
COMMENT ON COLUMN sluice.errors.class IS
  'Where it belongs: authentication (could not log in), limit (refused because some limit was reached, or the server starts or stops), acquire_timeout, protocol (the client broke it), statement (the client kept its connection), client_end (it lost it: idle timeouts, administrators, bad start-up settings), backend_start (it waited for a backend that could not start) or internal (SQLSTATE XX...).';
COMMENT ON COLUMN sluice.errors.sqlstate IS
  'SQLSTATE. NULL: any other of this class; the table has room for 248 different ones until the server restarts.';
COMMENT ON COLUMN sluice.errors.count IS
  'How often. A backend that could not start counts once for each client that was told.';
COMMENT ON COLUMN sluice.errors.first_at IS
  'When for the first time.';
COMMENT ON COLUMN sluice.errors.last_at IS
  'When for the last time.';
COMMENT ON COLUMN sluice.errors.last_message IS
  'Its latest message, cut at 203 bytes. NULL unless the reader has the privileges of the role it was for, or of pg_read_all_stats; messages of clients that had not logged in are for the latter alone. Where client and database have different encodings, "?" stands for what is not ASCII.';
COMMENT ON COLUMN sluice.errors.statistics_since IS
  'Since when is counted: the start of the server, or the last sluice.reset_statistics().';

CREATE FUNCTION sluice.events(
  OUT number      bigint,
  OUT at          timestamp with time zone,
  OUT kind        text,
  OUT database    name,
  OUT role        name,
  OUT backend_pid integer,
  OUT client      integer,
  OUT reason      text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_events'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1000;

CREATE VIEW sluice.events AS
  SELECT * FROM sluice.events() e ORDER BY e.number;

GRANT SELECT ON sluice.events TO PUBLIC;

COMMENT ON FUNCTION sluice.events() IS
  'Latest events; read the view sluice.events.';
COMMENT ON VIEW sluice.events IS
  'The latest sluice.max_events events, oldest first: what pools have decided, and what has happened to their clients. They are kept until they are overwritten or the server restarts; sluice.reset_statistics() leaves them, and is an event itself. The smallest number less one is how many have been overwritten. Of what clients can cause as often as they like, each process writes 20 at once and then one each second.';
COMMENT ON COLUMN sluice.events.number IS
  'Number of the event, from 1 since the server started. One that is missing in between was dropped because its place was just being written.';
COMMENT ON COLUMN sluice.events.at IS
  'When.';
COMMENT ON COLUMN sluice.events.kind IS
  'pool_created, backend_started, start_failed, start_elided (put off, and then not needed), backend_retired (has ended), acquire_timeout, pinned (once for each client and reason), pin_refused, pin_timeout, leak, nested_acquire, client_lost (vanished inside a transaction or a command) or statistics_reset.';
COMMENT ON COLUMN sluice.events.database IS
  'Database of the pool, as it was called then; NULL if it is about no pool.';
COMMENT ON COLUMN sluice.events.role IS
  'Role of the pool, as it was called then; NULL if it is about no pool.';
COMMENT ON COLUMN sluice.events.backend_pid IS
  'Process number of the backend; NULL if there is none.';
COMMENT ON COLUMN sluice.events.client IS
  'Number of the client''s slot, which may be another client''s by now; NULL if there is none.';
COMMENT ON COLUMN sluice.events.reason IS
  'Why, cut at 159 bytes. "(and n before it)" at its end: so many events of this kind were left out. Messages of backends that could not start are shown to members of the pool''s role and of pg_read_all_stats, and are NULL for others.';

-- --------------------------------------------------------------------------
-- history: One row for each second and pool.

CREATE FUNCTION sluice.history(
  since interval DEFAULT NULL,
  OUT at                          timestamp with time zone,
  OUT database                    name,
  OUT role                        name,
  OUT length_s                    double precision,
  OUT tps                         double precision,
  OUT transactions                bigint,
  OUT leases                      bigint,
  OUT waits                       bigint,
  OUT statements                  bigint,
  OUT acquire_timeouts            bigint,
  OUT starts                      bigint,
  OUT retirements                 bigint,
  OUT clients_lost                bigint,
  OUT active                      double precision,
  OUT thinking                    double precision,
  OUT wait_p50_us                 bigint,
  OUT wait_p99_us                 bigint,
  OUT wait_max_us                 bigint,
  OUT clients                     integer,
  OUT waiting                     integer,
  OUT peak_waiting                integer,
  OUT backends                    integer,
  OUT starting                    integer,
  OUT in_transaction              integer,
  OUT pinned                      integer,
  OUT peak_in_use                 integer,
  OUT max_size                    integer,
  OUT statements_per_transaction  double precision,
  OUT blocks_per_transaction      double precision,
  OUT wal_records_per_transaction double precision
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_history'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 10000;

CREATE VIEW sluice.history AS
  SELECT * FROM sluice.history() ORDER BY at, database, role;

GRANT SELECT ON sluice.history TO PUBLIC;

COMMENT ON FUNCTION sluice.history(interval) IS
  'Samples no older than an interval (NULL: all there are), in no particular order; the view sluice.history shows all, in order of time.';
COMMENT ON VIEW sluice.history IS
  'What each pool has done in each of the last sluice.history_seconds seconds in which it had clients or backends. Where a second is missing, the pool had neither, or the server was down. The history outlives the pool, and clean restarts of the server unless sluice.save_history is off. sluice.reset_statistics() does not touch it.';
COMMENT ON COLUMN sluice.history.at IS
  'End of the second. All pools that were sampled together have the same.';
COMMENT ON COLUMN sluice.history.database IS
  'Database of the pool.';
COMMENT ON COLUMN sluice.history.role IS
  'Role of the pool.';
COMMENT ON COLUMN sluice.history.length_s IS
  'Real length of the second, in seconds: about 1, longer when the statistician came late or had been away, shorter when the server was shut down in the middle.';
COMMENT ON COLUMN sluice.history.tps IS
  'Transactions finished, for each second of length_s.';
COMMENT ON COLUMN sluice.history.transactions IS
  'Transactions finished.';
COMMENT ON COLUMN sluice.history.leases IS
  'Times a client got a backend.';
COMMENT ON COLUMN sluice.history.waits IS
  'Of these leases, those that had to queue for a backend.';
COMMENT ON COLUMN sluice.history.statements IS
  'Query and Execute messages executed.';
COMMENT ON COLUMN sluice.history.acquire_timeouts IS
  'Clients that waited longer than sluice.acquire_timeout and got an error.';
COMMENT ON COLUMN sluice.history.starts IS
  'Backends started.';
COMMENT ON COLUMN sluice.history.retirements IS
  'Backends that have left.';
COMMENT ON COLUMN sluice.history.clients_lost IS
  'Clients that vanished inside a transaction or a result.';
COMMENT ON COLUMN sluice.history.active IS
  'Mean number of backends that executed, over the whole second. NULL while sluice.track_timing is off.';
COMMENT ON COLUMN sluice.history.thinking IS
  'Mean number of backends whose client had its turn inside a transaction. NULL while sluice.track_timing is off.';
COMMENT ON COLUMN sluice.history.wait_p50_us IS
  'Median time a lease waited for a backend, in microseconds, over the leases of this second: one that did not queue waited 0. Off by at most 3 percent, as the next two. NULL if there was none, or while sluice.track_timing is off.';
COMMENT ON COLUMN sluice.history.wait_p99_us IS
  '99th percentile of the time a lease waited for a backend, in microseconds.';
COMMENT ON COLUMN sluice.history.wait_max_us IS
  'Longest time a lease waited for a backend, in microseconds.';
COMMENT ON COLUMN sluice.history.clients IS
  'Clients connected, at the end of the second.';
COMMENT ON COLUMN sluice.history.waiting IS
  'Clients that waited for a backend, at the end of the second.';
COMMENT ON COLUMN sluice.history.peak_waiting IS
  'Most clients that waited for a backend at the same time inside the second.';
COMMENT ON COLUMN sluice.history.backends IS
  'Backends, at the end of the second.';
COMMENT ON COLUMN sluice.history.starting IS
  'Of these, those that were not ready yet.';
COMMENT ON COLUMN sluice.history.in_transaction IS
  'Of these, those whose client had its turn inside a transaction.';
COMMENT ON COLUMN sluice.history.pinned IS
  'Of these, those whose client was idle outside a transaction and pinned to them.';
COMMENT ON COLUMN sluice.history.peak_in_use IS
  'Most backends that were in use at the same time inside the second: neither starting nor without work. One on its way from client to client counts.';
COMMENT ON COLUMN sluice.history.max_size IS
  'Most backends that might begin a transaction at a time, at the end of the second.';
COMMENT ON COLUMN sluice.history.statements_per_transaction IS
  'Statements for each transaction. NULL if no transaction has finished, as the next two.';
COMMENT ON COLUMN sluice.history.blocks_per_transaction IS
  'Blocks of shared buffers touched for each transaction, found there or read.';
COMMENT ON COLUMN sluice.history.wal_records_per_transaction IS
  'WAL records written for each transaction.';

-- --------------------------------------------------------------------------
-- monitor: One line for each pool, for \watch.

CREATE FUNCTION sluice.monitor(
  OUT pool    text,
  OUT bar     text,
  OUT use     text,
  OUT waiting integer,
  OUT tps     bigint,
  OUT p99_ms  numeric,
  OUT state   text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_monitor'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 10;

CREATE VIEW sluice.monitor AS
  SELECT * FROM sluice.monitor() ORDER BY pool;

GRANT SELECT ON sluice.monitor TO PUBLIC;

COMMENT ON FUNCTION sluice.monitor() IS
  'Lines of the monitor; read the view sluice.monitor.';
COMMENT ON VIEW sluice.monitor IS
  'What each pool is doing, a line each that fits into 80 columns, for psql''s \watch 1. For reading, not for computing: names and numbers are cut to fit. See sluice.pools and sluice.history for the numbers.';
COMMENT ON COLUMN sluice.monitor.pool IS
  'Database and role, cut to fit.';
COMMENT ON COLUMN sluice.monitor.bar IS
  'Backends: # executes, = rests because it is its client''s turn (inside a transaction, or held or pinned), a dot is free. A full bar is max_size backends, or all that are in use if they are more.';
COMMENT ON COLUMN sluice.monitor.use IS
  'Backends in use, executing or resting, and max_size. Of the resting ones only those held (session mode) count against max_size, so there may be more of the former.';
COMMENT ON COLUMN sluice.monitor.waiting IS
  'Clients that wait for a backend.';
COMMENT ON COLUMN sluice.monitor.tps IS
  'Transactions for each second, in the last full second. NULL without a history.';
COMMENT ON COLUMN sluice.monitor.p99_ms IS
  '99th percentile of the time a lease waited for a backend in the last full second, in milliseconds. NULL without a history, or without leases.';
COMMENT ON COLUMN sluice.monitor.state IS
  'stuck (clients seem to wait for each other), waiting (clients wait for a backend), idle (nothing is in use), full (as many backends execute as the pool may have), busy (four of five in use), or ok.';

-- --------------------------------------------------------------------------
-- waits: What is timed, as percentiles; a row for each pool and measure.

CREATE FUNCTION sluice.waits(
  OUT database name,
  OUT role     name,
  OUT measure  text,
  OUT count    bigint,
  OUT sum_ms   double precision,
  OUT mean_us  double precision,
  OUT p50_us   bigint,
  OUT p90_us   bigint,
  OUT p95_us   bigint,
  OUT p99_us   bigint,
  OUT p999_us  bigint,
  OUT p9999_us bigint,
  OUT max_us   bigint,
  OUT since    timestamp with time zone
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_waits'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 60;

CREATE VIEW sluice.waits AS
  SELECT * FROM sluice.waits();

GRANT SELECT ON sluice.waits TO PUBLIC;

COMMENT ON FUNCTION sluice.waits() IS
  'Waiting and holding times; read the view sluice.waits.';
COMMENT ON VIEW sluice.waits IS
  'How long clients of each pool wait for a backend, and what they then do with it: a row for each pool and measure. No lock is taken: what is being recorded may be missing. Nothing is recorded while sluice.track_timing is off. Times restart with sluice.reset_statistics(), with the server, and when a pool that nobody used is made anew.';
COMMENT ON COLUMN sluice.waits.database IS
  'Database of the pool.';
COMMENT ON COLUMN sluice.waits.role IS
  'Role of the pool.';
COMMENT ON COLUMN sluice.waits.measure IS
  'wait: from sending something until having a backend; 0 for a client that found one free, exact to about half a millisecond for the others. hold: from having a backend until it is free for others. active: a backend executes, from the first message of a command until it is answered. thinking: the client''s turn inside a transaction, each time. start: a backend is started, from the decision until it is ready. authentication: a client logs in, from connecting until it is admitted.';
COMMENT ON COLUMN sluice.waits.count IS
  'How many have been recorded: one for each lease (wait), hold, command (active) or pause of the client (thinking). There are more holds than leases: a backend that stays beside its last client and gets its next command begins a hold without a lease.';
COMMENT ON COLUMN sluice.waits.sum_ms IS
  'Their sum, in milliseconds.';
COMMENT ON COLUMN sluice.waits.mean_us IS
  'Their mean, in microseconds; NULL if there are none.';
COMMENT ON COLUMN sluice.waits.p50_us IS
  'Median in microseconds; off by at most 1.6 percent, as all percentiles here. NULL if there are none.';
COMMENT ON COLUMN sluice.waits.p90_us IS
  '90th percentile in microseconds.';
COMMENT ON COLUMN sluice.waits.p95_us IS
  '95th percentile in microseconds.';
COMMENT ON COLUMN sluice.waits.p99_us IS
  '99th percentile in microseconds.';
COMMENT ON COLUMN sluice.waits.p999_us IS
  '99.9th percentile in microseconds.';
COMMENT ON COLUMN sluice.waits.p9999_us IS
  '99.99th percentile in microseconds.';
COMMENT ON COLUMN sluice.waits.max_us IS
  'Longest, in microseconds; exact.';
COMMENT ON COLUMN sluice.waits.since IS
  'Since when they have been recorded.';

-- --------------------------------------------------------------------------
-- wait_histogram: The same recordings, bucket by bucket.

CREATE FUNCTION sluice.wait_histogram(
  OUT database         name,
  OUT role             name,
  OUT measure          text,
  OUT lower_us         bigint,
  OUT upper_us         bigint,
  OUT count            bigint,
  OUT cumulative_share double precision
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_wait_histogram'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1000;

CREATE VIEW sluice.wait_histogram AS
  SELECT * FROM sluice.wait_histogram();

GRANT SELECT ON sluice.wait_histogram TO PUBLIC;

COMMENT ON FUNCTION sluice.wait_histogram() IS
  'Distribution of waiting and holding times; read the view sluice.wait_histogram.';
COMMENT ON VIEW sluice.wait_histogram IS
  'The recordings behind sluice.waits, in buckets; only those that are not empty. Buckets are exact up to 63 microseconds, and above as wide as 1/32 of the power of two they lie in. No lock is taken.';
COMMENT ON COLUMN sluice.wait_histogram.database IS
  'Database of the pool.';
COMMENT ON COLUMN sluice.wait_histogram.role IS
  'Role of the pool.';
COMMENT ON COLUMN sluice.wait_histogram.measure IS
  'What is timed, as in sluice.waits.';
COMMENT ON COLUMN sluice.wait_histogram.lower_us IS
  'Least time of the bucket, in microseconds.';
COMMENT ON COLUMN sluice.wait_histogram.upper_us IS
  'Greatest time of the bucket, itself included, in microseconds; NULL for the last, which is for all above 12 days.';
COMMENT ON COLUMN sluice.wait_histogram.count IS
  'Recordings in this bucket.';
COMMENT ON COLUMN sluice.wait_histogram.cumulative_share IS
  'Share of all recordings that are in this bucket or below, from 0 to 1.';

-- --------------------------------------------------------------------------
-- applications: Where the time goes, by role and application_name.

CREATE FUNCTION sluice.applications(
  OUT role             name,
  OUT application_name text,
  OUT transactions     bigint,
  OUT leases           bigint,
  OUT waited_ms        double precision,
  OUT hold_ms          double precision,
  OUT active_ms        double precision,
  OUT thinking_ms      double precision,
  OUT longest_hold_ms  double precision,
  OUT hold_share       double precision,
  OUT active_share     double precision,
  OUT mean_hold_us     double precision
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_applications'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 50;

CREATE VIEW sluice.applications AS
  SELECT * FROM sluice.applications();

GRANT SELECT ON sluice.applications TO PUBLIC;

COMMENT ON FUNCTION sluice.applications() IS
  'Times by application; read the view sluice.applications.';
COMMENT ON VIEW sluice.applications IS
  'How long the clients of each role and application_name have waited for backends and held them, in all databases. A hold is counted when it ends, and for the application_name that the client has then. A backend hands its sums over after 64 holds or 100 ms: the latest may be missing. Nothing is counted while sluice.track_timing is off. Sums restart with sluice.reset_statistics() and with the server.';
COMMENT ON COLUMN sluice.applications.role IS
  'Role the clients have logged in with; "unknown (OID=...)" if it has been dropped. NULL in the row "(others)", which is for all that came when sluice.max_applications had been reached.';
COMMENT ON COLUMN sluice.applications.application_name IS
  'What they call themselves; empty if nothing. NULL where the reader has neither the privileges of the role nor those of pg_read_all_stats: one row has the sums of all applications of that role.';
COMMENT ON COLUMN sluice.applications.transactions IS
  'Transactions finished in these holds.';
COMMENT ON COLUMN sluice.applications.leases IS
  'Holds: times it had a backend, be it for a new lease or for the next command on the backend that had stayed with it.';
COMMENT ON COLUMN sluice.applications.waited_ms IS
  'Time waited for a backend, summed, in milliseconds.';
COMMENT ON COLUMN sluice.applications.hold_ms IS
  'Time during which backends were not free for others, summed, in milliseconds.';
COMMENT ON COLUMN sluice.applications.active_ms IS
  'Of hold_ms, the time in which they executed.';
COMMENT ON COLUMN sluice.applications.thinking_ms IS
  'Of hold_ms, the time in which a transaction was open and it was the client''s turn.';
COMMENT ON COLUMN sluice.applications.longest_hold_ms IS
  'Longest hold, in milliseconds.';
COMMENT ON COLUMN sluice.applications.hold_share IS
  'Share of this row in the hold_ms of all rows, from 0 to 1; NULL if there is none.';
COMMENT ON COLUMN sluice.applications.active_share IS
  'active_ms / hold_ms: how much of the time that it keeps backends from others is work. Low is wasteful. NULL if it has held none.';
COMMENT ON COLUMN sluice.applications.mean_hold_us IS
  'Mean hold, in microseconds.';

-- --------------------------------------------------------------------------
-- pressure: What can run out, and how near it is to that.

CREATE FUNCTION sluice.pressure(
  OUT resource         text,
  OUT database         name,
  OUT role             name,
  OUT used             double precision,
  OUT maximum          double precision,
  OUT ratio            double precision,
  OUT unit             text,
  OUT peak             double precision,
  OUT peak_at          timestamp with time zone,
  OUT since            timestamp with time zone,
  OUT trend            text,
  OUT trend_per_minute double precision,
  OUT verdict          text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_pressure'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 30;

CREATE VIEW sluice.pressure AS
  SELECT * FROM sluice.pressure();

GRANT SELECT ON sluice.pressure TO PUBLIC;

COMMENT ON FUNCTION sluice.pressure() IS
  'What can run out; read the view sluice.pressure.';
COMMENT ON VIEW sluice.pressure IS
  'Everything limited that pools depend on: what is used now, the limit, the peak and where it is heading, and a verdict in words. Read at this moment. Slots are read without locks; behind lock waits the lock manager is asked, as pg_blocking_pids() does. Peaks and trends are sampled once a second, so that a shorter peak may be missing, but for max_backends, client slots, unauthenticated clients and the wait queue, where none is.';
COMMENT ON COLUMN sluice.pressure.resource IS
  'For each pool: pool slots (backends that work, of max_size), wait queue (clients that wait for a backend). For the server: max_backends (pooled backends of all pools; those of sluice.nested_reserve may exceed it), worker slots (background and parallel workers that run, pooled backends among them; one that is registered and has not been started has a slot too, but is not counted), max_connections (direct connections, those logging in included; pooled backends take none), max_connections without reserved (the same, against what is left for ordinary roles), client slots, unauthenticated clients, file descriptors of the dispatcher, file descriptors of the system, pools (that have a client or a backend; others make room), client memory (prepared statements, settings and sequence values of clients, and statements that backends keep plans of; without what is lost between them), cpu pressure, io pressure and memory pressure (share of the last ten seconds in which some task stood still), load (of the last minute, against logical processors), memory of the machine.';
COMMENT ON COLUMN sluice.pressure.database IS
  'Database of the pool; NULL for the server''s resources.';
COMMENT ON COLUMN sluice.pressure.role IS
  'Role of the pool; NULL for the server''s resources.';
COMMENT ON COLUMN sluice.pressure.used IS
  'In use now; NULL if it cannot be found out.';
COMMENT ON COLUMN sluice.pressure.maximum IS
  'Limit; NULL if there is none, or if it is not known.';
COMMENT ON COLUMN sluice.pressure.ratio IS
  'used / maximum.';
COMMENT ON COLUMN sluice.pressure.unit IS
  'What used, maximum and peak count.';
COMMENT ON COLUMN sluice.pressure.peak IS
  'Most in use since "since".';
COMMENT ON COLUMN sluice.pressure.peak_at IS
  'When that was first seen, to about a second.';
COMMENT ON COLUMN sluice.pressure.since IS
  'Since when the peak has been kept: sluice.reset_statistics(), the start of the server, or the making of the pool.';
COMMENT ON COLUMN sluice.pressure.trend IS
  'rising, falling or steady, as both the last 20 seconds and the last three minutes say. NULL in the first half minute.';
COMMENT ON COLUMN sluice.pressure.trend_per_minute IS
  'How much more is used with each minute, in units; the more cautious of the two estimates, 0 where they disagree.';
COMMENT ON COLUMN sluice.pressure.verdict IS
  'What to think of it, in words. For pool slots: what fills the pool, and whether more backends would help; what the session does that others wait for is told to those who may see its details only. For all else: ok; will be reached in about ... min at this rate (from half of the limit on, and within an hour); close to the limit (nine tenths); exhausted, and what then happens; ok now, the limit has been reached (by the peak); busy and overloaded for pressure (a tenth, four tenths of the time) and load (the processors there are, twice that); unknown, and why.';

-- --------------------------------------------------------------------------
-- holders: One row for each backend in the hands of a client.

CREATE FUNCTION sluice.holders(
  OUT database           name,
  OUT role               name,
  OUT backend_pid        integer,
  OUT client             integer,
  OUT application_name   text,
  OUT client_addr        inet,
  OUT client_port        integer,
  OUT held_since         timestamp with time zone,
  OUT held_ms            double precision,
  OUT state              text,
  OUT wait_event_type    text,
  OUT wait_event         text,
  OUT transaction_age_ms double precision,
  OUT query_age_ms       double precision,
  OUT active_share       double precision,
  OUT lock_wait_chain    integer[],
  OUT blocked_clients    integer,
  OUT pins               text[],
  OUT leaked             boolean,
  OUT query              text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_holders'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 100;

CREATE VIEW sluice.holders AS
  SELECT * FROM sluice.holders() ORDER BY held_ms DESC;

GRANT SELECT ON sluice.holders TO PUBLIC;

COMMENT ON FUNCTION sluice.holders() IS
  'Clients that have a backend; read the view sluice.holders.';
COMMENT ON VIEW sluice.holders IS
  'Who holds backends, since when, and what for; longest first. Slots are read without locks: a row is a snapshot. To find who blocks whom, the lock manager is asked about each holder that waits for a lock, as pg_blocking_pids() does, 64 times at most.';
COMMENT ON COLUMN sluice.holders.database IS
  'Database of the pool.';
COMMENT ON COLUMN sluice.holders.role IS
  'Role of the pool.';
COMMENT ON COLUMN sluice.holders.backend_pid IS
  'Process of the backend, as in pg_stat_activity and sluice.backends.';
COMMENT ON COLUMN sluice.holders.client IS
  'Client that holds it, as in sluice.clients: the argument of sluice.cancel_client() and sluice.disconnect_client().';
COMMENT ON COLUMN sluice.holders.application_name IS
  'What the client calls itself now, as in pg_stat_activity. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.holders.client_addr IS
  'Where the client comes from; NULL for a Unix socket. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.holders.client_port IS
  'Its port; -1 for a Unix socket. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.holders.held_since IS
  'Since when the client has held the backend.';
COMMENT ON COLUMN sluice.holders.held_ms IS
  'For how long, in milliseconds.';
COMMENT ON COLUMN sluice.holders.state IS
  'executing; idle in transaction, idle in transaction (aborted): the client''s turn inside a transaction; pinned: its turn outside one, with session state that cannot be carried; held: the same in session mode.';
COMMENT ON COLUMN sluice.holders.wait_event_type IS
  'What kind of thing the backend waits for, as in pg_stat_activity; NULL if it does not wait. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.holders.wait_event IS
  'What it waits for, as in pg_stat_activity; NULL if it does not wait. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.holders.transaction_age_ms IS
  'How long its transaction has been open, in milliseconds; NULL if none is. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.holders.query_age_ms IS
  'How long ago its latest query began, in milliseconds, whether or not it has ended. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';
COMMENT ON COLUMN sluice.holders.active_share IS
  'Share of held_ms that the backend has spent executing, 0 to 1: what is missing to 1 it has waited for its client. NULL without sluice.track_timing.';
COMMENT ON COLUMN sluice.holders.lock_wait_chain IS
  'Whom it waits for, if it waits for a lock: the process that blocks it, the one that blocks that, and so on to the one at the head, which does not wait for a lock. 0 is a prepared transaction. At most 16. NULL if it does not wait for a lock.';
COMMENT ON COLUMN sluice.holders.blocked_clients IS
  'How many other holders wait for a lock behind this one, directly or not.';
COMMENT ON COLUMN sluice.holders.pins IS
  'What pins the client to the backend, as in sluice.clients; NULL unless it is pinned.';
COMMENT ON COLUMN sluice.holders.leaked IS
  'Whether its transaction has been reported as a leak: it has lasted longer than sluice.leak_threshold while others waited.';
COMMENT ON COLUMN sluice.holders.query IS
  'Its latest query, as in pg_stat_activity. NULL unless the reader has the privileges of the client''s role or of pg_read_all_stats.';

-- --------------------------------------------------------------------------
-- sizing: Each rule about the size of a pool beside the others.

CREATE FUNCTION sluice.sizing(
  OUT database   name,
  OUT role       name,
  OUT rule       text,
  OUT size       integer,
  OUT binds      boolean,
  OUT advised    boolean,
  OUT confidence text,
  OUT note       text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_sizing'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 10;

CREATE VIEW sluice.sizing AS
  SELECT * FROM sluice.sizing();

GRANT SELECT ON sluice.sizing TO PUBLIC;

COMMENT ON FUNCTION sluice.sizing() IS
  'Sizing rules; read the view sluice.sizing.';
COMMENT ON VIEW sluice.sizing IS
  'How large each pool should be according to each rule, which of them is in force, and which one the advice follows. Six rows for each pool; while there is none, six rows for the next one.';
COMMENT ON COLUMN sluice.sizing.database IS
  'Database of the pool; NULL while there is no pool.';
COMMENT ON COLUMN sluice.sizing.role IS
  'Role of the pool; NULL while there is no pool.';
COMMENT ON COLUMN sluice.sizing.rule IS
  'The rule: cores * 2 + spindles (in force where sluice.max_pool_size is -1), measured knee (of the load the pool has had), calibrated (by sluice.calibrate() in this database), configured (sluice.max_pool_size), max_backends (the limit of all pools together) or deadlock minimum (information only).';
COMMENT ON COLUMN sluice.sizing.size IS
  'Backends according to this rule. NULL if it says nothing: not configured, not enough data, no clients.';
COMMENT ON COLUMN sluice.sizing.binds IS
  'Whether this rule is the one in force. True in one row of each pool.';
COMMENT ON COLUMN sluice.sizing.advised IS
  'Whether the advice follows this rule: the measured knee where its confidence is medium or high; else a calibration; else a knee that is only a bound (throughput still grew, or never grew) where the rule lies beyond it; else cores * 2 + spindles. Limited by max_backends. False in all rows of a pool in session mode.';
COMMENT ON COLUMN sluice.sizing.confidence IS
  'How much the size rests on: rule of thumb; none, low, medium or high (of the fit); measured (by a calibration). NULL for limits.';
COMMENT ON COLUMN sluice.sizing.note IS
  'How the size was worked out, or why there is none.';

-- --------------------------------------------------------------------------
-- sizing_inputs: What the rule cores * 2 + spindles rests on.

CREATE FUNCTION sluice.sizing_inputs(
  OUT input   text,
  OUT value   double precision,
  OUT reason  text,
  OUT setting text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_sizing_inputs'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 10;

CREATE VIEW sluice.sizing_inputs AS
  SELECT * FROM sluice.sizing_inputs();

GRANT SELECT ON sluice.sizing_inputs TO PUBLIC;

COMMENT ON FUNCTION sluice.sizing_inputs() IS
  'Inputs of the sizing rule; read the view sluice.sizing_inputs.';
COMMENT ON VIEW sluice.sizing_inputs IS
  'What the server runs on, as far as the rule cores * 2 + spindles needs it: each input, how it was found, and the setting that overrides it. Looked at every ten seconds and after a reload.';
COMMENT ON COLUMN sluice.sizing_inputs.input IS
  'What it is: logical CPUs, physical cores, CPU quota, cores, spindles, miss ratio, effective spindles, cores * 2 + spindles.';
COMMENT ON COLUMN sluice.sizing_inputs.value IS
  'Its value, in cores, disks, or as a share; NULL if unknown.';
COMMENT ON COLUMN sluice.sizing_inputs.reason IS
  'How it was found, or why it is unknown.';
COMMENT ON COLUMN sluice.sizing_inputs.setting IS
  'Setting that overrides it; NULL if there is none.';

-- --------------------------------------------------------------------------
-- what_if: The latest leases of a pool, replayed on other pool sizes.

CREATE FUNCTION sluice.what_if(
  sizes integer[] DEFAULT NULL,
  for_database text DEFAULT NULL,
  for_role text DEFAULT NULL,
  OUT database       name,
  OUT role           name,
  OUT pool_size      integer,
  OUT current        boolean,
  OUT leases         bigint,
  OUT window_s       double precision,
  OUT wait_mean_us   double precision,
  OUT wait_p50_us    bigint,
  OUT wait_p95_us    bigint,
  OUT wait_p99_us    bigint,
  OUT wait_max_us    bigint,
  OUT waited_share   double precision,
  OUT utilisation    double precision,
  OUT greatest_queue bigint,
  OUT note           text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_what_if'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 20;

COMMENT ON FUNCTION sluice.what_if(integer[], text, text) IS
  'Predicts waits at other pool sizes: the latest leases of each pool (up to 1024 of each backend) are replayed, first come first served, with the arrivals and the time they executed as recorded (in session mode: the time they held their backend). NULL: the usual sizes, all databases, all roles. pool_size: the size replayed; current: it is the pool''s max_size; leases, window_s: how many were replayed, and the time they span; wait_...: predicted; waited_share: of the leases, those that would have waited at all, 0 to 1; utilisation: share of the backends'' time in use, 0 to 1; greatest_queue: most clients waiting at once; note: whether such a pool keeps up, and for the current size the waits as they were. Arrivals stay where they were: clients that ask again only when they have been answered would adapt.';

-- --------------------------------------------------------------------------
-- system_limits: Limits of the operating system beside what is needed of them.

CREATE FUNCTION sluice.system_limits(
  OUT resource    text,
  OUT value       bigint,
  OUT unit        text,
  OUT needed      bigint,
  OUT verdict     text,
  OUT explanation text,
  OUT command     text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_system_limits'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 25;

CREATE VIEW sluice.system_limits AS
  SELECT * FROM sluice.system_limits();

GRANT SELECT ON sluice.system_limits TO PUBLIC;

COMMENT ON FUNCTION sluice.system_limits() IS
  'Limits of the operating system; read the view sluice.system_limits.';
COMMENT ON VIEW sluice.system_limits IS
  'Limits of the operating system that pools and their clients meet, beside what this configuration needs of them. All are read when the view is; one that cannot be read keeps its row and says why. Nothing is changed.';
COMMENT ON COLUMN sluice.system_limits.resource IS
  'The limit: a kernel setting by the name sysctl knows it by, a resource limit of processes, or memory.';
COMMENT ON COLUMN sluice.system_limits.value IS
  'Its value now; NULL if it is unknown or does not exist here, 9223372036854775807 if there is no limit.';
COMMENT ON COLUMN sluice.system_limits.unit IS
  'What value and needed count.';
COMMENT ON COLUMN sluice.system_limits.needed IS
  'What this configuration needs at most, with what others use now where the limit is shared; NULL if it needs nothing definite.';
COMMENT ON COLUMN sluice.system_limits.verdict IS
  'ok, close (shared with others, and less than a tenth would be left), too low (less than needed), unknown (value could not be read) or information (there is nothing to judge).';
COMMENT ON COLUMN sluice.system_limits.explanation IS
  'Where needed comes from and what the limit does, or why value is unknown. Where /proc and /sys are mounted is shown to members of pg_read_all_settings only.';
COMMENT ON COLUMN sluice.system_limits.command IS
  'Command for the operating system (SQL for shared memory) that raises the limit to a recommended number where it is too low or close, else one that shows it. Changes by sysctl -w last until the machine starts again: a file in /etc/sysctl.d makes them stay.';

-- --------------------------------------------------------------------------
-- Calibration: how many backends are best for a script, measured.

CREATE FUNCTION sluice.calibrate(
  script           text,
  sizes            integer[]        DEFAULT NULL,
  seconds_per_size double precision DEFAULT 2,
  pause_s          double precision DEFAULT 0.5,
  rounds           integer          DEFAULT 1
)
RETURNS TABLE (
  size               integer,
  transactions       bigint,
  transactions_per_s double precision,
  relative           double precision,
  p50_us             bigint,
  p95_us             bigint,
  p99_us             bigint,
  max_us             bigint,
  errors             bigint,
  best               boolean,
  note               text
)
AS 'MODULE_PATHNAME', 'sluice_calibrate'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION sluice.calibrate(text, integer[], double precision, double precision, integer) IS
  'Measures how many backends are best for a script: executes it, each time as one transaction that is really committed, by as many background workers at once as each of the sizes says, as the current role and with the settings of this session. One row for each size; best marks the smallest one within 3 % of the greatest throughput.';

REVOKE ALL ON FUNCTION sluice.calibrate(text, integer[], double precision, double precision, integer) FROM PUBLIC;

-- --------------------------------------------------------------------------
-- recommendations: What to change, and why.

CREATE FUNCTION sluice.recommendations(
  OUT subject     text,
  OUT setting     text,
  OUT current     text,
  OUT recommended text,
  OUT reason      text,
  OUT evidence    text,
  OUT confidence  text,
  OUT sql         text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_recommendations'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 10;

-- Open files are judged by the function already.
CREATE VIEW sluice.recommendations AS
  SELECT * FROM sluice.recommendations()
  UNION ALL
  SELECT 'server', resource, value::text, needed::text,
         'the operating system does not allow what this configuration needs',
         explanation || '; see there: ' || command, 'observed',
         'SELECT * FROM sluice.system_limits WHERE verdict = ''too low'';'
    FROM sluice.system_limits() WHERE verdict = 'too low' AND resource NOT LIKE '%RLIMIT_NOFILE%';

GRANT SELECT ON sluice.recommendations TO PUBLIC;

COMMENT ON FUNCTION sluice.recommendations() IS
  'Recommendations; read the view sluice.recommendations.';
COMMENT ON VIEW sluice.recommendations IS
  'What to change, and why: a row for each thing that limits pools or their clients, none if there is nothing to recommend. Nothing is changed unless somebody runs the SQL. Rows that rest on what waits at this instant come and go with the load, those that rest on counters stay until sluice.reset_statistics().';
COMMENT ON COLUMN sluice.recommendations.subject IS
  'What the row is about: the server, or a pool as "database/role".';
COMMENT ON COLUMN sluice.recommendations.setting IS
  'Setting, or limit of the operating system, in question.';
COMMENT ON COLUMN sluice.recommendations.current IS
  'Its value now.';
COMMENT ON COLUMN sluice.recommendations.recommended IS
  'Value to set; NULL where no value would help, but something has to be looked at.';
COMMENT ON COLUMN sluice.recommendations.reason IS
  'Why.';
COMMENT ON COLUMN sluice.recommendations.evidence IS
  'The numbers behind it. Messages of backends that could not start are shown to members of the pool''s role and of pg_read_all_stats.';
COMMENT ON COLUMN sluice.recommendations.confidence IS
  'How much the advice rests on: observed (counted, or a limit that is what it is), measured (by a calibration), high, medium or low (of a fit to the load), probable, rule of thumb, or none.';
COMMENT ON COLUMN sluice.recommendations.sql IS
  'Commands that do it, or that show more, ready to run; NULL if SQL cannot. ALTER SYSTEM does not run inside a transaction block.';
