// The live page of a run: follows the socket and the list's end, filters, moves through steps, keeps the clock.
import { connect } from "./ws.js";
import { follow } from "./live.js";
import { on } from "./keys.js";
import { localise } from "./times.js";

const place = document.querySelector("[data-run]");
const list = document.getElementById("steps");
const form = document.getElementById("steer-form");
const toggle = document.getElementById("follow-live");
const isStill = "still" in place.dataset;

document.querySelector("[data-run-tools]").hidden = false;

// --- the plan: folded on a phone, and as the reader left it after that ---------------------------------------------------

let planOpen = !matchMedia("(max-width: 767px)").matches;

function fold() {
  const plan = document.getElementById("plan-fold");
  if (plan) plan.open = planOpen;
}

fold();
document.addEventListener("click", (event) => {
  if (event.target.closest("#plan-fold > summary")) planOpen = !document.getElementById("plan-fold").open;
});

// --- following ---------------------------------------------------------------------------------------------------------

const following = follow(list, { toggle, pill: document.getElementById("new-steps") });
if (isStill) {
  following.set(false);
} else {
  // Where the whole page scrolls, its top comes first: status, meters and what waits.
  following.set(matchMedia("(min-width: 1200px) and (min-height: 640px)").matches);
  connect({
    url: (after) => `/ws/runs/${place.dataset.run}/?after=${after}`,
    after: Number(place.dataset.after),
    onElement: (element) => {
      if (element.id === "run-filters") press();
      if (element.id === "run-status") tick();
      if (element.id === "run-plan") fold();
    },
  });
}

// --- filters -----------------------------------------------------------------------------------------------------------

function press() {
  const shown = list.dataset.show ?? "";
  for (const button of document.querySelectorAll("#run-filters [data-show]")) {
    button.setAttribute("aria-pressed", String(button.dataset.show === shown));
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("#run-filters [data-show]");
  if (button) {
    if (button.dataset.show) list.dataset.show = button.dataset.show;
    else delete list.dataset.show;
    press();
    if (following.following) following.set(true);
  }
  if (event.target.closest("[data-steer]")) steer();
});

// --- elapsed -----------------------------------------------------------------------------------------------------------

function words(milliseconds) {
  if (milliseconds < 60_000) return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 1 : 0)}s`;
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${String(seconds % 60).padStart(2, "0")}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)}h ${String(minutes % 60).padStart(2, "0")}m`;
  return `${Math.floor(minutes / 1440)}d ${Math.floor((minutes % 1440) / 60)}h`;
}

function tick() {
  const { started, ended } = document.getElementById("run-status").dataset;
  if (!started) return;
  const text = words(Math.max(0, (ended ? Date.parse(ended) : Date.now()) - Date.parse(started)));
  for (const element of document.querySelectorAll("[data-elapsed]")) if (element.textContent !== text) element.textContent = text;
}

tick();
setInterval(tick, 1000);

// --- steering: on a phone behind its button in the dock ------------------------------------------------------------------

if (!document.querySelector("#run-steer [role='alert'], .steer-queued")) form.classList.add("steer--folded");

// --- keys --------------------------------------------------------------------------------------------------------------

function steer() {
  form.classList.remove("steer--folded");
  const field = document.getElementById("steer-text");
  field?.scrollIntoView({ block: "nearest" });
  field?.focus();
}

function move(step) {
  const rows = [...list.querySelectorAll(".step summary")].filter((row) => row.offsetParent);
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement);
  const next = at < 0 ? rows[step > 0 ? 0 : rows.length - 1] : rows[Math.min(rows.length - 1, Math.max(0, at + step))];
  following.set(false);
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

on("j", () => move(1));
on("k", () => move(-1));
on("s", steer);
on(".", () => following.set(!following.following));
on("mod+Enter", () => {
  if (document.activeElement?.id !== "steer-text") return false;
  form.requestSubmit(form.querySelector("[type=submit]"));
});

document.addEventListener("htmx:after:swap", () => {
  localise();
  press();
  tick();
});
