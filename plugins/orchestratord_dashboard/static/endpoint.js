// One endpoint: calling it with the parameters of the form.

import { ask, say, why } from "./dashboard.js";

const form = document.getElementById("call-form");

function value(field) {
  const text = field.value;
  switch (field.dataset.type) {
    case "integer":
    case "number":
      return Number(text);
    case "boolean":
      return text === "true";
    case "array":
    case "object":
      return parsed(field, text);
    case "string":
      return text;
    default:
      try {
        return JSON.parse(text);
      } catch {
        return text;
      }
  }
}

function parsed(field, text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${field.dataset.name}: this is not JSON: ${error.message}`);
  }
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const wrong = document.getElementById("call-wrong");
  const button = form.querySelector("button.main");
  wrong.hidden = true;
  button.disabled = true;
  try {
    const params = {};
    for (const field of form.querySelectorAll("[data-name]")) {
      if (field.value !== "") params[field.dataset.name] = value(field);
    }
    const delay = document.getElementById("delay").value.trim();
    const made = await ask("POST", form.dataset.post, { params, ...(delay && { delay }) });
    say(`Task ${made.id} is on its way.`);
    location.assign(`/retries/${made.id}`);
  } catch (error) {
    wrong.textContent = why(error);
    wrong.hidden = false;
  }
  button.disabled = false;
});
