-- SPDX-License-Identifier: PostgreSQL
--
-- Settings that would show in the output of any test, and settings of its own making.
\set mark random(1, 1000000000)
set datestyle = 'German, DMY';
set timezone = 'Asia/Kathmandu';
set bytea_output = 'escape';
set extra_float_digits = -8;
set search_path = 'churn_nowhere';
set enable_hashjoin = off;
set enable_seqscan = off;
set default_transaction_read_only = on;
select set_config('churn.mark', 'm' || :mark, false);
\sleep 30 ms
select 1 / (current_setting('churn.mark') = 'm' || :mark and current_setting('datestyle') = 'German, DMY'
    and current_setting('timezone') = 'Asia/Kathmandu' and current_setting('search_path') = 'churn_nowhere'
    and current_setting('transaction_read_only') = 'on')::int;
begin;
set local work_mem = '77MB';
set timezone = 'America/Caracas';
select 1 / (current_setting('work_mem') = '77MB')::int;
rollback;
\sleep 20 ms
select 1 / (current_setting('work_mem') <> '77MB' and current_setting('timezone') = 'Asia/Kathmandu')::int;
reset all;
\sleep 20 ms
select 1 / (current_setting('datestyle') not like 'German%' and current_setting('search_path') <> 'churn_nowhere'
    and coalesce(current_setting('churn.mark', true), '') = '')::int;
\sleep 20 ms
