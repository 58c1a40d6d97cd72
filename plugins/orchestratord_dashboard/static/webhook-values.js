// Texts of fields, and the values of keys that they stand for.

// A text as its key takes it: a number where one is meant, and where one stood.
export function typed(text, old) {
  if (typeof old === "number" && String(old) === text) return old;
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}

export function listed(text) {
  return text.split(",").map((part) => part.trim()).filter(Boolean);
}

export function joined(value) {
  return value === undefined || value === null ? "" : [value].flat().join(", ");
}

// Status codes: one alone as it is, unless a list stood there.
export function codes(text, old) {
  const found = listed(text).map((code) => {
    if ([old].flat().includes(code)) return code;
    return /^\d{3}$/.test(code) ? Number(code) : code;
  });
  return found.length > 1 || (found.length && Array.isArray(old)) ? found : found[0];
}
