// Make one element like another, and touch nothing that is alike: what has the focus, what is
// opened, ticked or selected stays so.
export function morph(old, fresh) {
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
