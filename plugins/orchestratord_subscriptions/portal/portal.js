// The portal of a tenant. The session lives in this page alone: a reload needs a new link.

let session = null; // what POST session answered
let shown = 0; // counts the views, so that a slow answer does not show over a later one

const main = document.getElementById("main");

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "click") made.addEventListener("click", value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((one) => one !== null && one !== undefined));
  return made;
}

function say(text) {
  document.getElementById("said").textContent = text;
}

// -- the API ----------------------------------------------------------------------------------------

async function ask(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  if (session) headers.Authorization = `Bearer ${session.session}`;
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const document_ = await answer.json().catch(() => ({}));
  if (answer.ok) return document_;
  if (answer.status === 401 && session) {
    session = null;
    begin("Your session has ended. Ask for a new link to go on.");
  }
  const named = (document_.errors ?? []).map((one) => `${one.key} ${one.message}`).join("; ");
  throw new Error(named || document_.detail || `the server answered ${answer.status}`);
}

function mine(...parts) {
  const path = ["v1", "tenants", session.tenant, "subscriptions", ...parts];
  return path.map(encodeURIComponent).join("/");
}

// A button that does something, and says what came of it.
function button(text, act, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await act(made);
    } catch (error) {
      say(error.message);
    } finally {
      made.disabled = false;
    }
  });
  return made;
}

// -- small parts ------------------------------------------------------------------------------------

function when(text) {
  if (!text) return "never";
  return element("time", { datetime: text }, new Date(text).toLocaleString());
}

function state(one) {
  if (!one.enabled) return element("span", { class: "bad" }, `Disabled: ${one.disabled_reason ?? "by hand"}`);
  if (one.failing_since) return element("span", { class: "bad" }, "Failing since ", when(one.failing_since));
  if (one.last_success_at) return element("span", { class: "good" }, "Working");
  return element("span", { class: "muted" }, "Nothing delivered yet");
}

function facts(...pairs) {
  return element("dl", {}, ...pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function table(caption, names, rows) {
  return element(
    "table",
    { "aria-label": caption },
    element("thead", {}, element("tr", {}, ...names.map(([name, kind]) => element("th", { scope: "col", class: kind }, name)))),
    element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell, at) => element("td", { class: names[at][1] }, cell))))),
  );
}

function events(one) {
  return one.events.length ? one.events.join(", ") : "all events";
}

// Numbers stay as they were sent: those of a script have no more than 53 bits.
function pretty(text) {
  const exact = (name, value, at) =>
    typeof value === "number" && at?.source && JSON.rawJSON ? JSON.rawJSON(at.source) : value;
  try {
    return JSON.stringify(JSON.parse(text, exact), null, 2);
  } catch {
    return text;
  }
}

// A secret behind a click.
function secret(fetchIt) {
  const place = element("div", { class: "row" });
  const show = button("Show the secret", async () => {
    const value = await fetchIt();
    const copy = button("Copy", async () => {
      await navigator.clipboard.writeText(value);
      say("The secret is copied.");
    });
    place.replaceChildren(element("code", { tabindex: "-1" }, value), copy, button("Hide", () => place.replaceChildren(show)));
    place.firstChild.focus();
  });
  place.append(show);
  return place;
}

// -- views ------------------------------------------------------------------------------------------

async function list() {
  const { subscriptions } = await ask("GET", `${mine()}?limit=1000`);
  subscriptions.sort((one, other) => one.created_at.localeCompare(other.created_at));
  const cards = subscriptions.map((one) =>
    element(
      "li",
      {},
      element("p", {}, element("a", { href: `#/s/${one.id}` }, one.url)),
      element("p", {}, state(one)),
      element("p", { class: "muted small" }, `${one.description ? `${one.description} · ` : ""}${events(one)} · last attempt `, when(one.last_attempt_at)),
    ),
  );
  const none = element("p", {}, "There is no endpoint yet. Add one, and events are sent to it.");
  return ["Endpoints", cards.length ? element("ul", { class: "cards" }, ...cards) : none, element("a", { href: "#/new", class: "button" }, "Add an endpoint")];
}

