-- SPDX-License-Identifier: PostgreSQL
--
-- A temporary table that outlives its transaction, always of the same name.
--
-- No event trigger may see it being made, for the tests of event triggers write down what they see; the lock keeps
-- others from being created meanwhile.  It is removed by DISCARD, and the next one with its transaction: neither
-- fires event triggers.
\set mark random(1, 1000000000)
begin;
lock table pg_catalog.pg_event_trigger in share mode;
select (count(*) = 0)::int as quiet from pg_catalog.pg_event_trigger \gset
\if :quiet
create temporary table churn_temporary (mark text);
\endif
commit;
\if :quiet
insert into churn_temporary values ('m' || :mark);
\sleep 30 ms
select 1 / (count(*) = 1 and min(mark) = 'm' || :mark)::int from churn_temporary;
discard temporary;
\sleep 20 ms
select 1 / (to_regclass('pg_temp.churn_temporary') is null)::int;
begin;
lock table pg_catalog.pg_event_trigger in share mode;
select (count(*) = 0)::int as quiet from pg_catalog.pg_event_trigger \gset
\if :quiet
create temporary table churn_temporary (mark text) on commit drop;
insert into churn_temporary values ('m' || :mark);
\endif
commit;
\endif
\sleep 30 ms
