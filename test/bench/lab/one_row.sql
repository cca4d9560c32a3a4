\set aid random(1, :rows)
SELECT statement_timestamp() AS began_at, abalance FROM pgbench_accounts WHERE aid = :aid;
