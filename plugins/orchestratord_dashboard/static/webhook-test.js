// Sending an example to a webhook, and how the webhooks of the endpoint fare.

import { ask, why } from "./ask.js";
import { address, element, endpoint } from "./webhook-parts.js";

const TURNS = 5; // of five seconds each, for which an example that is under way is waited for

// Send an example to the webhook of this name; what became of it is said at `place`.
export async function test(name, button, place) {
  button.disabled = true;
  place.textContent = "Sending…";
  try {
    const { id } = await ask("POST", `${address}/${encodeURIComponent(name)}/test`);
    let task = await ask("GET", `/v1/retries/${id}?wait=5s`);
    for (let turn = 0; turn < TURNS && task.status === "running"; turn += 1) {
      task = await ask("GET", `/v1/retries/${id}?wait=5s`);
    }
    place.replaceChildren(...became(task));
  } catch (error) {
    place.replaceChildren(element("span", why(error), "bad"));
  }
  button.disabled = false;
}

function became(task) {
  const last = task.attempt_log.at(-1);
  let answer = task.last_error ?? "not sent yet";
  if (last) {
    answer = last.status_code === "error" ? (last.error ?? "no answer") : `answered ${last.status_code}`;
    answer += ` in ${Math.round(last.duration_ms)} ms`;
  }
  const state = { succeeded: "It arrived", failed: "It failed for good", pending: "It will be tried again" }[task.status] ?? "It is under way";
  const link = element("a", `delivery ${task.id}`);
  link.href = `/retries/${task.id}`;
  return [element("b", state, task.status === "succeeded" ? "good" : "bad"), `: ${answer}, `, link, "."];
}

// Why webhooks are disabled, by their names; null where that is not known now.
export async function disabled() {
  try {
    const found = await ask("GET", `/v1/webhooks?endpoint=${encodeURIComponent(endpoint)}`);
    return new Map(found.webhooks.map((row) => [row.name, row.disabled_reason ?? ""]));
  } catch {
    return null;
  }
}
