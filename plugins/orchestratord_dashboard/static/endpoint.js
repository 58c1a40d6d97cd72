// One endpoint: calling it with the parameters of the form.

import { ask, exact, guard, say, why } from "./dashboard.js";

const form = document.getElementById("call-form");

function filled() {
  return [...form.querySelectorAll("[data-name]")].filter((field) => field.value !== "");
}

// What has a type is sent as it was typed, and read by the daemon. What has none is JSON, or else a
// text.
function given() {
  const params = {};
  const texts = {};
  for (const field of filled()) {
    const { name, type } = field.dataset;
    const json = parsed(field.value);
    if (["array", "object"].includes(type) && json instanceof Error) {
      throw new Error(`${name}: this is not JSON: ${json.message}`);
    }
    if ("whole" in field.dataset) return { params: json };
    if (type) texts[name] = field.value;
    else params[name] = json instanceof Error ? field.value : json;
  }
  return { params, text_params: texts };
}

function parsed(text) {
  try {
    return exact(text);
  } catch (error) {
    return error;
  }
}

async function call(event) {
  event.preventDefault();
  const wrong = document.getElementById("call-wrong");
  const button = form.querySelector("button.main");
  wrong.hidden = true;
  button.disabled = true;
  try {
    const delay = document.getElementById("delay").value.trim();
    const made = await ask("POST", form.dataset.post, { ...given(), ...(delay && { delay }) });
    say(`Task ${made.id} is on its way.`);
    location.assign(`/retries/${made.id}`);
  } catch (error) {
    wrong.textContent = why(error);
    wrong.hidden = false;
  }
  button.disabled = false;
}

if (form) {
  guard(() => filled().length > 0);
  form.addEventListener("submit", call);
}
