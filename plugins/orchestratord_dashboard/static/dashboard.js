// What a page does in the browser: it keeps itself up to date, and its buttons ask the API.
//
// A page is complete as the server sends it. To bring it up to date it is fetched again, and what
// has changed is taken over into the elements that have `data-morph` and an id. Other scripts of
// the dashboard import `say`, `confirmed` and `refresh` from here, and from `ask.js` what asks the API.

import { LOGGED_OUT, ask, logIn, why } from "./ask.js";
import { morph } from "./morph.js";
import { tell } from "./times.js";

// -- telling ------------------------------------------------------------------------------------

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
export function confirmed(text, yes) {
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

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button || button.ariaDisabled === "true") return;
  event.preventDefault();
  const { post, body, done, confirm: question, yes } = button.dataset;
  if (question && !(await confirmed(question, yes || button.textContent.trim()))) return;
  // What is really disabled loses the focus.
  button.ariaDisabled = "true";
  try {
    await ask("POST", post, body ? JSON.parse(body) : undefined);
    say(done || "Done.");
  } catch (error) {
    say(why(error), true);
  }
  button.ariaDisabled = null;
  await refresh();
  // What was pressed may be gone: whoever uses the keyboard is not to start at the top again.
  if (!button.isConnected) document.getElementById("main").focus();
});

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

// Events say that something has changed, the page itself says what. While nobody looks, nothing is
// fetched and nothing followed. Where no events come, because too many follow them already, the
// page is still fetched now and then. What goes on without events has `data-every`.
const SOONEST = 1000;
const ANYHOW = 5000;
const EXPANDED = {
  "task.*": ["created", "started", "succeeded", "retried", "snoozed", "failed", "cancelled",
    "triggered"].map((one) => `task.${one}`),
  "webhook.*": ["webhook.disabled", "webhook.enabled"],
  "endpoint.*": ["endpoint.paused", "endpoint.resumed"],
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

setInterval(() => document.hidden || tell(), 1000);

// -- light and dark ---------------------------------------------------------------------------------

document.getElementById("theme").addEventListener("change", (event) => {
  const theme = event.target.value;
  document.documentElement.dataset.theme = theme;
  // The server writes it into the page, so that no page begins in the other colours.
  document.cookie = `theme=${theme}; Path=/; SameSite=Strict; Max-Age=${theme ? 31536000 : 0}`;
});

// -- small things -----------------------------------------------------------------------------------

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
