// The waterfall: moving, folding, problems, order, find, and which step's details are open. Everything works on what the page
// holds at the moment, because going back in the history replaces it.
import { on } from "./keys.js";
import { localise } from "./times.js";
import { connect } from "./ws.js";

const SETTLE_MS = 140; // moving on quickly asks the server for the last step only

const list = () => document.getElementById("spans");
const items = () => [...(list()?.querySelectorAll(":scope > .span-item") ?? [])];
const line = (item) => item.querySelector(".span");
const visible = () => items().filter((item) => !item.hidden);
const current = () => list()?.querySelector(".span[aria-current]")?.closest(".span-item") ?? null;
const bySeq = (seq) => list()?.querySelector(`.span[data-seq="${seq}"]`)?.closest(".span-item") ?? null;
const parent = (item) => document.getElementById(`row-${item.dataset.parent}`);
const toggleOf = (item) => item.querySelector("[data-toggle]");
const isOpen = (item) => toggleOf(item)?.getAttribute("aria-expanded") !== "false";

// --- folding ---------------------------------------------------------------------------------------------------------

function setOpen(item, open) {
  toggleOf(item)?.setAttribute("aria-expanded", String(open));
  draw();
}

function draw() {
  const words = isServed() ? "" : find();
  const hidden = new Set();
  for (const item of items()) {
    const above = parent(item);
    const folded = above && (hidden.has(above) || !isOpen(above));
    if (folded) hidden.add(item);
    item.hidden = words ? !item.dataset.found : Boolean(folded);
  }
}

function reveal(item) {
  for (let above = parent(item); above; above = parent(above)) toggleOf(above)?.setAttribute("aria-expanded", "true");
  draw();
}

// --- choosing --------------------------------------------------------------------------------------------------------

let settling = 0;

function mark(item) {
  for (const other of list().querySelectorAll(".span[aria-current]")) other.removeAttribute("aria-current");
  line(item).setAttribute("aria-current", "true");
  place();
}

function choose(item, { load = true, near = true } = {}) {
  if (!item) return;
  reveal(item);
  mark(item);
  line(item).focus({ preventScroll: true });
  line(item).scrollIntoView({ block: near ? "nearest" : "center" });
  clearTimeout(settling);
  if (load && line(item).dataset.seq) settling = setTimeout(() => line(item).click(), SETTLE_MS);
}

function move(by) {
  const shown = visible();
  if (!shown.length) return;
  const at = shown.indexOf(current());
  choose(shown[Math.min(Math.max(at + by, 0), shown.length - 1)]);
}

// --- problems --------------------------------------------------------------------------------------------------------

/** In the order of the rows, each with the place of its row: of a long run not every row is on the page. */
const problems = () =>
  (body()?.dataset.problems.split(",").filter(Boolean) ?? []).map((each) => {
    const [id, order] = each.split(":");
    return { id, order: Number(order) };
  });

function place() {
  const label = document.querySelector("[data-problem-place]");
  const all = problems();
  if (!label || !all.length) return;
  const at = all.findIndex(({ id }) => id === current()?.dataset.row);
  label.textContent = at < 0 ? `${all.length} ${all.length === 1 ? "problem" : "problems"}` : `Problem ${at + 1} of ${all.length}`;
}

function toProblem(by) {
  const all = problems();
  if (!all.length) return false;
  const now = Number(current()?.dataset.order ?? -1);
  const next = by > 0 ? all.find(({ order }) => order > now) ?? all[0] : all.findLast(({ order }) => order < now) ?? all.at(-1);
  const item = document.getElementById(`row-${next.id}`);
  if (item) choose(item, { near: inSight(item) });
  // Outside the rows that are here: its own page is drawn round it.
  else if (next.id.startsWith("s")) location.assign(body().dataset.stepUrl + next.id.slice(1) + "/" + location.search);
}

