// Works on the jobs until it is told to end.
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { post, url } from './poster.mjs'
import { deliver, envelopeOf, wanted } from './webhook.mjs'

const connection = new Redis(process.env.BENCH_DATABASE, { maxRetriesPerRequest: null })
const concurrency = Number(process.env.BENCH_CONCURRENCY)
const queue = new Queue('bench', { connection })

async function carryOut (job) {
  if (job.name === 'deliver') return deliver(job.id, job.data)
  const answer = await post(url, job.data, {}, wanted)
  if (wanted) await queue.add('deliver', envelopeOf(job.id, job.attemptsMade + 1, job.data, answer))
}

const worker = new Worker('bench', carryOut, { connection, concurrency })
process.on('SIGTERM', async () => {
  await worker.close()
  process.exit(0)
})
