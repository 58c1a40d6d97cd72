// What the scripts of the editor of webhooks have in common.

export const byId = (id) => document.getElementById(id);
export const { endpoint } = byId("editor").dataset;
export const address = `/v1/endpoints/${endpoint}/webhooks`;

export function element(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// A list in words; each line may hold elements.
export function listed(lines, kind = "", each = "") {
  const list = element("ul", "", kind);
  for (const line of lines) {
    const item = element("li", "", each);
    item.append(line);
    list.append(item);
  }
  return list;
}
