-- The views: their columns, and that they answer.

-- the interface: a change here is a change for everyone who reads it
SELECT c.relname AS view, a.attname AS "column", format_type(a.atttypid, a.atttypmod) AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'sluice'::regnamespace AND c.relkind = 'v' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum;

-- durations and sizes carry their unit in the name
SELECT c.relname AS view, a.attname AS duration_without_unit
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'sluice'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
  AND a.attname ~ '(age|waited|waiting|wait_|expires|duration|elapsed)'
  AND a.attname !~ '_(us|ms|s)$'
  AND NOT (a.attname IN ('waiting', 'peak_waiting') AND a.atttypid = 'int4'::regtype)
  AND a.atttypid NOT IN ('text'::regtype, 'name'::regtype, 'int4[]'::regtype)
ORDER BY 1, 2;

-- pools
SELECT count(*) FILTER (WHERE total <> active + idle + in_transaction + held + pinned + starting + retiring)
         AS sums_that_differ,
       count(*) FILTER (WHERE waiting > clients) AS more_waiting_than_there_are,
       count(*) FILTER (WHERE waits > leases) AS more_waits_than_leases,
       count(*) FILTER (WHERE wait_p50_us > wait_p95_us OR wait_p95_us > wait_p99_us OR wait_p99_us > wait_max_us)
         AS percentiles_out_of_order,
       count(*) FILTER (WHERE max_size < 1) AS without_size,
       count(*) FILTER (WHERE mode NOT IN ('transaction', 'session', 'statement')) AS unknown_modes,
       count(*) - count(DISTINCT (database, role)) AS shown_twice
FROM sluice.pools;

-- clients
SELECT count(*) FILTER (WHERE state NOT IN ('authenticating', 'ready', 'leased', 'idle', 'closing')) AS unknown_states,
       count(*) FILTER (WHERE backend_pid IS NOT NULL AND state <> 'leased') AS served_without_lease,
       count(*) FILTER (WHERE waiting_ms IS NOT NULL AND state <> 'ready') AS waiting_without_need,
       count(*) FILTER (WHERE (pins IS NULL) <> (pinned_ms IS NULL)) AS pinned_without_reason,
       count(*) FILTER (WHERE state_age_ms < 0 OR waiting_ms < 0 OR pinned_ms < 0) AS negative_ages
FROM sluice.clients;

-- backends
SELECT count(*) FILTER (WHERE state NOT IN ('starting', 'waiting', 'lingering', 'active', 'thinking', 'held',
                                            'pinned', 'retiring', 'failed')) AS unknown_states,
       count(*) FILTER (WHERE pins IS NOT NULL AND client IS NULL) AS pins_without_client,
       count(*) FILTER (WHERE (client IS NULL) <> (lease_age_ms IS NULL)) AS lease_without_client,
       count(*) FILTER (WHERE state_age_ms < 0 OR lease_age_ms < 0 OR age_ms < 0 OR expires_in_s < 0) AS negative_ages,
       count(*) FILTER (WHERE (state = 'failed') <> (failure_sqlstate IS NOT NULL)) AS failures_without_reason
FROM sluice.backends;

-- holders
SELECT count(*) FILTER (WHERE state NOT IN ('executing', 'idle in transaction', 'idle in transaction (aborted)', 'pinned',
                                            'held')) AS unknown_states,
       count(*) FILTER (WHERE held_ms < 0 OR transaction_age_ms < 0 OR query_age_ms < 0) AS negative_ages,
       count(*) FILTER (WHERE active_share NOT BETWEEN 0 AND 1) AS impossible_shares,
       count(*) FILTER (WHERE lock_wait_chain = '{}' OR blocked_clients < 0) AS impossible_chains
FROM sluice.holders;

-- the server may have started just now: its workers get a minute to follow
DO $$
BEGIN
  FOR i IN 1..600 LOOP
    EXIT WHEN (SELECT num_nulls(port, dispatcher_pid, statistician_pid) = 0 FROM sluice.status);
    PERFORM pg_sleep(0.1);
  END LOOP;
END
$$;

-- status: always one row
SELECT count(*) AS rows,
       bool_and(version = (SELECT extversion FROM pg_extension WHERE extname = 'pg_sluice')) AS version_is_the_extensions,
       bool_and(port = current_setting('sluice.port')::int) AS listens_where_it_was_told_to,
       bool_and(max_clients = current_setting('sluice.max_clients')::int) AS max_clients,
       bool_and(max_backends = current_setting('sluice.max_backends')::int) AS max_backends,
       bool_and(max_pools = current_setting('sluice.max_pools')::int) AS max_pools,
       bool_and(clients BETWEEN 0 AND max_clients) AS clients,
       bool_and(unauthenticated BETWEEN 0 AND clients) AS unauthenticated,
       bool_and(backends BETWEEN 0 AND max_backends) AS backends,
       bool_and(pools BETWEEN 0 AND max_pools) AS pools,
       bool_and(started_at BETWEEN pg_postmaster_start_time() - interval '1 minute' AND now()) AS started_with_the_server
FROM sluice.status;

-- its processes are there to be seen
SELECT count(*) FILTER (WHERE a.pid IS NULL) AS processes_that_are_not_in_pg_stat_activity
FROM sluice.status s
CROSS JOIN LATERAL (VALUES (s.dispatcher_pid), (s.statistician_pid)) p(pid)
LEFT JOIN pg_stat_activity a ON a.pid = p.pid;

-- errors and events
SELECT count(*) FILTER (WHERE class NOT IN ('authentication', 'limit', 'acquire_timeout', 'protocol', 'statement',
                                            'client_end', 'backend_start', 'internal')) AS unknown_classes,
       count(*) FILTER (WHERE sqlstate !~ '^[0-9A-Z]{5}$') AS unknown_states,
       count(*) FILTER (WHERE count < 1) AS without_count,
       count(*) FILTER (WHERE first_at > last_at OR last_at > clock_timestamp()) AS times_out_of_order
FROM sluice.errors;

SELECT count(*) FILTER (WHERE at > clock_timestamp()) AS in_the_future,
       count(*) FILTER (WHERE (database IS NULL) <> (role IS NULL)) AS half_a_pool,
       count(*) - count(DISTINCT number) AS shown_twice,
       count(*) > current_setting('sluice.max_events')::int AS more_than_there_can_be
FROM sluice.events;

-- anyone may read them all
CREATE ROLE regress_sluice_reader;
SET ROLE regress_sluice_reader;
SELECT count(*) >= 0 AS pools FROM sluice.pools;
SELECT count(*) >= 0 AS clients FROM sluice.clients;
SELECT count(*) >= 0 AS backends FROM sluice.backends;
SELECT count(*) >= 0 AS holders FROM sluice.holders;
SELECT count(*) AS status FROM sluice.status;
SELECT count(*) >= 0 AS errors FROM sluice.errors;
SELECT count(*) >= 0 AS events FROM sluice.events;
SELECT count(*) AS details_of_others FROM sluice.clients
WHERE num_nonnulls(application_name, client_addr, client_port, cancel_pid) > 0;
RESET ROLE;
DROP ROLE regress_sluice_reader;
