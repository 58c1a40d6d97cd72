// Sending the request of a job over connections that are kept.
import { Agent, request } from 'undici'

const url = process.env.BENCH_URL
const dispatcher = new Agent({ connections: Number(process.env.BENCH_CONCURRENCY) })
const headers = { 'content-type': 'application/json' }

export async function send (body) {
  const answer = await request(url, { method: 'POST', body, headers, dispatcher })
  await answer.body.dump()
  if (answer.statusCode >= 300) throw new Error(`${answer.statusCode}`)
}