// The form of a new endpoint, or of one that is changed.
function form(found) {
  const url = element("input", { type: "url", id: "url", required: true, placeholder: "https://example.com/webhooks", autocomplete: "off", value: found?.url });
  const description = element("input", { type: "text", id: "description", maxlength: "1000", autocomplete: "off", value: found?.description });
  const known = session.events.map((event) => event.name);
  const others = (found?.events ?? []).filter((name) => !known.includes(name)).map((name) => ({ name }));
  const boxes = [...session.events, ...others].map((event, at) => {
    const box = element("input", { type: "checkbox", id: `event-${at}`, value: event.name, checked: found?.events.includes(event.name) });
    const about = event.description ? element("span", { class: "muted" }, ` ${event.description}`) : null;
    return [box, element("label", { class: "tick", for: `event-${at}` }, box, element("span", {}, event.name, about))];
  });
  const send = element("button", { class: "main" }, found ? "Save" : "Add the endpoint");
  const made = element(
    "form",
    {},
    element("p", {}, element("label", { for: "url" }, "Address"), url),
    element("p", {}, element("label", { for: "description" }, "Description"), description),
    element("fieldset", {}, element("legend", {}, "Events"), element("p", { class: "muted small" }, "Without a choice, all of them are sent."), ...boxes.map(([, label]) => label)),
    element("div", { class: "row" }, send, found && element("a", { class: "button", href: `#/s/${found.id}` }, "Cancel")),
  );
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    try {
      const chosen = boxes.map(([box]) => box).filter((box) => box.checked);
      const body = { url: url.value, description: description.value, events: chosen.map((box) => box.value) };
      const { id } = await (found ? ask("PATCH", mine(found.id), body) : ask("POST", mine(), body));
      say(found ? "The endpoint is changed." : "The endpoint is added. Keep its secret, and send a test.");
      location.hash = `#/s/${id}`;
    } catch (error) {
      say(error.message);
    } finally {
      send.disabled = false;
    }
  });
  return [found ? `Change ${found.url}` : "Add an endpoint", made];
}

async function one(id) {
  const found = await ask("GET", mine(id));
  const again = () => show();
  const test = button("Send a test", async () => {
    const { id: task } = await ask("POST", mine(id, "test"));
    say("A test is on its way.");
    for (let tries = 0; tries < 20; tries += 1) {
      await new Promise((done) => setTimeout(done, 500));
      const sent = await ask("GET", mine(id, "deliveries", String(task)));
      if (!sent.attempt_log.length && !sent.finished_at) continue;
      say(sent.status === "succeeded" ? `The test arrived: ${sent.last_status_code}.` : `The test failed: ${sent.last_error ?? sent.last_status_code}`);
      if (location.hash === `#/s/${id}`) await show(false);
      return;
    }
  }, { class: "main" });
  const turn = button(found.enabled ? "Disable" : "Enable", async () => {
    await ask("PATCH", mine(id), { enabled: !found.enabled });
    say(found.enabled ? "Nothing is sent to it until you enable it. What it misses is kept." : "Events are sent to it again. Replay what it missed below.");
    await again();
  });
  const rotate = button("Rotate the secret", async () => {
    if (!confirm("Make a new secret? The present one signs as well for 24 hours.")) return;
    await ask("POST", mine(id, "rotate"));
    say("There is a new secret. The one before signs as well for 24 hours.");
    await again();
  });
  const remove = button("Remove", async () => {
    if (!confirm(`Remove ${found.url}? Deliveries that wait are not sent.`)) return;
    await ask("DELETE", mine(id));
    say("The endpoint is removed.");
    location.hash = "#/";
  });
  return [
    found.url,
    element("div", { class: "row" }, test, element("a", { class: "button", href: `#/edit/${id}` }, "Change"), turn, rotate, remove),
    facts(
      ["State", state(found)],
      ["Last success", when(found.last_success_at)],
      ["Last answer", found.last_status_code ?? "none"],
      ["Last error", found.last_error ?? "none"],
      ["Events", events(found)],
      ["Description", found.description || "none"],
      ...(found.too_costly ? [["Events whose filter took too many steps", String(found.too_costly)]] : []),
      ...(found.missed_deleted ? [["Missed, and not kept", String(found.missed_deleted)]] : []),
    ),
    element("h2", {}, "Signing secret"),
    secret(async () => (await ask("GET", mine(id, "secret"))).secret),
    element("p", { class: "small" }, element("a", { href: "#/verify" }, "How to verify a request")),
    ...replay(id),
    ...(await deliveries(id)),
  ];
}

