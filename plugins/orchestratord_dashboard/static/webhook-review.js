// The difference of the file, which is seen before it is written, and what became of it.

import { byId, element, listed } from "./webhook-parts.js";

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
// became of it. Gives that id, or null where somebody went back.
export function reviewed(file, diff, write) {
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
export function written(found) {
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
