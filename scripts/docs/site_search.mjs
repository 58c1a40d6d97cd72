// node scripts/docs/site_search.mjs SITE: asks the search of the built site for words of users, as its
// page does, and fails if none of the first three results is on the page that answers.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import vm from "node:vm";

const WORDS = {
  "at least once": "explanation/at-least-once/",
  "backoff": "backoff/",
  "batch": "webhooks/#batches",
  "celery": "how-to/from-celery/",
  "circuit breaker": "limits/#the-circuit-breaker",
  "cron": "how-to/from-cron/",
  "dead letter": "glossary/#dead-letter",
  "disk full": "operations/#when-the-disk-is-full",
  "docker": "installation/#a-container",
  "duplicate": "how-to/an-order-not-twice/",
  "exactly once": "explanation/at-least-once/",
  "idempotency": "glossary/#idempotency-key",
  "kubernetes": "installation/#kubernetes",
  "pagination": "then/#pages",
  "prometheus": "metrics/#for-prometheus",
  "rate limit": "limits/#rate-limits",
  "retry": "retry_schedule/#manual-retries",
  "rotate secret": "how-to/rotate-a-secret/",
  "signature": "webhooks/#verifying-a-signature",
  "sqlalchemy": "how-to/sqlalchemy-django/",
  "stripe": "how-to/inbound-stripe/",
  "upgrade": "operations/#upgrades",
};
Object.assign(WORDS, {
  // of an operator at work
  "action log": "api/#the-action-log",
  "backup": "operations/#backups",
  "cannot start": "troubleshooting/#the-daemon-does-not-start",
  "exit code": "operations/#signals-and-exit-codes",
  "disabled webhook": "webhooks/#what-it-misses",
  "429": "limits/#retry-after",
  "backlog": "troubleshooting/#everything-is-late",
  "cancel all": "commands/#orchestratorctl",
  "certificate expired": "troubleshooting/#doctor-certs",
  "database big": "troubleshooting/#tasks-of-an-operator",
  "out of memory": "troubleshooting/#memory_exhausted",
  "permission denied": "troubleshooting/#orchestratorctl-finds-no-daemon",
  "rollback": "troubleshooting/#tasks-of-an-operator",
  "run schedule now": "troubleshooting/#tasks-of-an-operator",
  "too many open files": "troubleshooting/#doctor-open-files",
  "add a machine": "troubleshooting/#tasks-of-an-operator",
  "call stuck": "troubleshooting/#tasks-of-an-operator",
  "daemon does not start": "troubleshooting/#the-daemon-does-not-start",
  "doctor": "commands/#doctor",
  "log level": "how-to/ship-the-log/",
  "moving queue": "fleet/#moving-a-queue",
  "pause an API": "troubleshooting/#pause-an-api",
  "replay deliveries": "troubleshooting/#tasks-of-an-operator",
  "resolve ambiguous": "troubleshooting/#ambiguous",
  "restore a backup": "operations/#backups",
  "stays pending": "troubleshooting/#a-task-stays-pending",
  "stop sending": "troubleshooting/#pause-an-api",
  "throttled": "limits/#throttled-lanes",
  "upgrade without a pause": "operations/#upgrades",
  "webhook disabled missed": "webhooks/#what-it-misses",
  "who retried a task": "troubleshooting/#tasks-of-an-operator",
});
const SETUP = 0, QUERY = 2, RESULT = 3;
const FIRST = 3;

const [site] = process.argv.slice(2);
const workers = join(site, "assets/javascripts/workers");
const program = readdirSync(workers).find((name) => /^search\..*\.js$/.test(name));
const { config, docs } = JSON.parse(readFileSync(join(site, "search/search_index.json"), "utf8"));

let hear, answered;
const scope = {
  addEventListener: (_, heard) => (hear = heard),
  postMessage: (message) => message.type === RESULT && answered(message.data),
  console, TextEncoder, TextDecoder, performance, setTimeout,
};
scope.self = scope.globalThis = scope;
vm.runInNewContext(readFileSync(join(workers, program), "utf8"), scope);

const tell = (type, data) => hear({ data: { type, data } });
const ask = (words) => new Promise((done) => ((answered = done), tell(QUERY, words)));

await tell(SETUP, { config, docs, options: { suggest: false } });
let wrong = 0;
for (const [words, page] of Object.entries(WORDS)) {
  const { items } = await ask(words);
  const found = items.slice(0, FIRST).map((item) => item.map((part) => part.location));
  if (!found.some((item) => item.includes(page))) {
    wrong += 1;
    console.error(`the search for "${words}" does not lead to ${page}, but to ${found.flat().slice(0, 6).join(", ")}`);
  }
}
process.exit(wrong ? 1 : 0);
