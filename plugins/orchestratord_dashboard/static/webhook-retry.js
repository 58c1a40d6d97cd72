// The fields of a webhook's `retry`.

import { codes, joined, listed, typed } from "./webhook-values.js";

const SIMPLE = ["max_attempts", "max_delay", "jitter"];
const EVERY = ["delay", "factor", "delays"];
const OPTIONS = { fixed: ["delay"], linear: ["delay"], exponential: ["delay", "factor"], list: ["delays"] };

function backoffOf(retry) {
  return typeof retry.backoff === "string" ? { strategy: retry.backoff } : (retry.backoff ?? {});
}

export function fillRetry(form) {
  const retry = form.item.retry ?? {};
  for (const key of SIMPLE) form.input(`retry.${key}`).value = retry[key] ?? "";
  form.input("retry.when").value = joined(retry.when);
  const backoff = backoffOf(retry);
  const select = form.input("retry.backoff");
  if (backoff.strategy && ![...select.options].some((one) => one.value === backoff.strategy)) {
    select.append(new Option(backoff.strategy));
  }
  select.value = backoff.strategy ?? "";
  for (const key of EVERY) form.input(`retry.backoff.${key}`).value = joined(backoff[key]);
}

// Only the options of the strategy that is chosen.
export function optionsShown(form) {
  const known = OPTIONS[form.input("retry.backoff").value] ?? [];
  for (const key of EVERY) form.field(`retry.backoff.${key}`).hidden = !known.includes(key);
}

// What the fields say; undefined where they say nothing. A strategy without fields stays as it is.
export function takeRetry(form) {
  const retry = { ...form.item.retry };
  const set = (key, value) => (value === "" || value === undefined ? delete retry[key] : (retry[key] = value));
  for (const key of SIMPLE) set(key, typed(form.input(`retry.${key}`).value, retry[key]));
  set("when", codes(form.input("retry.when").value, retry.when));
  const strategy = form.input("retry.backoff").value;
  if (!strategy) delete retry.backoff;
  else if (strategy in OPTIONS) {
    const old = backoffOf(retry);
    const backoff = { strategy };
    for (const key of OPTIONS[strategy]) {
      const text = form.input(`retry.backoff.${key}`).value;
      if (text) backoff[key] = key === "delays" ? listed(text).map((one, i) => typed(one, old.delays?.[i])) : typed(text, old[key]);
    }
    retry.backoff = Object.keys(backoff).length > 1 ? backoff : strategy;
  }
  return Object.keys(retry).length ? retry : undefined;
}
