-- SPDX-License-Identifier: PostgreSQL
--
-- The roles of the cross-talk test; objects.sql then makes the rest in each database.

CREATE ROLE crosstalk_red NOLOGIN;
CREATE ROLE crosstalk_blue NOLOGIN;
CREATE ROLE crosstalk_stranger NOLOGIN;
CREATE ROLE crosstalk_one LOGIN IN ROLE crosstalk_red, crosstalk_blue;
-- RESET does not return to the same for everybody.
CREATE ROLE crosstalk_two LOGIN IN ROLE crosstalk_red, crosstalk_blue;
ALTER ROLE crosstalk_two SET work_mem = '5MB';
ALTER ROLE crosstalk_two SET app.tenant = 'of the role';
ALTER ROLE crosstalk_two SET DateStyle = 'SQL, MDY';
CREATE ROLE crosstalk_boss LOGIN SUPERUSER;
