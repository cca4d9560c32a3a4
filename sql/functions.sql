-- The functions that change something, where there is nobody to change it for;
-- what they do to real clients is for the tests with several sessions.

-- a free slot
SELECT sluice.cancel_client(0) AS cancelled;
SELECT sluice.disconnect_client(0) AS disconnected;
SELECT sluice.cancel_client(current_setting('sluice.max_clients')::int - 1) AS cancelled;
SELECT sluice.cancel_client(NULL) IS NULL AS nothing_in_nothing_out;

-- no slot at all
SELECT sluice.cancel_client(-1);
SELECT sluice.disconnect_client(2147483647);
\echo :LAST_ERROR_SQLSTATE

-- backends of a pool that does not exist
SELECT sluice.retire_backends('no_such_database') AS told;
SELECT sluice.retire_backends(role => 'no_such_role') AS told;
SELECT sluice.retire_backends('no_such_database', 'no_such_role') AS told;

-- counters start afresh
BEGIN;
SELECT sluice.reset_statistics() >= now() AS reset;
SELECT count(*) AS pools_not_reset FROM sluice.pools WHERE statistics_since < now();
COMMIT;

-- none of this for just anyone
CREATE ROLE regress_sluice_nobody;
SET ROLE regress_sluice_nobody;
SELECT sluice.cancel_client(0);
SELECT sluice.disconnect_client(0);
SELECT sluice.retire_backends();
SELECT sluice.reset_statistics();
RESET ROLE;

-- until it is granted
GRANT EXECUTE ON FUNCTION sluice.cancel_client(integer) TO regress_sluice_nobody;
SET ROLE regress_sluice_nobody;
SELECT sluice.cancel_client(0) AS cancelled;
SELECT sluice.disconnect_client(0);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION sluice.cancel_client(integer) FROM regress_sluice_nobody;
DROP ROLE regress_sluice_nobody;
