// Which webhooks fire for the answer that is asked for, as the daemon says.

import { ask, why } from "./ask.js";
import { byId, element, endpoint } from "./webhook-parts.js";

const OUTCOMES = { succeeded: "succeeds", retry: "is tried again", failed: "fails for good" };

// Show it. `draft` is the list that is not written yet, or null for the one in the file; `note`
// stands above it; what is outdated by the time of the answer, as `current` says, is not shown.
export async function firing(draft, note, current) {
  const phase = byId("ask-phase").value;
  const code = byId("ask-code").value.trim();
  const asked = {};
  if (phase) asked.phase = phase;
  if (code && !phase.startsWith("before_")) asked.status_code = /^\d+$/.test(code) ? Number(code) : code;
  if (draft) asked.draft = { webhooks: draft };
  const lines = note ? [element("p", note, "muted")] : [];
  try {
    const found = await ask("POST", `/v1/endpoints/${endpoint}/explain`, asked);
    lines.push(...answered(found));
  } catch (error) {
    lines.push(element("p", why(error), "bad"));
  }
  if (current()) byId("firing").replaceChildren(...lines);
}

function answered(found) {
  const lines = [];
  if (found.decision) {
    const line = element("p", "The call: ");
    line.append(element("b", OUTCOMES[found.decision.outcome]), ".");
    lines.push(line);
  }
  const list = element("ul", "", "plain answers");
  for (const one of found.consequences.filter((item) => item.kind === "webhook")) {
    const line = element("li", "", one.happens ? "fires" : "rests");
    line.append(element("b", one.name), " ", element("span", `${one.happens ? "fires" : "does not"}: ${one.why}`));
    list.append(line);
  }
  lines.push(list.childElementCount ? list : element("p", "There is no webhook.", "muted"));
  return lines;
}