function replay(id) {
  const since = element("select", { id: "since" }, ...[["1h", "the last hour"], ["1d", "the last day"], ["7d", "the last 7 days"], ["30d", "the last 30 days"]].map(([value, text]) => element("option", { value }, text)));
  const failed = element("input", { type: "checkbox", id: "failed", checked: true });
  const go = button("Replay", async () => {
    const begun = await ask("POST", mine(id, "replay"), { since: since.value, only_failed: failed.checked });
    say(`${begun.matched === 1 ? "1 delivery" : `${begun.matched} deliveries`} will be sent again.`);
  });
  return [
    element("h2", {}, "Replay"),
    element("div", { class: "row" }, element("label", { for: "since" }, "Deliveries of"), since, element("label", { for: "failed" }, failed, " only those that failed"), go),
  ];
}

async function deliveries(id) {
  const place = element("div");
  let status = "";
  const fill = async (after) => {
    const { retries: found, next } = await ask("GET", `${mine(id, "deliveries")}?limit=50&status=${status}${after ? `&after=${after}` : ""}`);
    const rows = found.map((sent) => [
      element("a", { href: `#/s/${id}/${sent.id}` }, String(sent.id)),
      sent.event,
      element("span", { class: { succeeded: "good", failed: "bad" }[sent.status] }, sent.status),
      String(sent.last_status_code ?? "–"),
      when(sent.created_at),
    ]);
    const heads = [["Delivery"], ["Event"], ["Status"], ["Answer", "wide"], ["Made", "wide"]];
    const more = next ? button("Older ones", () => fill(next)) : null;
    place.replaceChildren(found.length ? table("Deliveries", heads, rows) : element("p", { class: "muted" }, "There are none."), ...(more ? [element("p", {}, more)] : []));
  };
  const choice = element("select", { id: "status" }, ...["all", "failed", "pending", "succeeded"].map((value) => element("option", { value: value === "all" ? "" : value }, value)));
  choice.addEventListener("change", () => {
    status = choice.value;
    fill().catch((error) => say(error.message));
  });
  await fill();
  return [element("h2", {}, "Deliveries"), element("div", { class: "row" }, element("label", { for: "status" }, "Status"), choice, button("Look again", () => fill())), place];
}

async function delivery(id, task) {
  const sent = await ask("GET", mine(id, "deliveries", task));
  const retry = button("Retry", async () => {
    await ask("POST", mine(id, "deliveries", task, "retry"));
    say("It is sent again.");
    setTimeout(() => location.hash === `#/s/${id}/${task}` && show(false), 1500);
  }, { class: "main" });
  const answer = sent.response;
  const head = (answer?.headers ?? []).map(([name, value]) => `${name}: ${value}`);
  const log = sent.attempt_log.map((attempt) => [when(attempt.started_at), String(attempt.status_code ?? "–"), attempt.error ?? "", `${Math.round(attempt.duration_ms)} ms`]);
  return [
    `Delivery ${sent.id}`,
    element("p", {}, element("a", { href: `#/s/${id}` }, "Back to the endpoint")),
    element("div", { class: "row" }, ["pending", "running"].includes(sent.status) ? null : retry, button("Look again", () => show(false))),
    facts(
      ["Event", sent.event],
      ["Status", sent.reason ? `${sent.status}: ${sent.reason.replaceAll("_", " ")}` : sent.status],
      ["Made", when(sent.created_at)],
      ["Next attempt", sent.next_try ? when(sent.next_try) : "none"],
      ["Error", sent.last_error ?? "none"],
    ),
    element("h2", {}, "What was sent"),
    element("pre", { tabindex: "0" }, sent.payload ? pretty(sent.payload) : "nothing"),
    element("h2", {}, "What was answered"),
    element("pre", { tabindex: "0" }, answer ? [String(answer.status_code ?? sent.last_status_code ?? ""), ...head, "", answer.body ?? ""].join("\n") : "nothing"),
    element("h2", {}, "Attempts"),
    log.length ? table("Attempts", [["Begun"], ["Answer"], ["Error"], ["Took", "wide"]], log) : element("p", { class: "muted" }, "There was none."),
  ];
}

