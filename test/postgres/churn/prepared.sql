-- SPDX-License-Identifier: PostgreSQL
--
-- Statements prepared in SQL, of a name that tests use as well.
\set mark random(1, 1000000000)
select set_config('churn.mark', :mark::text, false);
prepare q1 as select current_setting('churn.mark')::int as mark;
\sleep 30 ms
execute q1 \gset seen_
select 1 / (:seen_mark::int = :mark::int)::int;
\sleep 20 ms
select 1 / (count(*) = 1)::int from pg_prepared_statements where from_sql;
deallocate q1;
\sleep 20 ms
select 1 / (count(*) = 0)::int from pg_prepared_statements where from_sql;
reset churn.mark;
\sleep 20 ms
