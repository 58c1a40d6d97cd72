// Asking the API, and what becomes of a page whose session has ended.

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `the daemon answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

// The JSON of an answer; throws Refused for one that is no success.
export async function ask(method, address, body, headers = {}) {
  const options = { method, headers: { Accept: "application/json", ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Refused(0, { detail: "The daemon cannot be reached." });
  }
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401 && !logIn()) answer.detail = `${LOGGED_OUT}.`;
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

// Sessions end with the daemon. Whoever has something unsaved on the page is not sent away from it.
export const LOGGED_OUT = "You are logged out: log in again in another tab, and go on here";
let unsaved = () => false;

// `check` says whether something would be lost if this page were left.
export function guard(check) {
  unsaved = check;
}

// Go and log in, unless something would be lost; whether that was done.
export function logIn() {
  if (unsaved()) return false;
  location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
  return true;
}

// What is wrong, in a sentence for people.
export function why(error) {
  const errors = error.problem?.errors;
  if (!errors?.length) return error.message;
  return errors.map((one) => (one.key ? `${one.key}: ${one.message}` : one.message)).join("; ");
}
