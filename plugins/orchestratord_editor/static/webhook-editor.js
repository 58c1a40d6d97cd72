// The editor of an endpoint's webhooks. What is edited is the list as it stands in the file; the
// daemon says what is wrong with it, what would change in the file and which webhooks fire for a call,
// each time that something is changed, and nothing is written before that difference was seen.

import { ask, guard, refresh, say, why } from "./dashboard.js";
import { Form } from "./webhook-form.js";
import { differences, reapplied, same, traced } from "./webhook-merge.js";

const byId = (id) => document.getElementById(id);
const { endpoint } = byId("editor").dataset;
const address = `/v1/endpoints/${endpoint}/webhooks`;
const PAUSE = 300; // milliseconds without a change, after which the daemon is asked
const TURNS = 5; // of five seconds each, for which an example that is under way is waited for
const OUTCOMES = { succeeded: "succeeds", retry: "is tried again", failed: "fails for good" };
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
  showProblems(forms, problems, read.file);
  const good = found !== null && !problems.length;
  const note = good || !dirty() ? "" : "As it stands in the file, since there are problems:";
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
    const place = byId("conflict").childElementCount ? byId("conflict") : byId("problems");
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
    showProblems(forms, error.problem?.errors ?? [], read.file);
    say(why(error), true);
    return null;
  }
  refresh();
  health();
  return "saved";
}

// -- changed elsewhere meanwhile -----------------------------------------------------------

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

// -- which of them fire ---------------------------------------------------------------------------

// Show it. `draft` is the list that is not written yet, or null for the one in the file; `note`
// stands above it; what is outdated by the time of the answer, as `current` says, is not shown.
async function firing(draft, note, current) {
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

// -- what is wrong: beside the fields, and all of it above them -----------------------------------

// Say these problems of the daemon's, and what the forms could not read. `file` is the endpoint's own.
// Of forms that have only just been begun nothing is said.
function showProblems(forms, problems, file) {
  for (const one of forms) one.clear();
  const told = [...problems];
  for (const one of forms) if (one.unreadable) told.push({ one, key: "payload", message: one.unreadable });
  const lines = told.map((problem) => line(forms, problem, file)).filter(Boolean);
  for (const one of forms) one.show();
  byId("problems").replaceChildren();
  const number = lines.length;
  if (!number) return;
  const list = element("ul");
  list.append(...lines);
  const note = element("section", "", "note bad");
  note.setAttribute("aria-label", "What is wrong");
  note.append(element("strong", number === 1 ? "It cannot be written like this:" : `It cannot be written like this, for ${number} reasons:`), list);
  byId("problems").append(note);
  byId("state").textContent = number === 1 ? "1 problem" : `${number} problems`;
}

function line(forms, problem, file) {
  const [, index, key] = /^webhooks\.(\d+)\.?(.*)$/.exec(problem.key ?? "") ?? [];
  const own = !problem.file || problem.file === file;
  const one = problem.one ?? (own && index !== undefined ? forms[Number(index)] : null);
  if (one?.fresh) return null;
  const made = element("li");
  if (!one) {
    const place = problem.file ? `${problem.file}${problem.line ? `:${problem.line}` : ""}: ` : "";
    made.append(`${place}${problem.key ? `${problem.key}: ` : ""}${problem.message}`);
    return made;
  }
  const input = problem.one ? one.field("payload").querySelector("textarea") : one.markProblem(key || "name", problem.message);
  const link = element("a", `${one.name || "a new webhook"}${key || problem.one ? `, ${key || problem.key}` : ""}`);
  link.href = `#${input.id || ""}`;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    one.reveal(input);
  });
  made.append(link, `: ${problem.message}`);
  return made;
}

// -- what changes in the file, and what became of it ----------------------------------------------

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

