// The editor of an endpoint's webhooks. What is edited is the list as it stands in the file; the
// daemon says what is wrong with it, what would change in the file and who would hear of a call, each
// time that something is changed, and nothing is written before that difference was seen.

import { ask, guard, why } from "./ask.js";
import { refresh, say } from "./dashboard.js";
import { conflicted } from "./webhook-conflict.js";
import { firing } from "./webhook-firing.js";
import { Form } from "./webhook-form.js";
import { differences, reapplied, same, traced } from "./webhook-merge.js";
import { complain } from "./webhook-mistakes.js";
import { address, byId } from "./webhook-parts.js";
import { reviewed, written } from "./webhook-review.js";
import { disabled, test } from "./webhook-test.js";

const PAUSE = 300; // milliseconds without a change, after which the daemon is asked
const form = byId("hook-form");

let read = null; // what the file said: webhooks, names, etag, …
let forms = [];
let asking = 0;

const named = (found) => found.webhooks.map((item, index) => ({ name: found.names[index], item }));
const items = () => forms.map((one) => one.item);
const mine = () => forms.map((one) => ({ name: one.name || "a new webhook", item: one.item, from: one.from }));
const dirty = () => !same(items(), read.webhooks);

// -- the list -------------------------------------------------------------------------------------

function begin(found) {
  read = found;
  show(found.webhooks.map((item, index) => ({ item: structuredClone(item), from: index })));
  byId("conflict").replaceChildren();
}

function show(list) {
  const open = new Set(forms.filter((one) => one.details.open).map((one) => one.from));
  forms = list.map(({ item, from }) => made(item, from));
  for (const one of forms) one.details.open = one.from !== null && open.has(one.from);
  byId("own").replaceChildren(...forms.map((one) => one.element));
  arranged();
  learn(read);
  changed();
}

function made(item, from) {
  const one = new Form(item, from, changed);
  for (const [name, action] of Object.entries(ACTIONS)) {
    one.button(name).addEventListener("click", () => action(one));
  }
  return one;
}

function arranged() {
  byId("none").hidden = forms.length > 0;
  forms.forEach((one, index) => {
    one.button("up").disabled = index === 0;
    one.button("down").disabled = index === forms.length - 1;
  });
}

function insert(one, index, focus) {
  forms.splice(index, 0, one);
  byId("own").insertBefore(one.element, byId("own").children[index] ?? null);
  one.details.open = true;
  arranged();
  one.reveal(focus);
  changed();
}

function move(one, by) {
  const from = forms.indexOf(one);
  const other = forms[from + by];
  forms.splice(from, 1);
  forms.splice(from + by, 0, one);
  if (by < 0) other.element.before(one.element);
  else other.element.after(one.element);
  arranged();
  const button = one.button(by < 0 ? "up" : "down");
  (button.disabled ? one.button(by < 0 ? "down" : "up") : button).focus();
  say(`${one.name || "The webhook"} is number ${from + by + 1} of ${forms.length}.`);
  changed();
}

const ACTIONS = {
  up: (one) => move(one, -1),
  down: (one) => move(one, 1),
  copy(one) {
    const copy = made(one.copied(), null);
    insert(copy, forms.indexOf(one) + 1, copy.input("name"));
  },
  remove(one) {
    const index = forms.indexOf(one);
    forms.splice(index, 1);
    one.element.remove();
    arranged();
    const next = forms[Math.min(index, forms.length - 1)];
    (next ? next.details.querySelector("summary") : byId("add")).focus();
    say(`${one.name || "The webhook"} is removed, once this is written.`);
    changed();
  },
  async test(one) {
    await test(one.name, one.button("test"), one.element.querySelector(".tested"));
    await health();
  },
  async enable(one) {
    try {
      await ask("POST", `${address}/${encodeURIComponent(one.name)}/enable`);
      say(`${one.name} is enabled again.`);
    } catch (error) {
      say(why(error), true);
    }
    await health();
    one.details.querySelector("summary").focus();
  },
};

// Names, references and what is inherited, as the daemon knows them for the list as it is.
function learn(found) {
  const inherited = new Map(found.inherited.map((one) => [one.webhook.name, one]));
  forms.forEach((one, index) => {
    one.name = found.names[index] ?? one.item.name ?? "";
    const above = inherited.get(one.name);
    one.inherited = above?.webhook ?? null;
    one.origin = above?.origin ?? "";
    const references = found.references[index] ?? [];
    if (!same(references, one.references)) {
      one.references = references;
      one.fillSecrets();
    }
    one.input("name").placeholder = one.name;
    one.show();
  });
}

// -- asking the daemon ----------------------------------------------------------------------------

let waiting = null;

