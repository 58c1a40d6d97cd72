// What a page does in the browser: it keeps itself up to date, and its buttons ask the API.
//
// A page is complete as the server sends it. To bring it up to date it is fetched again, and what
// has changed is taken over into the elements that have `data-morph` and an id. The scripts of single
// pages import from here what asks the API (`ask`, `exact`, `why`, `guard`), `say` and `refresh`.

// -- asking the API -------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `the daemon answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

// The JSON of an answer; throws Refused for one that is no success.
export async function ask(method, address, body, headers = {}) {
  const options = { method, headers: { Accept: "application/json", ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Refused(0, { detail: "The daemon cannot be reached." });
  }
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401 && !logIn()) answer.detail = `${LOGGED_OUT}.`;
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

// The value of a JSON text, which `ask` sends with its numbers as they stand there: those of a script
// have no more than 53 bits. Throws SyntaxError.
export function exact(text) {
  return JSON.parse(text, (name, value, at) =>
    typeof value === "number" && at?.source && JSON.rawJSON ? JSON.rawJSON(at.source) : value);
}

// Sessions end with the daemon. A page on which something is unsaved is not left for that.
const LOGGED_OUT = "You are logged out: log in again in another tab, and go on here";
let unsaved = () => false;
const typed = () => [...document.querySelectorAll("dialog[open], dialog textarea")]
  .some((one) => one.open || one.value !== one.defaultValue);

// `check` says whether something would be lost if this page were left.
export function guard(check) {
  unsaved = check;
}

// Go and log in, unless something would be lost; whether that was done.
function logIn() {
  if (unsaved() || typed()) return false;
  location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
  return true;
}

// What is wrong, in a sentence for people.
export function why(error) {
  const errors = error.problem?.errors;
  if (!errors?.length) return error.message;
  return errors.map((one) => (one.key ? `${one.key}: ${one.message}` : one.message)).join("; ");
}

// -- telling --------------------------------------------------------------------------------------

export function say(text, bad = false) {
  const place = document.getElementById("said");
  const line = document.createElement("p");
  line.textContent = text;
  if (bad) line.className = "bad";
  place.append(line);
  while (place.childElementCount > 3) place.firstElementChild.remove();
  setTimeout(() => line.remove(), bad ? 12000 : 5000);
}

// Ask before something that cannot be undone; whether the answer is yes.
function confirmed(text, yes) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "asked");
  const form = document.createElement("form");
  form.method = "dialog";
  const question = document.createElement("p");
  question.id = "asked";
  question.textContent = text;
  const buttons = document.createElement("div");
  buttons.className = "buttons";
  for (const [value, words, kind] of [["no", "Back", ""], ["yes", yes, "main"]]) {
    const button = document.createElement("button");
    button.value = value;
    button.textContent = words;
    button.className = kind;
    buttons.append(button);
  }
  form.append(question, buttons);
  dialog.append(form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue === "yes");
    });
  });
}

// -- buttons that ask the API -------------------------------------------------------------------
//
// data-post     the address          data-confirm   a question before
// data-body     JSON, if any         data-yes       the button of its answer
// data-done     what to say afterwards

// What would come out of its order is sent only by force, which is asked for.
async function sent(address, body) {
  try {
    return await ask("POST", address, body);
  } catch (error) {
    const overtaken = error.problem?.code === "overtaken";
    if (!overtaken || !(await confirmed(`${why(error)}. Send it all the same?`, "Send"))) throw error;
    return ask("POST", address, { ...body, force: true });
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button || button.ariaDisabled === "true") return;
  event.preventDefault();
  const { post, body, done, confirm: question, yes } = button.dataset;
  if (question && !(await confirmed(question, yes || button.textContent.trim()))) return;
  // What is really disabled loses the focus.
  button.ariaDisabled = "true";
  try {
    const { replay } = await sent(post, body ? JSON.parse(body) : undefined);
    if (replay && "replay" in button.dataset) await sent("/v1/retries/trigger", { filter: replay });
    say(done || "Done.");
  } catch (error) {
    say(why(error), true);
  }
  button.ariaDisabled = null;
  await refresh();
  // What was pressed may be gone: the keyboard is not to start at the top again.
  if (!button.isConnected) document.getElementById("main").focus();
});

// -- times that stay true while a page is open ----------------------------------------------------

const UNITS = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];

function duration(seconds) {
  const parts = [];
  let left = Math.round(seconds);
  for (const [unit, size] of UNITS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count || parts.length) parts.push(count ? `${count}${unit}` : "");
  }
  return parts.slice(0, 2).filter(Boolean).join(" ") || "0s";
}

// The clocks of the daemon and of the browser need not agree.
const served = Number(document.documentElement.dataset.now) || Date.now();
const skew = served - Date.now();

