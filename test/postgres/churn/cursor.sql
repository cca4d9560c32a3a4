-- SPDX-License-Identifier: PostgreSQL
--
-- A cursor that outlives its transaction.
begin;
declare churn_cursor cursor with hold for select number from generate_series(1, 5) number;
fetch churn_cursor \gset
commit;
\sleep 30 ms
fetch churn_cursor \gset
select 1 / (:number::int = 2)::int;
close churn_cursor;
\sleep 30 ms
select 1 / (count(*) = 0)::int from pg_cursors where name = 'churn_cursor';
