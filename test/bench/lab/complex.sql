-- What a page of a report asks for: three tables, a group for each teller of one branch, the largest first.
\set bid random(1, :branches)
SELECT statement_timestamp() AS began_at, t.tid, t.tbalance, b.bbalance, count(*) AS accounts, sum(a.abalance) AS total,
  avg(a.abalance) AS mean, max(a.aid) AS latest FROM pgbench_branches b JOIN pgbench_tellers t USING (bid)
  JOIN pgbench_accounts a ON a.bid = b.bid AND a.aid BETWEEN (b.bid - 1) * 100000 + 1 AND (b.bid - 1) * 100000 + 1000
  WHERE b.bid = :bid GROUP BY t.tid, t.tbalance, b.bbalance ORDER BY total DESC, t.tid LIMIT 5;
