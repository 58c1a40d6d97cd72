// Keys: `?` lists them, and switches the others off for who dictates or types with a switch.

const KEYS = [
  ["/", "search this page, or the tasks"],
  ["j", "go to the next row"],
  ["k", "go to the row before"],
  ["r", "retry this task, or the task of the row"],
  ["?", "show this list"],
];
const TYPING = "input:not([type=checkbox]), textarea, select, dialog";

function step(by) {
  const links = [...document.querySelectorAll("main tbody tr")]
    .map((row) => row.querySelector("th a, a"))
    .filter(Boolean);
  const at = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
  links[Math.min(Math.max(at + by, 0), links.length - 1)]?.focus();
}

function search() {
  const field = document.querySelector("main input[type=search]");
  if (field) field.select();
  else location.assign("/retries");
}

function retry() {
  const box = document.activeElement.closest("tbody tr")?.querySelector("input[type=checkbox]");
  if (!box) return document.querySelector("main button[data-key=retry]")?.click();
  if (!box.checked) box.click();
  return document.querySelector("[data-many=retry][data-scope=selected]")?.click();
}

function help() {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "keys");
  const rows = KEYS.map(([key, what]) => `<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`).join("");
  dialog.innerHTML = `<form method="dialog"><h2 id="keys">Keys</h2><dl class="keys">${rows}</dl>
    <label><input type="checkbox"> Use these keys</label>
    <div class="buttons"><button class="main">Back</button></div></form>`;
  const use = dialog.querySelector("input");
  use.checked = localStorage.keys !== "off";
  use.addEventListener("change", () => (localStorage.keys = use.checked ? "on" : "off"));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

const ACTIONS = { "/": search, j: () => step(1), k: () => step(-1), r: retry, "?": help };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // A dialog that has just closed keeps the focus until the page is drawn again.
  if (event.target.closest(TYPING) && !event.target.closest("dialog:not([open])")) return;
  if (!Object.hasOwn(ACTIONS, event.key) || (event.key !== "?" && localStorage.keys === "off")) return;
  event.preventDefault();
  ACTIONS[event.key]();
});