// Show how `file` changes by `diff`. `write` does it, and gives the id of the element that says what
// became of it. Gives that id, or null where it was left by Back.
function reviewed(file, diff, write) {
  const dialog = element("dialog", "", "reviewing");
  dialog.setAttribute("aria-labelledby", "reviewed");
  const title = element("h2", `What changes in ${file}`);
  title.id = "reviewed";
  const buttons = element("div", "", "buttons");
  const back = element("button", "Back");
  const yes = element("button", "Write it", "main");
  back.type = yes.type = "button";
  buttons.append(back, yes);
  dialog.append(title, difference(diff), buttons);
  document.body.append(dialog);
  dialog.showModal();
  yes.focus();
  back.addEventListener("click", () => dialog.close());
  yes.addEventListener("click", async () => {
    yes.disabled = true;
    dialog.close((await write()) ?? "");
  });
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue || null);
    });
  });
}

// Say that it is written, and whether it is in force.
function written(found) {
  const note = element("section", "", found.problems.length ? "note bad" : "note good");
  const text = element("p");
  text.append(element("strong", "Written."), ` ${found.file} has the change, `);
  note.append(text);
  if (found.problems.length) {
    text.append(`but generation ${found.generation} goes on: other files are refused.`);
    const lines = found.problems.map((one) => `${one.file}:${one.line ?? ""} ${one.message}`);
    note.append(listed(lines, "problems"));
  } else {
    text.append(`and generation ${found.generation} is in force.`);
  }
  byId("saved").tabIndex = -1;
  byId("saved").replaceChildren(note);
}

// -- the file has changed while it was edited here ------------------------------------------------

// Say what changed `there` and `here`, both in words. `take` takes the file as it is, `apply` makes
// the changes again to it, and gives in words what both have changed.
function conflicted(there, here, take, apply) {
  const note = element("section", "", "note odd");
  note.setAttribute("role", "alert");
  const title = element("h2", "The file has changed since you opened it");
  note.setAttribute("aria-labelledby", (title.id = "conflict-title"));
  const both = element("div", "", "both");
  for (const [name, lines, none] of [
    ["What changed there", there, "Nothing in this list; something else in the file, or in what it inherits."],
    ["What you changed", here, "Nothing."],
  ]) {
    const part = element("div");
    part.append(element("h3", name), listed(lines.length ? lines : [none]));
    both.append(part);
  }
  const buttons = element("div", "", "buttons");
  const yes = element("button", "Apply mine to it", "main");
  const no = element("button", "Take the file’s, discard mine");
  yes.type = no.type = "button";
  buttons.append(yes, no);
  note.append(title, both, buttons);
  byId("conflict").replaceChildren(note);
  no.addEventListener("click", take);
  yes.addEventListener("click", () => {
    const clashes = apply();
    const after = element("section", "", "note");
    after.append(element("p", "Your changes are made to what the file says now. Review them before they are written."));
    if (clashes.length) after.append(element("strong", "Both changed the same:"), listed(clashes, "", "odd"));
    byId("conflict").replaceChildren(after);
    byId("conflict").focus();
  });
}

// -- sending an example, and which ones are disabled ----------------------------------------------

// Send an example to the webhook of this name; what became of it is said at `place`.
async function test(name, button, place) {
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
async function disabled() {
  try {
    const found = await ask("GET", `/v1/webhooks?endpoint=${encodeURIComponent(endpoint)}`);
    return new Map(found.webhooks.map((row) => [row.name, row.disabled_reason ?? ""]));
  } catch {
    return null;
  }
}

// -- elements -------------------------------------------------------------------------------------

function element(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// A list in words; each line may hold elements.
function listed(lines, kind = "", each = "") {
  const list = element("ul", "", kind);
  for (const line of lines) {
    const item = element("li", "", each);
    item.append(line);
    list.append(item);
  }
  return list;
}

// -- the page -------------------------------------------------------------------------------------

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
  // An edit of the file elsewhere is seen here at once, and not only when this is written.
  document.addEventListener("refreshed", () => {
    const { etag } = byId("facts").dataset;
    if (etag && etag !== read.etag) conflict();
    health();
  });
  await health();
}

if (form) start().catch((error) => say(why(error), true));
