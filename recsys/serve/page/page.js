"use strict";
import { askAgainWithKey, get, make, makeButton, me, post, readIds } from "/shared.js";
const [ask, kind, query, list, state, unlock] =
  ["ask", "kind", "query", "list", "status", "unlock"].map(get);
let pending = null, timer = 0;

function makeBody() {
  const typed = query.value.trim();
  if (kind.value === "mine") return { user: me, k: 10 };
  if (!typed) return null;
  if (kind.value === "history") return { history: readIds(typed), k: 10 };
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

function makeRow(item) {
  const row = document.createElement("li");
  const title = make("span", item.title || item.item, { class: "title" });
  const score = make("span", item.score.toFixed(3), { class: "score" });
  row.append(title, score, makeOpinion(item, "like", "Like"), " ",
    makeOpinion(item, "dislike", "Dislike"), " ", makeWhy(item));
  return row;
}

function makeWhy(item) {
  const { k, ...asked } = makeBody();
  return makeButton("Why", `Why: ${item.title || item.item}`, async (button) => {
    const place = button.parentElement;
    const reason = place.querySelector(".why") || make("p", "", { class: "why", role: "status" });
    place.append(reason);
    try {
      const why = await post("/explain", { ...asked, item: item.item });
      reason.textContent = why.because || "No item of a history speaks for it.";
    } catch (error) {
      reason.textContent = error.message;
    }
  });
}

function makeOpinion(item, event, word) {
  const own = makeButton(word, `${word}: ${item.title || item.item}`, async (button) => {
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
  own.setAttribute("aria-pressed", "false");
  return own;
}

query.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 150); });
kind.addEventListener("change", () => { query.disabled = kind.value === "mine"; search(); });
ask.addEventListener("submit", (event) => { event.preventDefault(); search(); });
askAgainWithKey(search);
