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
  'Backends without work.';
COMMENT ON COLUMN sluice.pools.in_transaction IS
  'Backends whose client thinks between the statements of a transaction. They count against sluice.max_backends, not against max_size.';
COMMENT ON COLUMN sluice.pools.held IS
  'Backends whose client is idle outside a transaction but keeps them, as in session mode.';
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
  'Most backends, as the pool''s newest backend saw sluice.max_pool_size; where that is -1, the result of the sizing rule.';
COMMENT ON COLUMN sluice.pools.transactions IS
  'Transactions finished.';
COMMENT ON COLUMN sluice.pools.leases IS
  'Times a client got a backend.';
COMMENT ON COLUMN sluice.pools.waits IS
  'Of these leases, those that had to queue for a backend.';
COMMENT ON COLUMN sluice.pools.wait_p50_us IS
  'Median time a lease waited for a backend, in microseconds, over all leases: one that did not queue waited 0. Off by at most 3 percent. NULL before the first lease.';
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
  'Starts that were asked for and found needless before they were made.';
COMMENT ON COLUMN sluice.pools.retirements IS
  'Backends that have left, for whatever reason.';
COMMENT ON COLUMN sluice.pools.clients_total IS
  'Clients that have connected to this pool.';
COMMENT ON COLUMN sluice.pools.cancels IS
  'Queries cancelled on a client''s request.';
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
  OUT cancel_pid       integer
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
  'authenticating: logging in; ready: has sent something and waits for a backend; leased: has a backend; idle: has nothing to do; closing: on its way out.';
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
  'starting: not ready yet; waiting: without work; lingering: without work, still beside its last client; active: executes; thinking: its client''s turn inside a transaction; held: its client''s turn outside a transaction, and the client keeps it; pinned: the same, because of session state that cannot be carried; retiring: leaving; failed: could not start.';
COMMENT ON COLUMN sluice.backends.client IS
  'Client it serves, as in sluice.clients; NULL if none.';
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
  'Restarts the counters, percentiles and peaks of all pools; returns the new statistics_since. The counters of sluice.status go on.';

REVOKE ALL ON FUNCTION sluice.cancel_client(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION sluice.disconnect_client(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION sluice.retire_backends(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION sluice.reset_statistics() FROM PUBLIC;

-- --------------------------------------------------------------------------
-- Tuning: sizing, each sizing rule beside the others, and recommendations.

CREATE FUNCTION sluice.sizing(
  OUT database           name,
  OUT role               name,
  OUT rule               text,
  OUT size               integer,
  OUT binds              boolean,
  OUT cores              double precision,
  OUT physical_cores     integer,
  OUT logical_cpus       integer,
  OUT quota_cores        double precision,
  OUT cores_reason       text,
  OUT spindles           integer,
  OUT miss_ratio         double precision,
  OUT effective_spindles double precision,
  OUT spindles_reason    text,
  OUT note               text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_sizing'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 40;

CREATE VIEW sluice.sizing AS
  SELECT * FROM sluice.sizing();

GRANT SELECT ON sluice.sizing TO PUBLIC;

COMMENT ON FUNCTION sluice.sizing() IS
  'Sizing rules; read the view sluice.sizing.';
COMMENT ON VIEW sluice.sizing IS
  'How large each pool may become according to each sizing rule, which of them is in force, and what went into it. Four rows for each pool; while there is none, four rows for the next one. What the server runs on is looked at every ten seconds and after a reload.';
COMMENT ON COLUMN sluice.sizing.database IS
  'Database of the pool; NULL while there is no pool.';
COMMENT ON COLUMN sluice.sizing.role IS
  'Role of the pool; NULL while there is no pool.';
COMMENT ON COLUMN sluice.sizing.rule IS
  'The rule: "cores * 2 + spindles" (in force where sluice.max_pool_size is -1), "configured" (sluice.max_pool_size), "max_backends" (the limit of all pools together) or "deadlock minimum" (information only).';
COMMENT ON COLUMN sluice.sizing.size IS
  'Backends according to this rule. NULL if it says nothing: not configured, not measured yet, no clients.';
COMMENT ON COLUMN sluice.sizing.binds IS
  'Whether this rule is the one in force. True in one row of each pool.';
COMMENT ON COLUMN sluice.sizing.cores IS
  'Cores the rule counts with: physical ones inside the affinity mask, limited by the CPU quota of the control group, unless sluice.cores says otherwise.';
COMMENT ON COLUMN sluice.sizing.physical_cores IS
  'Physical cores inside the affinity mask; NULL if unknown.';
COMMENT ON COLUMN sluice.sizing.logical_cpus IS
  'Logical CPUs (hardware threads) inside the affinity mask; NULL if unknown.';
COMMENT ON COLUMN sluice.sizing.quota_cores IS
  'CPU quota of the control group and those above it, in cores; NULL if there is none.';
COMMENT ON COLUMN sluice.sizing.cores_reason IS
  'Where the number of cores comes from.';
COMMENT ON COLUMN sluice.sizing.spindles IS
  'Rotating disks under the data directory and the tablespaces, or sluice.spindles; NULL if unknown.';
COMMENT ON COLUMN sluice.sizing.miss_ratio IS
  'Share of block accesses in all databases that the buffer cache did not answer, recent ones weighing more (half-life ten minutes), 0 to 1; NULL while nothing has been read. A block that the operating system had cached counts as a miss.';
COMMENT ON COLUMN sluice.sizing.effective_spindles IS
  'Spindles scaled by the miss ratio; 0 where either is unknown.';
COMMENT ON COLUMN sluice.sizing.spindles_reason IS
  'Which disks were found, or why their number is unknown.';
COMMENT ON COLUMN sluice.sizing.note IS
  'How the size was worked out.';

CREATE FUNCTION sluice.recommendations(
  OUT subject     text,
  OUT setting     text,
  OUT current     text,
  OUT recommended text,
  OUT reason      text,
  OUT evidence    text,
  OUT sql         text
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sluice_recommendations'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 10;

CREATE VIEW sluice.recommendations AS
  SELECT * FROM sluice.recommendations();

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
COMMENT ON COLUMN sluice.recommendations.sql IS
  'Commands that do it, or that show more, ready to run; NULL if SQL cannot. ALTER SYSTEM does not run inside a transaction block.';