/** Whether a row stands in its list with something around it. */
function inSight(item) {
  const [box, at] = [list().parentElement.getBoundingClientRect(), item.getBoundingClientRect()];
  const [top, bottom] = [Math.max(box.top, 0) + 96, Math.min(box.bottom, innerHeight) - 24];
  return at.top >= top && at.bottom <= bottom;
}

// --- order -----------------------------------------------------------------------------------------------------------

let byCost = false;

/** Children within their parents, by cost or in the order of time; whole branches move together. */
function sort() {
  byCost = !byCost;
  const below = new Map();
  for (const item of items()) below.set(item.dataset.parent, [...(below.get(item.dataset.parent) ?? []), item]);
  const rank = byCost
    ? (a, b) => Number(b.dataset.cost || 0) - Number(a.dataset.cost || 0) || a.dataset.order - b.dataset.order
    : (a, b) => a.dataset.order - b.dataset.order;
  const put = (id) => {
    for (const item of (below.get(id) ?? []).sort(rank)) {
      list().append(item);
      put(item.dataset.row);
    }
  };
  put("");
  const region = document.getElementById("announce");
  if (region) region.textContent = byCost ? "Sorted by cost." : "Sorted by time.";
}

// --- find ------------------------------------------------------------------------------------------------------------

const find = () => document.querySelector("[data-find]")?.value.trim().toLowerCase() ?? "";

/** Whether the rows here are those that the server found for these words. */
const isServed = () => find() === (new URLSearchParams(location.search).get("find") ?? "").trim().toLowerCase();

/** Rows that are not on the page are found by the server, with Enter. */
const isWhole = () => !list()?.querySelector(".span-more");

function search() {
  if (!isWhole()) return;
  const words = find();
  for (const item of items()) {
    delete item.dataset.found;
    if (words && line(item).querySelector(".span-name").textContent.toLowerCase().includes(words)) item.dataset.found = "1";
  }
  for (const item of words ? items().filter((each) => each.dataset.found) : []) {
    for (let above = parent(item); above; above = parent(above)) above.dataset.found ??= "";
  }
  for (const item of items()) if (item.dataset.found === "") item.dataset.found = "path";
  draw();
}

// --- wiring ----------------------------------------------------------------------------------------------------------

const body = () => document.getElementById("trace");
const sheet = matchMedia("(max-width: 1199px)");

function showDetail(open) {
  body()?.classList.toggle("trace-body--closed", !open);
  body()?.classList.toggle("trace-body--sheet", open && sheet.matches);
}

document.addEventListener("click", (event) => {
  const toggle = event.target.closest("[data-toggle]");
  if (toggle && list()?.contains(toggle)) return setOpen(toggle.closest(".span-item"), toggle.getAttribute("aria-expanded") === "false");
  const chosen = event.target.closest(".span[data-seq]");
  if (chosen && list()?.contains(chosen)) {
    mark(chosen.closest(".span-item"));
    showDetail(true);
  }
  const problem = event.target.closest("[data-problem]");
  if (problem) toProblem(Number(problem.dataset.problem));
  if (event.target.closest("[data-close-detail]")) showDetail(false);
  const copy = event.target.closest("[data-copy-from]");
  if (copy) copyPayload(copy);
});

async function copyPayload(button) {
  const source = document.querySelector(`[data-payload="${button.dataset.copyFrom}"]`);
  await navigator.clipboard.writeText(source?.textContent ?? "");
  button.dataset.copied = "";
  setTimeout(() => delete button.dataset.copied, 1500);
}

document.addEventListener("submit", (event) => {
  if (event.target.matches(".trace-find-form") && isWhole() && !new URLSearchParams(location.search).has("find")) event.preventDefault();
});

document.addEventListener("input", (event) => {
  if (event.target.matches("[data-find]")) search();
});

// A step opened from within the pane (its evaluation, an earlier try) is marked in the list too.
document.addEventListener("htmx:after:swap", () => {
  fold();
  const seq = document.querySelector("[data-detail]")?.dataset.detail;
  const item = seq && bySeq(seq);
  if (item && item !== current()) {
    reveal(item);
    mark(item);
  }
});

