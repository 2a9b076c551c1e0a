// What the pages share: how the service is asked, and its key.
"use strict";
export const get = (id) => document.getElementById(id);
let secret = sessionStorage.getItem("key") || "";

// The name under which feedback of this browser is kept.
export const me = localStorage.getItem("me") || `page-${Math.random().toString(36).slice(2)}`;
localStorage.setItem("me", me);

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (secret) headers.Authorization = `Bearer ${secret}`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  get("unlock").hidden = answer.status !== 401;
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.error), { status: answer.status });
  return content;
}

export function readIds(text) {
  return text.split(",").map((id) => id.trim()).filter(Boolean);
}

// Titles are text of others: they are set as text, never read as HTML.
export function make(kind, text, attributes = {}) {
  const element = document.createElement(kind);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export function makeButton(text, label, act) {
  const button = make("button", text, { type: "button", "aria-label": label });
  button.addEventListener("click", () => act(button));
  return button;
}

export function askAgainWithKey(again) {
  get("unlock").addEventListener("submit", (event) => {
    event.preventDefault();
    secret = get("key").value.trim();
    sessionStorage.setItem("key", secret);
    again();
  });
}
