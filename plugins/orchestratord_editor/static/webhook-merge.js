// What differs between two lists of webhooks, and how changes to one are made to another one.

export function same(one, other) {
  return canonical(one) === canonical(other);
}

function canonical(value) {
  return JSON.stringify(value, (_, inner) =>
    inner && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

function words(value) {
  if (value === undefined) return "nothing";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function keysOf(...items) {
  return [...new Set(items.flatMap((item) => Object.keys(item)))];
}

// In words, how `after` differs from `before`. Each is a list of {name, item}; those of `after`
// have `from`, the place in `before` that they come from, or null.
export function differences(before, after) {
  const told = [];
  const left = new Set(before.keys());
  for (const { name, item, from } of after) {
    if (from === null) {
      told.push(`${name}: added`);
      continue;
    }
    left.delete(from);
    const old = before[from].item;
    for (const key of keysOf(old, item)) {
      if (same(old[key], item[key])) continue;
      told.push(`${before[from].name}: ${key} is ${words(item[key])}, was ${words(old[key])}`);
    }
  }
  for (const index of left) told.push(`${before[index].name}: removed`);
  const order = after.map((one) => one.from).filter((from) => from !== null);
  if (order.some((from, index) => index > 0 && from < order[index - 1])) told.push("another order");
  return told;
}

// Where the webhooks of `after` come from in `before`: the same name, or much the same otherwise.
export function traced(before, after) {
  const free = new Set(before.keys());
  const found = after.map(({ name }) => {
    for (const index of free) {
      if (before[index].name === name) return free.delete(index) && index;
    }
    return null;
  });
  return after.map((one, place) => {
    if (found[place] !== null) return { ...one, from: found[place] };
    for (const index of free) {
      const old = before[index].item;
      const keys = keysOf(old, one.item);
      const alike = keys.filter((key) => same(old[key], one.item[key])).length;
      if (2 * alike >= keys.length && free.delete(index)) return { ...one, from: index };
    }
    return { ...one, from: null };
  });
}

// `mine` and `theirs` both come from `base`. Gives theirs with my changes made to it, as items with
// `from` (a place in theirs, or null), and in words where both changed the same.
export function reapplied(base, mine, theirs) {
  const clashes = [];
  const where = new Map();
  theirs.forEach((one, index) => one.from !== null && where.set(one.from, index));
  const result = [];
  const used = new Set();
  for (const one of mine) {
    if (one.from === null) {
      result.push({ item: one.item, from: null });
      continue;
    }
    const old = base[one.from];
    const index = where.get(one.from);
    if (index === undefined) {
      if (same(one.item, old.item)) continue;
      clashes.push(`${old.name} was removed there, and changed here: it is added again`);
      result.push({ item: one.item, from: null });
      continue;
    }
    used.add(index);
    const item = structuredClone(theirs[index].item);
    for (const key of keysOf(old.item, one.item)) {
      if (same(one.item[key], old.item[key])) continue;
      const there = theirs[index].item[key];
      if (!same(there, old.item[key]) && !same(there, one.item[key])) {
        clashes.push(`${old.name}: ${key} was changed there to ${words(there)}: yours is kept`);
      }
      if (one.item[key] === undefined) delete item[key];
      else item[key] = one.item[key];
    }
    result.push({ item, from: index });
  }
  const kept = new Set(mine.map((one) => one.from));
  theirs.forEach((one, index) => {
    if (used.has(index)) return;
    if (one.from === null) {
      result.push({ item: one.item, from: index });
    } else if (!kept.has(one.from) && !same(one.item, base[one.from].item)) {
      clashes.push(`${one.name} was changed there, and removed here: it is removed`);
    }
  });
  return { items: result, clashes };
}