on("j", () => move(1));
on("k", () => move(-1));
on("h", () => {
  const item = current();
  if (!item) return;
  if (toggleOf(item) && isOpen(item)) setOpen(item, false);
  else if (parent(item)) choose(parent(item));
});
on("l", () => {
  const item = current();
  if (item && toggleOf(item) && !isOpen(item)) setOpen(item, true);
  else move(1);
});
on("f", () => toProblem(1));
on("shift+F", () => toProblem(-1));
on("c", sort);
on("Enter", () => {
  const item = current();
  if (item && line(item).dataset.seq) line(item).click();
  else if (item) setOpen(item, !isOpen(item));
});
on("Escape", () => {
  if (!body()?.classList.contains("trace-body--sheet")) return false;
  showDetail(false);
});

/** Rows that came in as folded; once, so that what the reader opened stays open. */
function fold() {
  for (const item of items()) {
    if ("collapsed" in item.dataset) toggleOf(item)?.setAttribute("aria-expanded", "false");
    delete item.dataset.collapsed;
  }
  draw();
}
fold();
const first = current();
if (first) {
  reveal(first);
  // On a narrow screen the list is the page: scrolling it would hide what became of the run.
  if (!sheet.matches && !inSight(first)) line(first).scrollIntoView({ block: "center" });
}
place();
if (location.pathname.includes("/steps/")) showDetail(true);

// A run that still goes on: what the page shows of it is asked for again, and put in place of what was there. Which rows are
// open, which one is chosen and where the focus is stays. Of a long run the end is not on the page: there a button says how many steps came since.
const run = body()?.dataset.liveRun;
if (run) {
  const after = Number(body().dataset.after);
  let shown = after;
  let asked = 0;
  let restless = false;
  const live = connect({ url: (seq) => `/ws/runs/${run}/?after=${seq}`, after, onElement: (element) => (restless ||= !element.matches(".nav-count")) });

  async function refresh() {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const closed = new Set(items().filter((item) => !isOpen(item)).map((item) => item.id));
    const known = new Set(items().map((item) => item.id));
    const chosen = current()?.id;
    const focused = list().contains(document.activeElement) && document.activeElement.closest(".span-item")?.id;
    for (const id of ["spans", "span-axis", "trace-head", "trace-status", "trace-view", "trace-problems"]) {
      const [now, next] = [document.getElementById(id), fresh.getElementById(id)];
      if (!now || !next || (now !== list() && now.contains(document.activeElement))) continue;
      now.replaceWith(document.adoptNode(next));
      localise(document.getElementById(id));
    }
    body().dataset.problems = fresh.getElementById("trace").dataset.problems;
    window.htmx?.process(list());
    for (const item of items()) {
      if (known.has(item.id)) delete item.dataset.collapsed;
      if (closed.has(item.id)) toggleOf(item)?.setAttribute("aria-expanded", "false");
    }
    for (const other of list().querySelectorAll(".span[aria-current]")) other.removeAttribute("aria-current");
    if (chosen) line(document.getElementById(chosen) ?? items()[0]).setAttribute("aria-current", "true");
    fold();
    place();
    if (focused) document.getElementById(focused)?.querySelector(".span").focus({ preventScroll: true });
    shown = live.seq;
  }

  setInterval(() => {
    const count = live.seq - after;
    const pill = document.querySelector("[data-new-steps]");
    if (isWhole() && !find() && (restless || live.seq > shown) && Date.now() - asked > 1500) {
      asked = Date.now();
      restless = false;
      refresh();
    } else if (!isWhole() && pill && count > 0) {
      pill.hidden = false;
      pill.lastElementChild.textContent = `${count} new ${count === 1 ? "step" : "steps"}`;
      pill.href = location.href;
    }
  }, 500);
}
