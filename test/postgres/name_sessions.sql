-- SPDX-License-Identifier: PostgreSQL
--
-- For the database template0 of a throw-away server, from which pg_isolation_regress makes its own.
--
-- isolationtester names its sessions by the process numbers their connections were told, and asks the server whether
-- one of these waits for others of them.  A pooled client is told a number that stays the same while its transactions
-- run in different processes.  So what the tool calls by that number is, at this moment, the process that serves the
-- client; who has none waits for no lock and holds none.  The server's function still gives the answer: under another
-- name, about these processes.
--
-- The functions of pg_sluice are called instead of its views, so that no lock of a table stands between the tool and
-- the answer; as the owner, since a session of the tool may be anybody.
CREATE EXTENSION pg_sluice;
ALTER FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(integer, integer[])
  RENAME TO pg_isolation_test_process_is_blocked;
CREATE FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(integer, integer[]) RETURNS boolean
  LANGUAGE sql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog
  AS $$
    WITH served AS MATERIALIZED (
      SELECT cancel_pid, backend_pid FROM sluice.clients() WHERE backend_pid IS NOT NULL
    )
    SELECT coalesce(
      (SELECT pg_isolation_test_process_is_blocked(backend_pid, (SELECT coalesce(array_agg(s.backend_pid), '{}')
                                                                 FROM served s WHERE s.cancel_pid = ANY ($2)))
       FROM served WHERE cancel_pid = $1), false)
  $$;
