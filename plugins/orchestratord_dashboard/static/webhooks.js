// The editor of an endpoint's webhooks. What is edited is the list as it stands in the file; the
// daemon says what is wrong with it, what would change in the file and who would hear of a call, each
// time that something is changed, and nothing is written before that difference was seen.

import { ask, guard, refresh, say, why } from "./dashboard.js";
import { Form } from "./webhook-form.js";
import { differences, reapplied, same, traced } from "./webhook-merge.js";

const PAUSE = 300; // milliseconds without a change, after which the daemon is asked
const editor = document.getElementById("editor");
const endpoint = editor.dataset.endpoint;
const address = `/v1/endpoints/${endpoint}/webhooks`;
const byId = (id) => document.getElementById(id);
const form = byId("hook-form");

let read = null; // what the file said: webhooks, names, etag, …
let forms = [];
let tried = null; // what the daemon said of the list as it is now
let asking = 0;

function element(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

const named = (found) => found.webhooks.map((item, index) => ({ name: found.names[index], item }));
const items = () => forms.map((one) => one.item);
const mine = () => forms.map((one) => ({ name: one.name || "a new webhook", item: one.item, from: one.from }));
const dirty = () => !same(items(), read.webhooks);

// -- the list -------------------------------------------------------------------------------------

function begin(found) {
  read = found;
  tried = null;
  show(found.webhooks.map((item, index) => ({ item: structuredClone(item), from: index })));
  byId("conflict").replaceChildren();
}

function show(list, opened = null) {
  const open = new Set(forms.filter((one) => one.details.open).map((one) => one.from));
  forms = list.map(({ item, from }) => made(item, from));
  for (const one of forms) one.details.open = one.from !== null && open.has(one.from);
  byId("own").replaceChildren(...forms.map((one) => one.element));
  if (opened !== null) forms[opened].details.open = true;
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
    const item = structuredClone(one.item);
    item.name = one.name ? `${one.name}-copy` : "";
    if (!item.name) delete item.name;
    // What is written out in the file can be kept where it is, and not be written a second time.
    if ([item.secret].flat().includes("***")) delete item.secret;
    for (const [name, value] of Object.entries(item.headers ?? {})) if (value === "***") delete item.headers[name];
    const copy = made(item, null);
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
  test: (one) => test(one.name, one.button("test"), one.element.querySelector(".tested")),
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
  tried = null;
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
  complain(problems);
  tried = found && !problems.length ? found : null;
  await firing(number, tried !== null);
  return tried;
}

function complain(problems) {
  for (const one of forms) one.clear();
  const summary = byId("mistakes");
  const list = element("ul");
  const told = [...problems];
  for (const one of forms) if (one.unreadable) told.push({ one, key: "payload", message: one.unreadable });
  for (const problem of told) {
    const [, index, key] = /^webhooks\.(\d+)\.?(.*)$/.exec(problem.key ?? "") ?? [];
    const own = !problem.file || problem.file === read.file;
    const one = problem.one ?? (own && index !== undefined ? forms[Number(index)] : null);
    if (one?.fresh) continue;
    const line = element("li");
    if (one) {
      const input = problem.one ? one.field("payload").querySelector("textarea") : one.complain(key || "name", problem.message);
      const link = element("a", `${one.name || "a new webhook"}${key || problem.one ? `, ${key || problem.key}` : ""}`);
      link.href = `#${input.id || ""}`;
      link.addEventListener("click", (event) => {
        event.preventDefault();
        one.reveal(input);
      });
      line.append(link, `: ${problem.message}`);
    } else {
      const place = problem.file ? `${problem.file}${problem.line ? `:${problem.line}` : ""}: ` : "";
      line.append(`${place}${problem.key ? `${problem.key}: ` : ""}${problem.message}`);
    }
    list.append(line);
  }
  for (const one of forms) one.show();
  summary.replaceChildren();
  const number = list.childElementCount;
  if (!number) return;
  const note = element("section", "", "note bad");
  note.setAttribute("aria-label", "What is wrong");
  note.append(element("strong", number === 1 ? "It cannot be written like this:" : `It cannot be written like this, for ${number} reasons:`), list);
  summary.append(note);
  byId("state").textContent = number === 1 ? "1 mistake" : `${number} mistakes`;
}

// -- which of them fire ---------------------------------------------------------------------------

const OUTCOMES = { succeeded: "succeeds", retry: "is tried again", failed: "fails for good" };

async function firing(number, good) {
  const place = byId("firing");
  const phase = byId("ask-phase").value;
  const code = byId("ask-code").value.trim();
  const asked = {};
  if (phase) asked.phase = phase;
  if (code && !phase.startsWith("before_")) asked.status_code = /^\d+$/.test(code) ? Number(code) : code;
  if (form && dirty() && good) asked.draft = { webhooks: items() };
  const lines = [];
  if (form && dirty() && !good) lines.push(element("p", "As it stands in the file, since there are mistakes:", "muted"));
  try {
    const found = await ask("POST", `/v1/endpoints/${endpoint}/explain`, asked);
    if (number !== asking) return;
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
  } catch (error) {
    if (number !== asking) return;
    lines.push(element("p", why(error), "bad"));
  }
  place.replaceChildren(...lines);
}

// -- writing --------------------------------------------------------------------------------------

function difference(text) {
  const shown = element("pre", "", "diff");
  shown.tabIndex = 0;
  shown.setAttribute("role", "region");
  shown.setAttribute("aria-label", "How the file changes");
  for (const line of text.split(/(?<=\n)/)) {
    const kind = { "+": "added", "-": "removed", "@": "place" }[line[0]];
    const head = /^(---|\+\+\+) /.test(line);
    shown.append(kind && !head ? element("span", line, kind) : line);
  }
  return shown;
}

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
  const dialog = element("dialog", "", "reviewing");
  dialog.setAttribute("aria-labelledby", "reviewed");
  const title = element("h2", `What changes in ${found.file}`);
  title.id = "reviewed";
  const buttons = element("div", "", "buttons");
  const back = element("button", "Back");
  const write = element("button", "Write it", "main");
  back.type = write.type = "button";
  buttons.append(back, write);
  dialog.append(title, difference(found.diff), buttons);
  document.body.append(dialog);
  dialog.showModal();
  write.focus();
  dialog.addEventListener("close", () => {
    dialog.remove();
    (dialog.returnValue === "conflict" ? byId("conflict") : dialog.returnValue === "written" ? byId("saved") : button).focus();
  });
  back.addEventListener("click", () => dialog.close());
  write.addEventListener("click", async () => {
    write.disabled = true;
    try {
      written(await ask("PUT", address, { webhooks: items() }, { "If-Match": read.etag }));
      dialog.close("written");
    } catch (error) {
      if (error.status === 412) {
        await conflict();
        dialog.close("conflict");
      } else {
        complain(error.problem?.errors ?? []);
        say(why(error), true);
        dialog.close();
      }
    }
  });
}

