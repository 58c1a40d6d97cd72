// Makes the tables and adds jobs by calls of their own.
import { makeWorkerUtils, runMigrations } from 'graphile-worker'
import pg from 'pg'
import { addAll } from './adder.mjs'

const pool = new pg.Pool({ connectionString: process.env.BENCH_DATABASE })
await runMigrations({ pgPool: pool })
const utils = await makeWorkerUtils({ pgPool: pool })
await addAll(() => utils.addJob('post', { body: process.env.BENCH_BODY }))
await utils.release()
await pool.end()
