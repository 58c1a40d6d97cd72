// The form of one webhook. It changes the webhook as it stands in the file, key by key, so that keys
// without a field of their own stay.

let count = 0;

const SIMPLE = ["name", "phase", "url", "subscribers", "when", "timeout", "disable_after"];
const DURATIONS = ["timeout", "disable_after"];
const DEFAULTS = { timeout: "15s", disable_after: "never" };
const ORDER = ["name", "phase", "status_code", "when", "url", "subscribers", "secret", "auth", "headers", "payload", "include", "timeout", "retry", "partition", "batch", "disable_after", "keep_missed", "enabled"];

const RETRY_KEYS = ["max_attempts", "max_delay", "jitter", "if"];
const BATCH_KEYS = ["every", "max"];
const MISSED_KEYS = ["for", "max"];
const BACKOFF_KEYS = ["delay", "factor", "delays"];
const BACKOFF_OF = { fixed: ["delay"], linear: ["delay"], exponential: ["delay", "factor"], list: ["delays"] };

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export class Form {
  // `item`: the webhook; `from`: its place in the list that was read, or null; `changed` is called
  // after each change.
  constructor(item, from, changed) {
    this.item = item;
    this.auth = item.auth; // as it was read
    this.from = from;
    this.fresh = from === null && !item.url && !item.subscribers; // too new for its problems to be shown
    this.references = [];
    this.inherited = null;
    this.name = item.name ?? "";
    this.changed = changed;
    this.element = document.getElementById("hook-form").content.firstElementChild.cloneNode(true);
    this.details = this.element.querySelector("details");
    this.number = ++count;
    this.wire();
    this.fill();
  }

  field(key) {
    return this.element.querySelector(`[data-key="${key}"]`);
  }

  input(key) {
    return this.field(key).querySelector("input, select, textarea");
  }

  button(name) {
    return this.element.querySelector(`[data-do="${name}"]`);
  }

  // -- ids, labels, listeners ---------------------------------------------------------------------

  wire() {
    for (const field of this.element.querySelectorAll("[data-key]")) {
      const id = `hook-${this.number}-${field.dataset.key.replaceAll(".", "-")}`;
      const hint = field.querySelector(":scope > .hint");
      if (hint) hint.id = `${id}-hint`;
      const wrong = element("p", { class: "wrong", id: `${id}-wrong`, hidden: true });
      field.append(wrong);
      const label = field.querySelector(":scope > label");
      const input = label && field.querySelector(":scope > input, :scope > select");
      if (!input) continue;
      input.id = id;
      label.htmlFor = id;
      if (hint) input.setAttribute("aria-describedby", hint.id);
    }
    const payload = this.field("payload");
    payload.querySelector("textarea").id = `hook-${this.number}-payload`;
    payload.querySelector("label.unseen").htmlFor = `hook-${this.number}-payload`;
    for (const radio of payload.querySelectorAll("[type=radio]")) radio.name = `payload-${this.number}`;
    this.element.addEventListener("input", (event) => this.take(event.target));
    this.element.addEventListener("change", (event) => {
      if (event.target.matches("select, [type=radio], [type=checkbox]")) this.take(event.target);
    });
    this.button("header").addEventListener("click", () => this.addHeader("", "", true));
  }

  // -- from the webhook to the form ---------------------------------------------------------------

  fill() {
    const { item } = this;
    for (const key of SIMPLE) this.input(key).value = item[key] ?? "";
    this.input("status_code").value = joined(item.status_code);
    this.input("enabled").checked = item.enabled !== false;
    this.fillSecrets();
    this.field("headers").querySelector(".rows").replaceChildren();
    for (const [name, value] of Object.entries(item.headers ?? {})) this.addHeader(name, value);
    const kind = item.payload === undefined || item.payload === null ? "standard" : typeof item.payload === "string" ? "text" : "json";
    this.field("payload").querySelector(`[value=${kind}]`).checked = true;
    this.field("payload").querySelector("textarea").value =
      kind === "json" ? JSON.stringify(item.payload, null, 2) : (item.payload ?? "");
    for (const box of this.field("include").querySelectorAll("input")) {
      box.checked = !item.include || item.include.includes(box.value);
    }
    fillRetry(this);
    fillPartition(this);
    fillBatch(this);
    for (const key of MISSED_KEYS) this.input(`keep_missed.${key}`).value = item.keep_missed?.[key] ?? "";
    this.show();
  }

  // What the form says of itself, beside the fields' own values.
  show() {
    const { item } = this;
    const at = (key) => item[key] ?? this.inherited?.[key];
    this.element.querySelector(".name").textContent = this.name || "a new webhook";
    const codes = joined(at("status_code"));
    const host = /^https?:\/\/([^/?#]*)/i.exec(at("url") ?? "")?.[1] ?? at("url") ?? (at("subscribers") ? "subscribers" : "");
    const what = [at("phase"), codes && `on ${codes}`, host && `to ${host}`].filter(Boolean);
    this.element.querySelector(".what").textContent = what.join(" ");
    const before = (at("phase") ?? "").startsWith("before_");
    this.input("status_code").disabled = before && !item.status_code;
    const standard = this.payloadKind() === "standard";
    this.field("payload").querySelector(".own").hidden = standard;
    this.field("include").hidden = !standard;
    optionsShown(this);
    const partition = ruleOf(item.partition);
    this.field("partition.ordered").hidden = !partition.by;
    this.field("partition.concurrency").hidden = !partition.by || partition.ordered === true;
    for (const key of BATCH_KEYS) this.field(`batch.${key}`).hidden = !this.input("batch").value;
    const overrides = this.element.querySelector(".overrides");
    overrides.hidden = !this.inherited;
    if (this.inherited) overrides.textContent = `Overrides the one of ${this.origin}: what is left empty here comes from there.`;
    for (const key of [...SIMPLE, "status_code"]) {
      if (key === "phase") {
        this.input(key).options[0].textContent = this.inherited?.phase ?? "–";
      } else if (key !== "name") {
        this.input(key).placeholder = joined(this.inherited?.[key]) || (DEFAULTS[key] ?? "");
      }
    }
    const marks = [];
    if (item.enabled === false) marks.push("switched off");
    if (this.disabled) marks.push(`disabled: ${this.disabled}`);
    if (this.problems) marks.push(this.problems === 1 ? "1 problem" : `${this.problems} problems`);
    this.element.querySelector(".marks").replaceChildren(
      ...marks.map((text) => element("span", { class: "mark" }, text)),
    );
  }

  payloadKind() {
    return this.field("payload").querySelector("[type=radio]:checked").value;
  }

  // Secrets are references that stand at this address already, or what is written out in the file.
  fillSecrets() {
    const place = this.field("secret").querySelector(".secrets");
    const given = [this.item.secret ?? []].flat();
    const usable = this.references.filter((one) => !given.includes(one));
    const shown = usable.length || !given.length ? [...given, ""] : given;
    const focused = [...place.children].findIndex((one) => one.contains(document.activeElement));
    place.replaceChildren(
      ...shown.map((value, index) => {
        const select = element("select", { "aria-label": index ? `Secret ${index + 1}, while it is rotated` : "Secret" });
        const none = this.inherited?.secret !== undefined && !index ? "as inherited" : index ? "no other" : "none: not signed";
        select.append(new Option(none, ""));
        const choices = value ? [value, ...usable] : usable;
        for (const one of choices) select.append(new Option(one === "***" ? "*** (written out in the file)" : one, one));
        select.value = value;
        return select;
      }),
    );
    if (focused >= 0) place.children[Math.min(focused, place.children.length - 1)]?.focus();
    this.field("secret").querySelector(".hint").textContent =
      this.references.length || given.length
        ? "References that stand at this scheme, host and port already; the newest first, while one is rotated."
        : "No reference stands at this scheme, host and port yet. Add the first one to the file manually.";
    this.fillAuth();
  }

  fillAuth() {
    const written = (auth) => (auth ? JSON.stringify(auth) : "");
    const ways = new Map(this.references.map((one) => [written({ bearer: one }), `bearer ${one}`]));
    for (const auth of [this.auth, this.item.auth]) {
      if (auth && !ways.has(written(auth))) ways.set(written(auth), `${Object.keys(auth).join()}, as it stands in the file`);
    }
    const select = this.input("auth");
    const none = new Option(this.inherited?.auth ? "as inherited" : "nothing", "");
    select.replaceChildren(none, ...[...ways].map(([value, text]) => new Option(text, value)));
    select.value = written(this.item.auth);
  }

  addHeader(name, value, focus = false) {
    const rows = this.field("headers").querySelector(".rows");
    const label = element("input", { "aria-label": "Name of a header", value: name, autocomplete: "off", spellcheck: "false" });
    const content = element("input", { "aria-label": `Value of ${name || "the header"}`, value: String(value), autocomplete: "off", spellcheck: "false" });
    if (value === "***") content.title = "written out in the file; *** keeps it";
    const remove = element("button", { type: "button", class: "small", "aria-label": `Remove ${name || "the header"}` }, "Remove");
    const row = element("div", { class: "row" }, label, content, remove);
    row.dataset.value = JSON.stringify(value);
    remove.addEventListener("click", () => {
      row.remove();
      this.button("header").focus();
      this.takeHeaders();
      this.told();
    });
    rows.append(row);
    if (focus) label.focus();
  }

  // -- from the form to the webhook ---------------------------------------------------------------

  take(input) {
    const key = input.closest("[data-key]")?.dataset.key;
    if (!key) return;
    if (key === "url" || key === "subscribers") this.fresh = false;
    if (SIMPLE.includes(key)) this.put(key, DURATIONS.includes(key) ? typed(input.value, this.item[key]) : input.value);
    else if (key === "status_code") this.put(key, codes(input.value, this.item.status_code));
    else if (key === "enabled") this.put(key, input.checked ? (this.item.enabled === undefined && !this.inherited ? "" : true) : false);
    else if (key === "secret") this.takeSecrets();
    else if (key === "auth") this.put("auth", input.value && JSON.parse(input.value));
    else if (key === "headers") this.takeHeaders();
    else if (key === "payload") this.takePayload(input);
    else if (key === "include") this.takeInclude();
    else if (key.startsWith("retry")) this.put("retry", takeRetry(this));
    else if (key.startsWith("partition")) this.put("partition", takePartition(this));
    else if (key.startsWith("batch")) this.put("batch", takeBatch(this, input));
    else if (key.startsWith("keep_missed")) this.put("keep_missed", kept(this));
    this.told();
  }

  told() {
    this.show();
    this.changed(this);
  }

  put(key, value) {
    if (value === "" || value === undefined) delete this.item[key];
    else this.keep(key, value);
  }

  keep(key, value) {
    this.item[key] = value;
    if (this.from !== null) return; // the file keeps the order that it has
    const order = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
    this.item = Object.fromEntries(Object.entries(this.item).sort(([a], [b]) => order(a) - order(b)));
  }

  takeSecrets() {
    const values = [...this.field("secret").querySelectorAll("select")].map((one) => one.value).filter(Boolean);
    this.put("secret", values.length > 1 || (values.length && Array.isArray(this.item.secret)) ? values : values[0]);
    this.fillSecrets();
  }

  takeHeaders() {
    const headers = {};
    for (const row of this.field("headers").querySelectorAll(".row")) {
      const [name, content] = row.querySelectorAll("input");
      const old = JSON.parse(row.dataset.value);
      if (name.value) headers[name.value] = String(old) === content.value ? old : content.value;
      content.setAttribute("aria-label", `Value of ${name.value || "the header"}`);
    }
    this.put("headers", Object.keys(headers).length || this.item.headers === null ? headers : undefined);
  }

  takePayload(input) {
    const text = this.field("payload").querySelector("textarea");
    const kind = this.payloadKind();
    if (input.type === "radio" && kind === "json" && !text.value.trim()) text.value = '{\n  "text": "{{ endpoint }}: {{ status_code }}"\n}';
    this.unreadable = "";
    if (kind === "standard") this.put("payload", undefined);
    else if (kind === "text") this.keep("payload", text.value);
    else {
      try {
        this.keep("payload", JSON.parse(text.value));
      } catch (error) {
        this.unreadable = `This is not JSON: ${error.message}`;
      }
    }
    if (kind !== "standard") delete this.item.include;
    this.markProblem("payload", this.unreadable);
  }

  takeInclude() {
    const boxes = [...this.field("include").querySelectorAll("input")];
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    this.put("include", chosen.length === boxes.length ? undefined : chosen);
  }

  // The webhook for a second time. What is written out in the file can be kept where it is, and not be
  // written once more.
  copied() {
    const item = structuredClone(this.item);
    if (this.name) item.name = `${this.name}-copy`;
    else delete item.name;
    if ([item.secret].flat().includes("***")) delete item.secret;
    if (JSON.stringify(item.auth ?? "").includes('"***"')) delete item.auth;
    for (const [name, value] of Object.entries(item.headers ?? {})) if (value === "***") delete item.headers[name];
    return item;
  }

  // -- what is wrong ------------------------------------------------------------------------------

  clear() {
    this.problems = 0;
    for (const wrong of this.element.querySelectorAll(".wrong")) wrong.hidden = true;
    for (const input of this.element.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    if (this.unreadable) this.markProblem("payload", this.unreadable);
  }

  // Show what is wrong beside the field of a key such as `retry.backoff`; the input to go to.
  markProblem(key, text) {
    let field = null;
    for (let path = key; path && !(field = this.field(path)); path = path.slice(0, Math.max(path.lastIndexOf("."), 0)));
    field ??= this.field("name");
    const wrong = field.querySelector(":scope > .wrong");
    const input = this.inputOf(field, key);
    wrong.textContent = text && !wrong.hidden && wrong.textContent !== text ? `${wrong.textContent}; ${text}` : text;
    wrong.hidden = !text;
    if (text) {
      this.problems += 1;
      input.setAttribute("aria-invalid", "true");
    } else input.removeAttribute("aria-invalid");
    const hint = field.querySelector(":scope > .hint");
    input.setAttribute("aria-describedby", [hint?.id, text && wrong.id].filter(Boolean).join(" "));
    return input;
  }

  inputOf(field, key) {
    if (key.startsWith("payload")) return field.querySelector("textarea");
    for (const row of field.querySelectorAll(".row")) {
      const [name, content] = row.querySelectorAll("input");
      if (key === `headers.${name.value}`) return content;
    }
    return field.querySelector("input, select, textarea") ?? this.button("header");
  }

  // Open whatever an element stands in, and go to it.
  reveal(input) {
    for (let place = input.closest("details"); place; place = place.parentElement.closest("details")) place.open = true;
    input.focus();
  }
}

// -- the fields of `retry` ------------------------------------------------------------------------

function backoffOf(retry) {
  return typeof retry.backoff === "string" ? { strategy: retry.backoff } : (retry.backoff ?? {});
}

function fillRetry(form) {
  const retry = form.item.retry ?? {};
  for (const key of RETRY_KEYS) form.input(`retry.${key}`).value = retry[key] ?? "";
  form.input("retry.when").value = joined(retry.when);
  const backoff = backoffOf(retry);
  const select = form.input("retry.backoff");
  if (backoff.strategy && ![...select.options].some((one) => one.value === backoff.strategy)) {
    select.append(new Option(backoff.strategy));
  }
  select.value = backoff.strategy ?? "";
  for (const key of BACKOFF_KEYS) form.input(`retry.backoff.${key}`).value = joined(backoff[key]);
}

// Only the options of the strategy that is chosen.
function optionsShown(form) {
  const known = BACKOFF_OF[form.input("retry.backoff").value] ?? [];
  for (const key of BACKOFF_KEYS) form.field(`retry.backoff.${key}`).hidden = !known.includes(key);
}

// What the fields say; undefined where they say nothing. A strategy without fields stays as it is.
function takeRetry(form) {
  const retry = { ...form.item.retry };
  const set = (key, value) => (value === "" || value === undefined ? delete retry[key] : (retry[key] = value));
  for (const key of RETRY_KEYS) set(key, typed(form.input(`retry.${key}`).value, retry[key]));
  set("when", codes(form.input("retry.when").value, retry.when));
  const strategy = form.input("retry.backoff").value;
  if (!strategy) delete retry.backoff;
  else if (strategy in BACKOFF_OF) {
    const old = backoffOf(retry);
    const backoff = { strategy };
    for (const key of BACKOFF_OF[strategy]) {
      const text = form.input(`retry.backoff.${key}`).value;
      if (text) backoff[key] = key === "delays" ? listed(text).map((one, i) => typed(one, old.delays?.[i])) : typed(text, old[key]);
    }
    retry.backoff = Object.keys(backoff).length > 1 ? backoff : strategy;
  }
  return Object.keys(retry).length ? retry : undefined;
}

// -- the fields of `partition` --------------------------------------------------------------------

function ruleOf(partition) {
  return typeof partition === "string" ? { by: partition } : (partition ?? {});
}

function fillPartition(form) {
  const rule = ruleOf(form.item.partition);
  form.input("partition.by").value = rule.by ?? "";
  form.input("partition.ordered").value = rule.ordered ? (rule.on_failure ?? "continue") : "";
  form.input("partition.concurrency").value = rule.concurrency ?? "";
}

// A text where there is nothing but the template, unless a mapping stood there. Without the template
// there are no partitions.
function takePartition(form) {
  const old = form.item.partition;
  const rule = { ...ruleOf(old) };
  const text = form.input("partition.by").value;
  if (!text) return undefined;
  rule.by = text;
  const ordered = form.input("partition.ordered").value;
  if (ordered) {
    rule.ordered = true;
    if (ordered === "hold" || rule.on_failure) rule.on_failure = ordered;
    delete rule.concurrency;
  } else {
    if (rule.ordered) delete rule.ordered;
    delete rule.on_failure;
    const concurrency = form.input("partition.concurrency").value;
    if (concurrency) rule.concurrency = typed(concurrency, rule.concurrency);
    else delete rule.concurrency;
  }
  return Object.keys(rule).length > 1 || typeof old === "object" ? rule : text;
}

// -- the fields of `batch` ------------------------------------------------------------------------

function fillBatch(form) {
  const { batch } = form.item;
  form.input("batch").value = batch ? "batch" : "";
  for (const key of BATCH_KEYS) form.input(`batch.${key}`).value = batch?.[key] ?? "";
}

// Switched on it begins with the default, so that the file says when a batch closes.
function takeBatch(form, input) {
  if (!form.input("batch").value) return undefined;
  const every = form.input("batch.every");
  if (input === form.input("batch") && !form.item.batch && !every.value) every.value = every.placeholder;
  return taken(form, "batch", BATCH_KEYS);
}

// A mapping with what the fields of these keys of it say.
function taken(form, name, keys) {
  const found = { ...form.item[name] };
  for (const key of keys) {
    const text = form.input(`${name}.${key}`).value;
    if (text) found[key] = typed(text, found[key]);
    else delete found[key];
  }
  return found;
}

// Without its keys it is left out.
function kept(form) {
  const found = taken(form, "keep_missed", MISSED_KEYS);
  return Object.keys(found).length ? found : undefined;
}

// -- texts of fields, and the values of keys that they stand for ----------------------------------

// A text as its key takes it: a number where one is meant, and where one stood.
function typed(text, old) {
  if (typeof old === "number" && String(old) === text) return old;
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}

function listed(text) {
  return text.split(",").map((part) => part.trim()).filter(Boolean);
}

function joined(value) {
  return value === undefined || value === null ? "" : [value].flat().join(", ");
}

// Status codes: one alone as it is, unless a list stood there.
function codes(text, old) {
  const found = listed(text).map((code) => {
    if ([old].flat().includes(code)) return code;
    return /^\d{3}$/.test(code) ? Number(code) : code;
  });
  return found.length > 1 || (found.length && Array.isArray(old)) ? found : found[0];
}
