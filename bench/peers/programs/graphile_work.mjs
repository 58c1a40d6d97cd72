// Works on the jobs until it is told to end.
import { run } from 'graphile-worker'
import { Logger } from '@graphile/logger'
import { post, url } from './poster.mjs'
import { deliver, envelopeOf, wanted } from './webhook.mjs'

async function call ({ body }, { job, addJob }) {
  const answer = await post(url, body, {}, wanted)
  if (wanted) await addJob('deliver', envelopeOf(job.id, job.attempts, body, answer))
}

await run({
  preset: {
    worker: {
      connectionString: process.env.BENCH_DATABASE,
      concurrentJobs: Number(process.env.BENCH_CONCURRENCY),
      localQueue: { size: Number(process.env.BENCH_LOCAL_QUEUE) },
      completeJobBatchDelay: Number(process.env.BENCH_BATCH_DELAY),
      failJobBatchDelay: Number(process.env.BENCH_BATCH_DELAY),
      // By itself it writes a line for each job.
      logger: new Logger(() => () => {})
    }
  },
  taskList: { post: call, deliver: async (envelope, { job }) => deliver(job.id, envelope) }
})