async function verify() {
  const languages = [["python", "Python"], ["node", "Node.js"], ["php", "PHP"], ["go", "Go"], ["ruby", "Ruby"]];
  const code = element("pre", { tabindex: "0", "aria-label": "Sample", class: "whole" });
  const choice = element("select", { id: "language" }, ...languages.map(([value, text]) => element("option", { value }, text)));
  const fill = async () => {
    code.textContent = await (await fetch(`verify/${choice.value}.txt`)).text();
  };
  choice.addEventListener("change", fill);
  await fill();
  return [
    "How to verify",
    element("p", {}, "Each request is signed with the secret of its endpoint, as Standard Webhooks says. Verify the signature over the body as it came, before you parse it. Deliveries come at least once: remember each webhook-id that you have carried out."),
    element("div", { class: "row" }, element("label", { for: "language" }, "Language"), choice),
    code,
  ];
}

// -- the frame --------------------------------------------------------------------------------------

async function view() {
  const [, page, id, task] = location.hash.split("/");
  if (page === "new") return form();
  if (page === "edit" && id) return form(await ask("GET", mine(id)));
  if (page === "verify") return verify();
  if (page === "s" && task) return delivery(id, task);
  if (page === "s" && id) return one(id);
  return list();
}

async function show(moved = true) {
  if (!session) return;
  shown += 1;
  const number = shown;
  let parts;
  try {
    parts = await view();
  } catch (error) {
    parts = ["This cannot be shown", element("p", {}, error.message), element("p", {}, element("a", { href: "#/" }, "All endpoints"))];
  }
  if (number !== shown || !session) return;
  const [title, ...rest] = parts;
  const heading = element("h1", { tabindex: "-1" }, title);
  main.replaceChildren(heading, ...rest);
  document.title = `${title} – ${document.getElementById("brand").textContent}`;
  for (const link of document.querySelectorAll("#pages a")) {
    if (link.getAttribute("href") === (location.hash || "#/")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (moved) heading.focus();
}

function begin(text) {
  shown += 1;
  document.getElementById("pages").hidden = true;
  main.replaceChildren(element("h1", {}, "Webhooks"), element("p", {}, text));
}

// White or black, whichever reads better on a colour.
function readable(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const part = parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}

async function start() {
  const token = location.hash.slice(1);
  if (!token || token.startsWith("/")) {
    begin("Open this page by the link that you were given. It is good for 15 minutes, and once.");
    return;
  }
  history.replaceState(null, "", "#/");
  try {
    session = await ask("POST", "session", { token });
  } catch (error) {
    begin(`This page cannot be opened: ${error.message}`);
    return;
  }
  document.documentElement.style.setProperty("--brand", session.portal.colour);
  document.documentElement.style.setProperty("--on-brand", readable(session.portal.colour));
  document.getElementById("brand").textContent = session.portal.name || "Webhooks";
  document.getElementById("tenant").textContent = session.name;
  document.getElementById("pages").hidden = false;
  await show();
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => {
  if (!session && !location.hash.startsWith("#/")) start();
  else show();
});
start();
