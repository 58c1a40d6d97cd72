// Adds jobs by calls of their own.
import { Queue } from 'bullmq'
import { Redis } from 'ioredis'
import { addAll } from './adder.mjs'

const connection = new Redis(process.env.BENCH_DATABASE, { maxRetriesPerRequest: null })
const queue = new Queue('bench', { connection })
await queue.waitUntilReady()
await addAll(() => queue.add('post', process.env.BENCH_BODY))
await queue.close()
connection.disconnect()
