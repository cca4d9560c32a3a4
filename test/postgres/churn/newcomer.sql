-- SPDX-License-Identifier: PostgreSQL
--
-- Comes, finds nothing of anybody else, and leaves everything behind.
select 1 / (coalesce(current_setting('churn.mark', true), '') = '' and current_user = session_user
    and current_setting('default_transaction_read_only') = 'off')::int;
select 1 / (to_regclass('pg_temp.churn_temporary') is null)::int;
select 1 / (count(*) = 0)::int from pg_prepared_statements where from_sql;
set churn.mark = 'left behind';
set datestyle = 'Postgres, MDY';
set default_transaction_read_only = on;
prepare q1 as select 'left behind';
set role pg_monitor;
\sleep 40 ms
