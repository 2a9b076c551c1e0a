"use strict";
import { askAgainWithKey, get, make, makeButton, me, post, readIds } from "/shared.js";
const [say, line, begin, kind, who, state, notes, answer, chips, list, more, tools] =
  ["say", "line", "begin", "kind", "who", "status", "notes", "answer", "chips", "list", "more",
    "tools"].map(get);
const SIZE = 10;

// All that a conversation is: what it began with, what was said, and the list that it speaks of.
let talk = { start: {}, lines: [], listed: null, at: null };
let busy = false, failed = null;

function save() { sessionStorage.setItem("talk", JSON.stringify(talk)); }

function makeBody(lines, listed) {
  const body = { ...talk.start, lines, k: SIZE };
  if (talk.at !== null) body.at = talk.at;
  if (listed !== null) body.listed = listed;
  return body;
}

// Says a line; gives its turn, or null where there is none.
async function speak(text, keep = true) {
  if (busy) return null;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  failed = null;
  const lines = text === null ? talk.lines : [...talk.lines, text];
  try {
    const turn = await post("/converse", makeBody(lines, text === null ? null : talk.listed));
    talk.at = turn.at;
    talk.listed = turn.state.listed;
    if (keep) talk.lines = lines;
    save();
    return turn;
  } catch (error) {
    if (error.status === 409) {
      talk.listed = null;
      busy = false;
      show(await speak("list", false));
      state.textContent = "The items have changed: this is the list now. Say it again.";
      return null;
    }
    failed = text;
    state.textContent = error.message;
    return null;
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

// What a line led to, on the page.
function show(turn, why = null) {
  if (turn === null) return;
  const focused = document.activeElement;
  const first = turn.items.length ? turn.items[0].number : 0;
  if (!turn.state.listed.length) list.replaceChildren();
  else if (first > 1) list.append(...turn.items.map(makeRow));
  else if (first === 1) list.replaceChildren(...turn.items.map(makeRow));
  chips.replaceChildren(...turn.chips.map(makeChip));
  chips.hidden = !turn.chips.length;
  more.hidden = !list.children.length || list.children.length >= turn.fitting;
  tools.hidden = !talk.lines.length;
  const place = why ?? answer;
  // An item's first line is its text, which stands there already.
  place.replaceChildren(...turn.lines.slice(why === null ? 0 : 1).flatMap(makeCells));
  place.hidden = !turn.lines.length;
  if (why !== null) answer.hidden = true;
  notes.textContent = turn.notes.join(" ");
  notes.hidden = !turn.notes.length;
  const fit = turn.state.listed.length || turn.chips.length
    ? `${turn.fitting.toLocaleString("en")} of ${turn.catalog.toLocaleString("en")} fit.` : "";
  state.textContent = [turn.message, fit].filter(Boolean).join(" ") || "Say what you look for.";
  // What had the focus may be gone; its place is then where the answer begins.
  if (focused !== line && !document.contains(focused)) (first ? list : line).focus();
  else if (first > 1 && focused === more) list.children[first - 1].querySelector("button").focus();
}

// A line of text whose two columns stand apart by blanks, as cells.
function makeCells(text) {
  const [first, ...rest] = text.trim().split(/\s{2,}/);
  if (!rest.length) return [make("span", first, { class: "whole" })];
  return [make("span", first), make("span", rest.join(" "))];
}

function makeRow(item) {
  const row = document.createElement("li");
  row.value = item.number;
  row.append(make("span", item.text, { class: "title" }));
  for (const [name, value] of item.facts) {
    row.append(make("span", `${name}: ${value}`, { class: "fact" }));
  }
  const reason = make("div", "", { class: "why", role: "status" });
  reason.hidden = true;
  const called = item.text.slice(0, 80);
  row.append(
    makeButton("Like", `More like ${item.number}: ${called}`,
      async () => show(await speak(`more like #${item.number}`))), " ",
    makeButton("Not", `Not ${item.number}: ${called}`,
      async () => show(await speak(`not #${item.number}`))), " ",
    makeButton("Seen", `Seen ${item.number}: ${called}`,
      async () => show(await speak(`seen #${item.number}`))), " ",
    makeButton("Why", `Why ${item.number}: ${called}`,
      async () => show(await speak(`why ${item.number}`), reason)),
    reason,
  );
  return row;
}

function makeChip(chip) {
  const entry = document.createElement("li");
  entry.append(makeButton(`${chip.text} \u00d7`, `Take back: ${chip.text}`,
    async () => show(await speak(`drop ${chip.letter}`))));
  return entry;
}

// Begins anew, by who is chosen.
async function start() {
  const typed = who.value.trim();
  const starts = {
    nothing: {}, mine: { user: me }, user: { user: typed }, history: { history: readIds(typed) },
  };
  talk = { start: starts[kind.value], lines: [], listed: null, at: null };
  save();
  for (const each of [list, chips]) each.replaceChildren();
  for (const each of [answer, notes, more, tools, chips]) each.hidden = true;
  state.textContent = "Say what you look for.";
  const named = kind.value === "user" || kind.value === "history";
  if (kind.value === "nothing" || (named && !typed)) return;
  show(await speak(null));
}

function showWho() {
  who.parentElement.hidden = !["user", "history"].includes(kind.value);
}

say.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = line.value.trim();
  if (!text) return;
  const turn = await speak(text);
  if (turn === null) return;
  line.value = "";
  show(turn);
});
more.addEventListener("click", async () => show(await speak("more")));
for (const button of document.querySelectorAll("[data-say]")) {
  button.addEventListener("click", async () => show(await speak(button.dataset.say)));
}
get("anew").addEventListener("click", () => { start(); line.focus(); });
kind.addEventListener("change", () => { showWho(); start(); });
begin.addEventListener("submit", (event) => { event.preventDefault(); start(); });
askAgainWithKey(async () => {
  if (failed === null && !talk.lines.length) await start();
  else show(await speak(failed));
});

// A page that is loaded again goes on where it was.
const kept = sessionStorage.getItem("talk");
if (kept !== null) {
  talk = { ...JSON.parse(kept), listed: null };
  if (talk.lines.length || Object.keys(talk.start).length) {
    if (talk.start.user !== undefined) {
      kind.value = talk.start.user === me ? "mine" : "user";
      who.value = kind.value === "user" ? talk.start.user : "";
    } else if (talk.start.history !== undefined) {
      kind.value = "history";
      who.value = talk.start.history.join(", ");
    }
    showWho();
    speak("list", false).then((turn) => show(turn));
  }
}
