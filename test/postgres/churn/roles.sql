-- SPDX-License-Identifier: PostgreSQL
--
-- Somebody else for a while.
set role pg_monitor;
\sleep 30 ms
select 1 / (current_user = 'pg_monitor' and session_user <> 'pg_monitor')::int;
set session authorization pg_read_all_data;
\sleep 30 ms
select 1 / (current_user = 'pg_read_all_data' and session_user = 'pg_read_all_data')::int;
reset session authorization;
\sleep 20 ms
select 1 / (current_user = session_user and session_user not like 'pg\_%')::int;
\sleep 20 ms
