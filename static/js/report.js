// The dry-run report: moving, selecting, the words of the button, and reloading when the run has moved on.
import { on } from "./keys.js";
import { localise } from "./times.js";

const page = document.querySelector("[data-report]");
const rows = () => [...page.querySelectorAll("[data-row]")];
const boxes = () => [...page.querySelectorAll('input[name="select"]')];
const chosen = () => boxes().filter((box) => box.checked);
const actions = (number) => `${number} action${number === 1 ? "" : "s"}`;

function draw() {
  const list = chosen();
  const title = page.querySelector("[data-execute-title]");
  if (!title) return;
  title.textContent = `Execute ${list.length} of ${actions(boxes().length)}`;
  const now = list.filter((box) => box.dataset.needed === "0").length;
  page.querySelector("[data-at-once]").textContent = actions(now);
  page.querySelector("[data-to-inbox]").textContent = actions(list.length - now);
  const button = page.querySelector("[data-execute]");
  button.disabled = !list.length;
  button.querySelector("[data-label]").textContent = `Execute ${actions(list.length)}`;
  const all = page.querySelector("[data-select-all]");
  const ready = boxes().filter((box) => !("stale" in box.dataset));
  page.querySelector("[data-select-all-row]").hidden = ready.length < 2;
  all.checked = ready.every((box) => box.checked);
  all.indeterminate = !all.checked && list.length > 0;
}

const current = () => page.querySelector("[data-row][aria-current]");

function move(by) {
  const list = rows();
  const place = current() ? list.indexOf(current()) + by : 0;
  const row = list[Math.min(list.length - 1, Math.max(0, place))];
  if (!row) return;
  for (const other of list) other.removeAttribute("aria-current");
  row.setAttribute("aria-current", "true");
  row.focus();
}

on("j", () => move(1));
on("k", () => move(-1));
const boxOf = (element) => element?.closest("li").querySelector('input[name="select"]');

on("x", () => boxOf(current())?.click());
on("shift+E", () => page.querySelector("[data-execute]:not(:disabled)")?.click());

page?.addEventListener("change", ({ target }) => {
  if (target.matches("[data-select-all]")) {
    for (const box of boxes()) box.checked = target.checked && !("stale" in box.dataset);
  }
  draw();
});

// What turned stale while one looks is not selected any more; once the run has moved on, the whole page has.
let status = page?.querySelector("#report-poll")?.dataset.status;
document.addEventListener("htmx:after:swap", () => {
  const now = page?.querySelector("#report-poll")?.dataset.status;
  if (!now) return;
  if (now !== status) return location.reload();
  status = now;
  for (const state of page.querySelectorAll("[data-row-state][data-changed]")) {
    const box = boxOf(state);
    if (box && !("stale" in box.dataset)) {
      box.dataset.stale = "";
      box.checked = false;
    }
  }
  localise(page);
  draw();
});

if (page) draw();
