// Makes the tables and queues as many jobs as its argument says.
import { runMigrations } from 'graphile-worker'
import pg from 'pg'

const pool = new pg.Pool({ connectionString: process.env.BENCH_DATABASE })
await runMigrations({ pgPool: pool })
await pool.query(
  `SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
     SELECT ROW('post', json_build_object('body', $1::text), NULL, to_timestamp($3 / 1000.0), NULL, NULL, 0, NULL)::graphile_worker.job_spec
     FROM generate_series(1, $2::int)))`,
  [process.env.BENCH_BODY, process.argv[2], process.env.BENCH_DUE ?? Date.now()]
)
await pool.query('VACUUM ANALYZE')
await pool.end()
