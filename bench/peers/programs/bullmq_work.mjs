// Works on the jobs until it is told to end.
import { Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { send } from './poster.mjs'

const connection = new Redis(process.env.BENCH_DATABASE, { maxRetriesPerRequest: null })
const concurrency = Number(process.env.BENCH_CONCURRENCY)
const worker = new Worker('bench', async job => send(job.data), { connection, concurrency })
process.on('SIGTERM', async () => {
  await worker.close()
  process.exit(0)
})
