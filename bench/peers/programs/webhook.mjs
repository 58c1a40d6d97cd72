// The webhook of a job: the envelope as orchestratord has it, signed by Standard Webhooks.
import { createHmac } from 'node:crypto'
import { post, url } from './poster.mjs'

export const wanted = process.env.BENCH_WEBHOOK !== undefined
const key = Buffer.from((process.env.BENCH_SECRET ?? '').replace('whsec_', ''), 'base64')

export function envelopeOf (id, attempt, body, answer) {
  return {
    type: 'after_request',
    timestamp: new Date().toISOString(),
    data: {
      endpoint: 'bench/post',
      phase: 'after_request',
      status_code: answer.status,
      task_id: id,
      attempt,
      params: JSON.parse(body),
      request: { method: 'POST', url },
      response: { headers: answer.headers, body: answer.body },
      reason: null,
      error: null,
      next_try: null,
      run_id: id
    }
  }
}

export async function deliver (id, envelope) {
  const body = JSON.stringify(envelope)
  const message = `msg_${id}`
  const now = Math.floor(Date.now() / 1000)
  const signature = createHmac('sha256', key).update(`${message}.${now}.${body}`).digest('base64')
  await post(process.env.BENCH_WEBHOOK, body, {
    'webhook-id': message,
    'webhook-timestamp': `${now}`,
    'webhook-signature': `v1,${signature}`
  })
}