function written(found) {
  const note = element("section", "", found.problems.length ? "note bad" : "note good");
  const text = element("p");
  text.append(element("strong", "Written."), ` ${found.file} has the change, `);
  if (found.problems.length) {
    text.append(`but generation ${found.generation} goes on: other files are refused.`);
    const list = element("ul", "", "problems");
    for (const one of found.problems) list.append(element("li", `${one.file}:${one.line ?? ""} ${one.message}`));
    note.append(text, list);
  } else {
    text.append(`and generation ${found.generation} is in force.`);
    note.append(text);
  }
  byId("saved").tabIndex = -1;
  byId("saved").replaceChildren(note);
  begin(found);
  refresh();
  health();
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
  const note = element("section", "", "note odd");
  note.setAttribute("role", "alert");
  const title = element("h2", "The file has changed since you opened it");
  note.setAttribute("aria-labelledby", (title.id = "conflict-title"));
  const both = element("div", "", "both");
  for (const [name, list, none] of [
    ["What changed there", there, "Nothing in this list; something else in the file, or in what it inherits."],
    ["What you changed", here, "Nothing."],
  ]) {
    const part = element("div");
    const lines = element("ul");
    lines.append(...(list.length ? list : [none]).map((text) => element("li", text)));
    part.append(element("h3", name), lines);
    both.append(part);
  }
  const buttons = element("div", "", "buttons");
  const apply = element("button", "Apply mine to it", "main");
  const take = element("button", "Take the file’s, discard mine");
  apply.type = take.type = "button";
  buttons.append(apply, take);
  note.append(title, both, buttons);
  byId("conflict").dataset.etag = found.etag;
  byId("conflict").replaceChildren(note);
  take.addEventListener("click", () => {
    begin(found);
    say("This is what the file says now.");
    byId("own").querySelector("summary")?.focus();
  });
  apply.addEventListener("click", () => {
    const { items: list, clashes } = reapplied(named(read), mine(), theirs);
    read = found;
    show(list);
    const after = element("section", "", "note");
    after.append(element("p", "Your changes are made to what the file says now. Review them before they are written."));
    const lines = element("ul");
    lines.append(...clashes.map((text) => element("li", text, "odd")));
    if (clashes.length) after.append(element("strong", "Both changed the same:"), lines);
    byId("conflict").replaceChildren(after);
    byId("conflict").focus();
  });
  return undefined;
}

// -- tests, and how they fare -----------------------------------------------------------------------

async function test(name, button, place) {
  button.disabled = true;
  place.textContent = "Sending…";
  try {
    const { id } = await ask("POST", `${address}/${encodeURIComponent(name)}/test`);
    let task = await ask("GET", `/v1/retries/${id}?wait=5s`);
    for (let turn = 0; turn < 5 && task.status === "running"; turn += 1) {
      task = await ask("GET", `/v1/retries/${id}?wait=5s`);
    }
    const last = task.attempt_log.at(-1);
    const answer = last ? `${last.status_code === "error" ? (last.error ?? "no answer") : `answered ${last.status_code}`} in ${Math.round(last.duration_ms)} ms` : (task.last_error ?? "not sent yet");
    const state = { succeeded: "It arrived", failed: "It failed for good", pending: "It will be tried again" }[task.status] ?? "It is under way";
    const link = element("a", `delivery ${id}`);
    link.href = `/retries/${id}`;
    place.replaceChildren(element("b", state, task.status === "succeeded" ? "good" : "bad"), `: ${answer}, `, link, ".");
  } catch (error) {
    place.replaceChildren(element("span", why(error), "bad"));
  }
  button.disabled = false;
  health();
}

async function health() {
  if (!form) return;
  let found;
  try {
    found = await ask("GET", `/v1/webhooks?endpoint=${encodeURIComponent(endpoint)}`);
  } catch {
    return;
  }
  const rows = new Map(found.webhooks.map((row) => [row.name, row]));
  for (const one of forms) {
    one.disabled = rows.get(one.name)?.disabled_reason ?? "";
    one.button("enable").hidden = !one.disabled;
    one.show();
  }
}

// -- the page ---------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-test]")) {
  button.addEventListener("click", () => test(button.dataset.test, button, button.parentElement.querySelector(".tested")));
}

for (const input of [byId("ask-phase"), byId("ask-code")]) {
  input.addEventListener("input", () => {
    byId("ask-code").disabled = byId("ask-phase").value.startsWith("before_");
    clearTimeout(waiting);
    waiting = setTimeout(() => (form ? check() : firing(++asking, true)), PAUSE);
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