function tell() {
  const now = Date.now() + skew;
  for (const time of document.querySelectorAll("time[data-when]")) {
    const away = (Date.parse(time.dateTime) - now) / 1000;
    const text = away > 0.5 ? `in ${duration(Math.max(away, 1))}` : `${duration(Math.max(-away, 1))} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
}

// -- making an element like another ---------------------------------------------------------------

// Make one element like another, and touch nothing that is alike: what has the focus, what is
// opened, ticked or selected stays so.
function morph(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !kept(old, name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !kept(old, name)) old.setAttribute(name, value);
  }
  const coming = [...fresh.childNodes];
  const byKey = new Map();
  for (const child of old.children) if (child.dataset.key) byKey.set(child.dataset.key, child);
  let place = old.firstChild;
  for (const next of coming) {
    const key = next.dataset?.key;
    let match = key ? byKey.get(key) : place;
    if (match && !alike(match, next)) match = null;
    if (!match) {
      old.insertBefore(document.importNode(next, true), place);
      continue;
    }
    if (match !== place) old.insertBefore(match, place);
    else place = place.nextSibling;
    if (match.nodeType === Node.ELEMENT_NODE) morph(match, next);
    else if (match.nodeValue !== next.nodeValue) match.nodeValue = next.nodeValue;
  }
  while (place) {
    const after = place.nextSibling;
    place.remove();
    place = after;
  }
}

function kept(element, name) {
  return name === "open" || (name === "disabled" && element.tagName === "BUTTON");
}

function alike(old, fresh) {
  return (
    old.nodeType === fresh.nodeType &&
    old.nodeName === fresh.nodeName &&
    old.dataset?.key === fresh.dataset?.key
  );
}

// -- keeping up to date ---------------------------------------------------------------------------

let fetching = null;
let at = new Date(); // when this was how things are

// What is shown is older than it looks; the next page that is fetched takes the note away again.
function stale(text) {
  const notes = document.getElementById("notes");
  const note = notes.querySelector('[data-key="stale"]') ?? document.createElement("p");
  note.dataset.key = "stale";
  note.className = "note bad";
  note.setAttribute("role", "alert");
  const words = `${text}. This is how it was at ${at.toISOString().slice(11, 19)} UTC.`;
  if (note.textContent !== words) note.textContent = words;
  if (!note.isConnected) notes.prepend(note);
}

// Fetch the page again, and take over what has changed.
export function refresh() {
  fetching ??= fetchAgain().finally(() => (fetching = null));
  return fetching;
}

async function fetchAgain() {
  let response;
  try {
    response = await fetch(location.href, { headers: { Accept: "text/html" } });
  } catch {
    show("lost");
    return stale("The daemon cannot be reached");
  }
  if (response.status === 401) {
    if (logIn()) return undefined;
    show("stale");
    return stale(LOGGED_OUT);
  }
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!response.ok) {
    show("stale");
    return stale(fresh.querySelector("h1")?.textContent ?? `The daemon has no answer (${response.status})`);
  }
  at = new Date();
  for (const place of document.querySelectorAll("[data-morph]")) {
    const found = fresh.getElementById(place.id);
    if (found) morph(place, found);
  }
  if (source?.readyState === EventSource.OPEN) show("on");
  else if (document.body.dataset.live && !source) show("slow");
  tell();
  document.dispatchEvent(new Event("refreshed"));
  return undefined;
}

// Events say that something has changed, the page itself says what. While the page is hidden, nothing
// is fetched and nothing followed. Where no events come, because too many follow them already, the
// page is still fetched now and then. What goes on without events has `data-every`.
const SOONEST = 1000;
const ANYHOW = 5000;
const EXPANDED = {
  "task.*": ["created", "started", "succeeded", "retried", "snoozed", "failed", "cancelled",
    "triggered"].map((one) => `task.${one}`),
  "bulk.*": ["began", "progress", "paused", "resumed", "cancelled", "finished"].map((one) => `bulk.${one}`),
  "partition.*": ["partition.held"],
  "webhook.*": ["webhook.disabled", "webhook.enabled"],
  "endpoint.*": ["endpoint.failing", "endpoint.paused", "endpoint.resumed"],
  "breaker.*": ["breaker.opened", "breaker.closed"],
  "config.*": ["config.adopted", "config.refused"],
  "daemon.*": ["daemon.started", "daemon.draining"],
};
let source = null;
let due = null;
let fetched = Date.now();
let beat = null;

function follow() {
  if (document.hidden) return;
  beat ??= setInterval(() => {
    const every = document.querySelector("[data-every]")?.dataset.every ?? ANYHOW;
    if (Date.now() - fetched >= every) soon();
  }, SOONEST / 4);
  if (source) return;
  const types = document.body.dataset.live;
  source = new EventSource("/v1/events?type=" + encodeURIComponent(types));
  source.onopen = () => show("on");
  source.onerror = () => {
    if (source?.readyState !== EventSource.CLOSED) return show("lost");
    source = null;
    setTimeout(follow, ANYHOW);
    return show("slow");
  };
  for (const type of types.split(",")) {
    for (const one of EXPANDED[type] ?? [type]) source.addEventListener(one, soon);
  }
  source.addEventListener("missed", soon);
}

function rest() {
  source?.close();
  source = null;
  clearInterval(beat);
  clearTimeout(due);
  beat = due = null;
}

function soon() {
  if (due || document.hidden) return;
  const pace = document.querySelector("[data-every]") ? 0 : SOONEST;
  due = setTimeout(async () => {
    await refresh();
    fetched = Date.now();
    due = null;
  }, Math.max(0, fetched + pace - Date.now()));
}

const STATES = { on: "live", slow: "every 5 s", stale: "out of date", lost: "no connection", off: "paused" };

function show(state) {
  const sign = document.getElementById("live");
  sign.hidden = false;
  if (sign.dataset.state === state) return;
  sign.dataset.state = state;
  sign.textContent = STATES[state];
}

if (document.body.dataset.live) {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      rest();
      show("off");
    } else {
      soon();
      follow();
    }
  });
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => event.persisted && follow());
  follow();
}

tell();
setInterval(() => document.hidden || tell(), 1000);

// -- light and dark -------------------------------------------------------------------------------

document.getElementById("theme").addEventListener("change", (event) => {
  const theme = event.target.value;
  document.documentElement.dataset.theme = theme;
  // The server writes it into the page, so that no page begins in the other colours.
  document.cookie = `theme=${theme}; Path=/; SameSite=Strict; Max-Age=${theme ? 31536000 : 0}`;
});

// -- small things ---------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    say("The browser does not let this page copy; select the text instead.", true);
  }
});