function changed() {
  clearTimeout(waiting);
  const changes = dirty();
  byId("discard").disabled = !changes;
  byId("review").disabled = !changes;
  for (const one of forms) {
    const button = one.button("test");
    const stands = one.from !== null && same(one.item, read.webhooks[one.from]);
    button.disabled = !stands || one.item.enabled === false || Boolean(one.disabled);
    button.title = stands ? "" : "can be sent once this is written";
  }
  byId("state").textContent = changes ? "not written yet" : "";
  waiting = setTimeout(check, PAUSE);
}

// Try the list as it is. Gives what the daemon says of it; null where it says no more than errors.
async function check() {
  clearTimeout(waiting);
  const number = ++asking;
  let problems = [];
  let found = null;
  if (!forms.some((one) => one.unreadable)) {
    try {
      found = await ask("PUT", `${address}?dry_run=true`, { webhooks: items() }, { "If-Match": read.etag });
      problems = found.problems;
    } catch (error) {
      if (number !== asking) return null;
      if (error.status === 412) {
        await conflict();
        return null;
      }
      problems = error.problem?.errors ?? [{ key: "", message: error.message }];
    }
  }
  if (number !== asking) return null;
  if (found) learn(found);
  complain(forms, problems, read.file);
  const good = found !== null && !problems.length;
  const note = good || !dirty() ? "" : "As it stands in the file, since there are mistakes:";
  await firing(good && dirty() ? items() : null, note, () => number === asking);
  return good ? found : null;
}

// -- writing --------------------------------------------------------------------------------------

async function review() {
  const button = byId("review");
  button.disabled = true;
  for (const one of forms) one.fresh = false;
  const found = await check();
  button.disabled = !dirty();
  if (!found) {
    const place = byId("conflict").childElementCount ? byId("conflict") : byId("mistakes");
    place.focus();
    return;
  }
  const place = await reviewed(found.file, found.diff, write);
  (place ? byId(place) : button).focus();
}

// Gives where it says what became of it.
async function write() {
  try {
    const found = await ask("PUT", address, { webhooks: items() }, { "If-Match": read.etag });
    written(found);
    begin(found);
  } catch (error) {
    if (error.status === 412) {
      await conflict();
      return "conflict";
    }
    complain(forms, error.problem?.errors ?? [], read.file);
    say(why(error), true);
    return null;
  }
  refresh();
  health();
  return "saved";
}

// -- changed by somebody else meanwhile -----------------------------------------------------------

async function conflict() {
  let found;
  try {
    found = await ask("GET", address);
  } catch (error) {
    return say(why(error), true);
  }
  if (!dirty()) return begin(found);
  if (found.etag === byId("conflict").dataset.etag && byId("conflict").childElementCount) return undefined;
  const theirs = traced(named(read), named(found));
  const there = differences(named(read), theirs);
  const here = differences(named(read), mine());
  byId("conflict").dataset.etag = found.etag;
  const take = () => {
    begin(found);
    say("This is what the file says now.");
    byId("own").querySelector("summary")?.focus();
  };
  const apply = () => {
    const { items: list, clashes } = reapplied(named(read), mine(), theirs);
    read = found;
    show(list);
    return clashes;
  };
  return conflicted(there, here, take, apply);
}

// -- how they fare --------------------------------------------------------------------------------

async function health() {
  if (!form) return;
  const reasons = await disabled();
  if (!reasons) return;
  for (const one of forms) {
    one.disabled = reasons.get(one.name) ?? "";
    one.button("enable").hidden = !one.disabled;
    one.show();
  }
}

// -- the page ---------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-test]")) {
  button.addEventListener("click", async () => {
    await test(button.dataset.test, button, button.parentElement.querySelector(".tested"));
    await health();
  });
}

function asked() {
  if (form) return check();
  const number = ++asking;
  return firing(null, "", () => number === asking);
}

for (const input of [byId("ask-phase"), byId("ask-code")]) {
  input.addEventListener("input", () => {
    byId("ask-code").disabled = byId("ask-phase").value.startsWith("before_");
    clearTimeout(waiting);
    waiting = setTimeout(asked, PAUSE);
  });
}
byId("ask").addEventListener("submit", (event) => event.preventDefault());

async function start() {
  begin(await ask("GET", address));
  byId("tools").hidden = false;
  byId("add").addEventListener("click", () => {
    const one = made({ phase: "after_request" }, null);
    insert(one, forms.length, one.input("name"));
  });
  byId("discard").addEventListener("click", () => {
    begin(read);
    byId("add").focus();
    say("Your changes are discarded.");
  });
  byId("review").addEventListener("click", review);
  guard(dirty);
  addEventListener("beforeunload", (event) => dirty() && event.preventDefault());
  // Whoever edits the file elsewhere is seen here at once, and not only when this is written.
  document.addEventListener("refreshed", () => {
    const { etag } = byId("facts").dataset;
    if (etag && etag !== read.etag) conflict();
    health();
  });
  await health();
}

if (form) start().catch((error) => say(why(error), true));
