// Queues as many jobs as its argument says.
import { Queue } from 'bullmq'
import { Redis } from 'ioredis'

const connection = new Redis(process.env.BENCH_DATABASE, { maxRetriesPerRequest: null })
const queue = new Queue('bench', { connection })
const batch = 1000
for (let left = Number(process.argv[2]); left > 0; left -= batch) {
  const job = { name: 'post', data: process.env.BENCH_BODY, opts: {} }
  if (process.env.BENCH_DUE) job.opts.delay = Number(process.env.BENCH_DUE) - Date.now()
  await queue.addBulk(Array(Math.min(batch, left)).fill(job))
}
await queue.close()
connection.disconnect()
