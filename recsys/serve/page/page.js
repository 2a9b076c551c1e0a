"use strict";
const get = (id) => document.getElementById(id);
const [ask, kind, query, list, state, unlock, key] =
  ["ask", "kind", "query", "list", "status", "unlock", "key"].map(get);
let pending = null, timer = 0, secret = sessionStorage.getItem("key") || "";
const me = localStorage.getItem("me") || `page-${Math.random().toString(36).slice(2)}`;
localStorage.setItem("me", me);

async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (secret) headers.Authorization = `Bearer ${secret}`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  unlock.hidden = answer.status !== 401;
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function makeBody() {
  const typed = query.value.trim();
  if (kind.value === "mine") return { user: me, k: 10 };
  if (!typed) return null;
  if (kind.value === "history") {
    return { history: typed.split(",").map((id) => id.trim()).filter(Boolean), k: 10 };
  }
  return { [kind.value]: typed, k: 10 };
}

async function search() {
  pending?.abort();
  const body = makeBody();
  if (body === null) {
    list.replaceChildren();
    state.textContent = "Type what you look for.";
    return;
  }
  const own = (pending = new AbortController());
  try {
    const found = await post("/recommend", body, own.signal);
    list.replaceChildren(...found.items.map(makeRow));
    state.textContent = `${found.items.length} items`;
  } catch (error) {
    if (own.signal.aborted) return;
    list.replaceChildren();
    const alone = kind.value === "mine" && unlock.hidden;
    state.textContent = alone ? "Like something first." : error.message;
  }
}

// Titles are text of others: they are set as text, never read as HTML.
function makeRow(item) {
  const row = document.createElement("li");
  const title = document.createElement("span");
  title.className = "title";
  title.textContent = item.title || item.item;
  const score = document.createElement("span");
  score.className = "score";
  score.textContent = item.score.toFixed(3);
  row.append(title, score, makeButton(item, "like", "Like"), " ",
    makeButton(item, "dislike", "Dislike"), " ", makeWhy(item));
  return row;
}

function makeWhy(item) {
  const button = document.createElement("button");
  const { k, ...asked } = makeBody();
  button.type = "button";
  button.textContent = "Why";
  button.setAttribute("aria-label", `Why: ${item.title || item.item}`);
  button.addEventListener("click", async () => {
    const place = button.parentElement;
    const reason = place.querySelector(".why") || document.createElement("p");
    reason.className = "why";
    reason.setAttribute("role", "status");
    place.append(reason);
    try {
      const why = await post("/explain", { ...asked, item: item.item });
      reason.textContent = why.because || "No item of a history speaks for it.";
    } catch (error) {
      reason.textContent = error.message;
    }
  });
  return button;
}

function makeButton(item, event, word) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = word;
  button.setAttribute("aria-label", `${word}: ${item.title || item.item}`);
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", async () => {
    try {
      const user = kind.value === "user" ? query.value.trim() : me;
      await post("/feedback", { events: [{ user, item: item.item, event }] });
      for (const each of button.parentElement.querySelectorAll("[aria-pressed]")) {
        each.setAttribute("aria-pressed", String(each === button));
      }
      state.textContent = "Kept.";
    } catch (error) {
      state.textContent = error.message;
    }
  });
  return button;
}

query.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 150); });
kind.addEventListener("change", () => { query.disabled = kind.value === "mine"; search(); });
ask.addEventListener("submit", (event) => { event.preventDefault(); search(); });
unlock.addEventListener("submit", (event) => {
  event.preventDefault();
  secret = key.value.trim();
  sessionStorage.setItem("key", secret);
  search();
});
