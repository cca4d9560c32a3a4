-- What the extension consists of: everything has a comment, reading is for
-- everyone, changing for nobody but those it is granted to.

CREATE EXTENSION pg_sluice;

SELECT n.nspname AS schema, e.extrelocatable AS relocatable
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_sluice';

-- nothing lives outside the schema
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS object
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pg_sluice'
  AND coalesce(p.pronamespace, c.relnamespace, 'sluice'::regnamespace) <> 'sluice'::regnamespace
ORDER BY 1;

-- objects without a comment: none
WITH members AS (
  SELECT d.classid, d.objid
  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
  WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pg_sluice'
    AND d.classid IN ('pg_proc'::regclass, 'pg_class'::regclass)
  UNION ALL
  SELECT 'pg_namespace'::regclass, 'sluice'::regnamespace
), parts AS (
  SELECT classid, objid, 0 AS objsubid FROM members
  UNION ALL
  SELECT m.classid, m.objid, a.attnum
  FROM members m JOIN pg_attribute a ON a.attrelid = m.objid
  WHERE m.classid = 'pg_class'::regclass AND a.attnum > 0 AND NOT a.attisdropped
)
SELECT pg_describe_object(p.classid, p.objid, p.objsubid) AS without_comment
FROM parts p
LEFT JOIN pg_description d ON d.classoid = p.classid AND d.objoid = p.objid AND d.objsubid = p.objsubid
WHERE coalesce(d.description, '') = ''
ORDER BY 1;

-- comments are whole sentences
SELECT pg_describe_object(d.classoid, d.objoid, d.objsubid) AS without_period
FROM pg_description d
LEFT JOIN pg_proc p ON d.classoid = 'pg_proc'::regclass AND p.oid = d.objoid
LEFT JOIN pg_class c ON d.classoid = 'pg_class'::regclass AND c.oid = d.objoid
WHERE 'sluice'::regnamespace IN (p.pronamespace, c.relnamespace) AND d.description !~ '[.]$'
ORDER BY 1;

-- views only: the extension keeps no data in any database
SELECT c.relname AS not_a_view FROM pg_class c
WHERE c.relnamespace = 'sluice'::regnamespace AND c.relkind <> 'v' ORDER BY 1;

-- what the public may do
SELECT has_schema_privilege('public', 'sluice', 'USAGE') AS usage,
       has_schema_privilege('public', 'sluice', 'CREATE') AS "create";

SELECT c.relname AS view_the_public_cannot_read FROM pg_class c
WHERE c.relnamespace = 'sluice'::regnamespace AND NOT has_table_privilege('public', c.oid, 'SELECT') ORDER BY 1;

SELECT c.relname AS view_the_public_can_write FROM pg_class c
WHERE c.relnamespace = 'sluice'::regnamespace
  AND has_table_privilege('public', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER') ORDER BY 1;

-- a function that the public may execute reads; it has a view of its name
SELECT p.oid::regprocedure AS function_the_public_can_execute_without_a_view FROM pg_proc p
WHERE p.pronamespace = 'sluice'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')
  AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = p.pronamespace AND c.relname = p.proname)
ORDER BY p.proname;

SELECT p.oid::regprocedure AS function_the_public_cannot_execute FROM pg_proc p
WHERE p.pronamespace = 'sluice'::regnamespace AND NOT has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY p.proname;

-- no function runs with its owner's rights
SELECT p.oid::regprocedure AS security_definer FROM pg_proc p
WHERE p.pronamespace = 'sluice'::regnamespace AND p.prosecdef ORDER BY p.proname;

-- its schema is fixed
ALTER EXTENSION pg_sluice SET SCHEMA public;

-- it can be dropped and created again
DROP EXTENSION pg_sluice;
SELECT count(*) AS left_behind FROM pg_class WHERE relnamespace = to_regnamespace('sluice');
CREATE EXTENSION pg_sluice;
