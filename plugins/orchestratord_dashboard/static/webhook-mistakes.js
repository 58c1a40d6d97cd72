// What is wrong with the list of webhooks: beside the fields, and all of it above them.

import { byId, element } from "./webhook-parts.js";

// Say these problems of the daemon's, and what the forms could not read. `file` is the endpoint's own.
// Forms that have only just been begun are not complained of.
export function complain(forms, problems, file) {
  for (const one of forms) one.clear();
  const told = [...problems];
  for (const one of forms) if (one.unreadable) told.push({ one, key: "payload", message: one.unreadable });
  const lines = told.map((problem) => line(forms, problem, file)).filter(Boolean);
  for (const one of forms) one.show();
  byId("mistakes").replaceChildren();
  const number = lines.length;
  if (!number) return;
  const list = element("ul");
  list.append(...lines);
  const note = element("section", "", "note bad");
  note.setAttribute("aria-label", "What is wrong");
  note.append(element("strong", number === 1 ? "It cannot be written like this:" : `It cannot be written like this, for ${number} reasons:`), list);
  byId("mistakes").append(note);
  byId("state").textContent = number === 1 ? "1 mistake" : `${number} mistakes`;
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
  const input = problem.one ? one.field("payload").querySelector("textarea") : one.complain(key || "name", problem.message);
  const link = element("a", `${one.name || "a new webhook"}${key || problem.one ? `, ${key || problem.key}` : ""}`);
  link.href = `#${input.id || ""}`;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    one.reveal(input);
  });
  made.append(link, `: ${problem.message}`);
  return made;
}
