-- SPDX-License-Identifier: PostgreSQL
--
-- What the clients of the cross-talk test work with, in one database (UTF8).

SET client_min_messages = warning;

CREATE SCHEMA crosstalk;
GRANT USAGE ON SCHEMA crosstalk TO PUBLIC;

-- Row-level security by a setting of the session: user n has n % 7 + 1 rows.
CREATE TABLE crosstalk.private_rows (user_id int, note text);
INSERT INTO crosstalk.private_rows
  SELECT u, format('row %s of %s', r, u) FROM generate_series(1, 50) u, generate_series(1, u % 7 + 1) r;
ALTER TABLE crosstalk.private_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON crosstalk.private_rows
  USING (user_id = nullif(current_setting('app.user_id', true), '')::int);

CREATE TABLE crosstalk.notes (uid bigint PRIMARY KEY, value int);

CREATE SEQUENCE crosstalk.shared;
CREATE SEQUENCE crosstalk.cached CACHE 7;
DO $$
BEGIN
  FOR i IN 1 .. 1000 LOOP
    EXECUTE format('CREATE SEQUENCE crosstalk.own_%s', i);
  END LOOP;
END
$$;

CREATE FUNCTION crosstalk.put(name text, value text, local boolean) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config(name, value, local);
  RETURN current_setting(name);
END
$$;
CREATE FUNCTION crosstalk.with_setting() RETURNS text LANGUAGE plpgsql SET work_mem = '33MB' AS $$
BEGIN
  RETURN current_setting('work_mem');
END
$$;
CREATE FUNCTION crosstalk.say(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE NOTICE '%', what;
END
$$;
CREATE FUNCTION crosstalk.fail(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '%', what;
END
$$;

GRANT ALL ON ALL TABLES IN SCHEMA crosstalk TO PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA crosstalk TO PUBLIC;

CREATE TABLE crosstalk.secret (n int);

-- The same names in each schema, and never the same meaning.
DO $$
DECLARE
  s text;
BEGIN
  FOREACH s IN ARRAY ARRAY['public', 's1', 's2', 's3', 's4', 's5', 's6', 's7', 's8'] LOOP
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS %s', s);
    EXECUTE format('GRANT USAGE ON SCHEMA %s TO PUBLIC', s);
    EXECUTE format('CREATE TABLE %s.here (name text)', s);
    EXECUTE format('INSERT INTO %s.here VALUES (%L)', s, s);
    EXECUTE format('CREATE TYPE %s.mood AS ENUM (%L, %L)', s, s || '_calm', s || '_wild');
    EXECUTE format('CREATE TYPE %s.pair AS (%s)', s,
      CASE WHEN s IN ('s2', 's4', 's6', 's8') THEN 'b text, a int' ELSE 'a int, b text' END);
    EXECUTE format('CREATE TABLE %s.items (id serial, uid bigint)', s);
    EXECUTE format('GRANT ALL ON ALL TABLES IN SCHEMA %s TO PUBLIC', s);
    EXECUTE format('GRANT ALL ON ALL SEQUENCES IN SCHEMA %s TO PUBLIC', s);
  END LOOP;
END
$$;
