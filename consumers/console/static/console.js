// Fills the parts of a page, and makes it pleasant: filters that act at once, ages of times, keys.

import { readCharts } from "./charts.js";
import { follow } from "./live.js";

const PATIENCE_MS = 30_000;

function trouble(what, advice) {
  const box = document.createElement("div");
  box.className = "trouble";
  box.setAttribute("role", "alert");
  for (const [text, tag] of [[what, "strong"], [advice, "span"]]) {
    const line = document.createElement("p");
    line.append(Object.assign(document.createElement(tag), { textContent: text }));
    box.append(line);
  }
  return box;
}

async function fill(slot) {
  slot.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(slot.dataset.source, {
      headers: { "X-Fragment": "1" },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const text = await answer.text();
    if (slot.tagName === "DATALIST" && !answer.ok) return;
    // What came live meanwhile is newer.
    if ("lived" in slot.dataset) return;
    // What is asked again and again keeps what it had.
    slot.classList.toggle("stale", !answer.ok && slot.dataset.told === "");
    if (slot.classList.contains("stale")) return;
    slot.innerHTML = text;
    if (answer.ok && slot.dataset.every) slot.dataset.told = "";
  } catch {
    if (slot.tagName !== "DATALIST" && !("lived" in slot.dataset)) {
      slot.replaceChildren(trouble("The console does not answer.", "Start it again (sop console), then load this page again."));
    }
  } finally {
    slot.setAttribute("aria-busy", "false");
  }
  settle(slot);
}

export function settle(root) {
  readCharts(root);
  tellAges(root);
  for (const button of root.querySelectorAll("[data-confirm]")) {
    button.addEventListener("click", (event) => confirm(button.dataset.confirm) || event.preventDefault());
  }
}

// The server's clock counts: a browser's may be wrong.
const ahead = Date.parse(document.body.dataset.now) - Date.now();

function tellAges(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const seconds = (Date.now() + ahead - Date.parse(time.dateTime)) / 1000;
    time.title = `${time.dateTime.slice(0, 19).replace("T", " ")} UTC`;
    if (seconds < 172_800) time.textContent = age(seconds);
  }
}

function age(seconds) {
  if (seconds < 5) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

function filterAtOnce(form) {
  for (const field of form.elements) {
    field.addEventListener("change", () => form.requestSubmit());
  }
  form.addEventListener("submit", () => {
    for (const field of form.elements) field.disabled = field.disabled || field.value === "";
  });
}

const PLACES = { f: "/", e: "/episodes", s: "/success", i: "/interventions", l: "/latency", p: "/policies", d: "/dead-letters" };
let going = 0;

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (event.key === "/") {
    const first = document.querySelector("[data-first]");
    if (first) { first.focus(); event.preventDefault(); }
  } else if (event.key === "g") {
    going = Date.now();
  } else if (PLACES[event.key] && Date.now() - going < 1500) {
    location.href = PLACES[event.key];
  }
});

// A form's fields are empty-handed after "back": they were disabled when it was sent.
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form[data-auto] :disabled")) field.disabled = false;
});

for (const slot of document.querySelectorAll("[data-source]")) {
  fill(slot);
  if (slot.dataset.every) setInterval(() => document.hidden || fill(slot), 1000 * slot.dataset.every);
}
for (const form of document.querySelectorAll("form[data-auto]")) filterAtOnce(form);
for (const slot of document.querySelectorAll("[data-live]")) follow(slot, settle, trouble);
settle(document.body);
// On a narrow screen the pages' names are wider than it: the current one is brought into sight.
const here = document.querySelector(".top [aria-current]");
if (here) here.closest("nav").scrollLeft = here.offsetLeft - here.closest("nav").offsetLeft - 24;
setInterval(() => tellAges(document.body), 1000);
