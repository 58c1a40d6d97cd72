// Sending the request of a job over connections that are kept.
import { Agent, request } from 'undici'

export const url = process.env.BENCH_URL
const dispatcher = new Agent({ connections: Number(process.env.BENCH_CONCURRENCY) })
const json = { 'content-type': 'application/json' }

// What was answered; its body only where it is to be `read`.
export async function post (to, body, headers = {}, read = false) {
  const answer = await request(to, { method: 'POST', body, headers: { ...json, ...headers }, dispatcher })
  const text = read ? await answer.body.text() : await answer.body.dump()
  if (answer.statusCode >= 300) throw new Error(`${answer.statusCode}`)
  return { status: answer.statusCode, headers: answer.headers, body: text }
}
