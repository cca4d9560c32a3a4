\set hot random(1, 5)
UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = :hot;
