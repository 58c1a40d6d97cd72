// The file has changed while it was edited here.

import { byId, element, listed } from "./webhook-parts.js";

// Say what changed `there` and `here`, both in words. `take` takes the file as it is, `apply` makes
// the changes again to it, and gives in words what both have changed.
export function conflicted(there, here, take, apply) {
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
