// Times as people say them, which stay true while a page is open.

const UNITS = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];

function duration(seconds) {
  const parts = [];
  let left = Math.round(seconds);
  for (const [unit, size] of UNITS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count || parts.length) parts.push(count ? `${count}${unit}` : "");
  }
  return parts.slice(0, 2).filter(Boolean).join(" ") || "0s";
}

// The clocks of the daemon and of the browser need not agree.
const served = Number(document.documentElement.dataset.now) || Date.now();
const skew = served - Date.now();

export function tell() {
  const now = Date.now() + skew;
  for (const time of document.querySelectorAll("time[data-when]")) {
    const away = (Date.parse(time.dateTime) - now) / 1000;
    const text = away > 0.5 ? `in ${duration(Math.max(away, 1))}` : `${duration(Math.max(-away, 1))} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
}
