// The inbox: moving, selecting, what was seen, the words of the decide bar. Deciding itself is the form's own POST.
import { connect } from "./ws.js";
import { open } from "./dialog.js";
import { on } from "./keys.js";
import { say } from "./toast.js";
import { localise } from "./times.js";
import { refresh } from "./countdown.js";

const page = document.querySelector("[data-inbox]");
const narrow = matchMedia("(max-width: 1023px)");
const seen = new Set(); // what has been on screen: "action" for its head, "action/end" for the end of its payload
const undo = []; // choices that were not sent yet, newest last

const batch = () => document.getElementById("batch");
const form = () => document.getElementById("decide");
const cards = () => [...document.querySelectorAll("#batch .action")];
const rows = () => [...document.querySelectorAll(".batch-row")];
const box = (card) => card.querySelector('input[name="select"]');
const rejecting = (card) => card.querySelector("[data-reject]")?.checked ?? false;
const selectable = () => cards().filter((card) => box(card));
const chosen = () => selectable().filter((card) => box(card).checked && !rejecting(card));

// --- what was seen ---------------------------------------------------------------------------------------------------

// The decide bar and the page head cover the edges: what lies under them has not been seen.
const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      const card = target.closest(".action");
      if (!card) continue;
      seen.add(`${card.dataset.action}/${marks(card).indexOf(target)}`);
      watcher.unobserve(target);
    }
    draw();
  },
  { rootMargin: "-52px 0px -64px 0px" },
);

// A card was seen when its head and every end of a payload in it were on screen.
const marks = (card) => [card.querySelector(".action-title"), ...card.querySelectorAll("[data-end]")];
const wasSeen = (card) => !card.querySelector("[data-unloaded]") && marks(card).every((_, place) => seen.has(`${card.dataset.action}/${place}`));
const unseen = () => chosen().filter((card) => "mustSee" in card.dataset && !wasSeen(card));

function watch() {
  for (const card of cards()) for (const mark of marks(card)) watcher.observe(mark);
}

// --- the words of the decide bar -------------------------------------------------------------------------------------

const counted = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");

function money(amount, currency) {
  const text = amount.toLocaleString("en", { minimumFractionDigits: 2 });
  return currency === "USD" ? `$${text}` : `${text} ${currency}`;
}

/** The same line as the page came with, for what is selected now: "Sends $84.00, changes 1 record, emails 1 person." */
function totals(list) {
  const sums = new Map();
  const groups = new Map();
  for (const { dataset } of list) {
    if (dataset.amount) {
      sums.set(dataset.currency, (sums.get(dataset.currency) ?? 0) + Math.round(Number(dataset.amount) * 1e6));
      continue;
    }
    const key = `${dataset.verb} ${dataset.one}`;
    const group = groups.get(key) ?? { ...dataset, number: 0, everyone: new Set() };
    group.number += Number(dataset.count);
    for (const person of (dataset.people ?? "").split("\n").filter(Boolean)) group.everyone.add(person.toLowerCase());
    groups.set(key, group);
  }
  const terms = sums.size ? [`sends ${[...sums].map(([currency, sum]) => money(sum / 1e6, currency)).join(" and ")}`] : [];
  for (const group of groups.values()) {
    terms.push(`${group.verb} ${counted(group.everyone.size || group.number, group.one, group.many)}`);
  }
  return sentence(terms.join(", "));
}

/** "the refund and 2 emails" */
function listed(nouns) {
  const terms = [...new Set(nouns)].map((noun) => {
    const number = nouns.filter((each) => each === noun).length;
    return number === 1 ? `the ${noun}` : counted(number, noun);
  });
  return terms.length > 1 ? `${terms.slice(0, -1).join(", ")} and ${terms.at(-1)}` : (terms[0] ?? "");
}

const named = (list) => listed(list.map((card) => card.dataset.word));

function final(list) {
  const nouns = list.map((card) => card.dataset.noun).filter(Boolean);
  return nouns.length ? sentence(`${listed(nouns)} cannot be undone`) : "";
}

function label(approvals, rejections, left) {
  if (document.querySelector("#batch [data-editing]")) return document.querySelector('#batch [data-editing][data-kind="question"]') ? "Finish the call above" : "Finish editing to approve";
  const others = cards().filter((card) => card.dataset.kind !== "action" && "decidable" in card.dataset);
  if (!approvals && !rejections) return others.length ? others[0].dataset.kind === "question" ? "Send the answer" : "Save what happened" : "Nothing selected";
  if (left.length) return `See the ${left[0].dataset.word}`;
  if (!approvals && cards().every((card) => card.dataset.kind === "question")) return "Stop the run";
  if (!approvals) return `Reject ${rejections} and send feedback`;
  const all = approvals === selectable().length;
  const approve = all ? (approvals === 1 ? "Approve" : `Approve all ${approvals}`) : `Approve ${approvals}${rejections ? "" : " selected"}`;
  return rejections ? `${approve}, reject ${rejections}` : approve;
}

function draw() {
  const bar = form();
  if (!bar) return;
  const open = !!document.querySelector("#batch [data-decidable]");
  bar.hidden = !open;
  document.querySelector(".batch-head .countdown")?.toggleAttribute("hidden", !open);
  const list = chosen();
  const rejections = cards().filter(rejecting).length;
  const left = unseen();
  const button = bar.querySelector("[data-approve]");
  const waiting = left.length > 0;
  bar.querySelector("[data-label]").textContent = label(list.length, rejections, left);
  bar.querySelector("[data-approve-key]").textContent = waiting ? "↓" : list.length === selectable().length ? "⇧A" : "a";
  button.classList.toggle("button--primary", !waiting);
  button.disabled = !!document.querySelector("#batch [data-editing]") || (!list.length && !rejections && selectable().length === cards().length);
  drawText(bar, list, left);
  drawAll(bar, list);
  const reject = bar.querySelector("[data-reject-selected]");
  if (reject) reject.disabled = !list.length;
}

function drawText(bar, list, left) {
  const text = bar.querySelector("[data-decide-text]");
  const total = selectable().length;
  if (!total) return;
  const lead = document.createElement("b");
  const must = list.filter((card) => "mustSee" in card.dataset).length;
  lead.textContent = left.length ? `${must - left.length} of ${must} seen.` : `${list.length} of ${total} selected.`;
  const rest = left.length ? `Read ${named(left)}, then you can approve.` : totals(list);
  text.replaceChildren(lead, ` ${rest}`);
  const end = bar.querySelector("[data-decide-final]");
  const words = final(list);
  end.hidden = !words;
  end.querySelector("span").textContent = words;
}

function drawAll(bar, list) {
  const all = bar.querySelector("[data-select-all]");
  if (!all) return;
  all.hidden = false;
  all.checked = list.length === selectable().length;
  all.indeterminate = list.length > 0 && !all.checked;
}

// --- moving and choosing ---------------------------------------------------------------------------------------------

const current = () => document.querySelector("#batch .action[aria-current]") ?? cards()[0];
let place = -1; // of the action that was last moved to, for after a swap

function focus(card) {
  if (!card) return;
  for (const other of cards()) other.toggleAttribute("aria-current", false);
  card.setAttribute("aria-current", "true");
  place = cards().indexOf(card);
  const fold = card.closest("[data-alike]");
  if (fold) fold.open = true;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

function step(list, from, by) {
  const place = list.indexOf(from);
  return list[Math.min(list.length - 1, Math.max(0, place + by))];
}

function move(by) {
  const from = document.querySelector("#batch .action[aria-current]");
  focus(from ? step(cards(), from, by) : cards()[0]);
}

let goesOn = false; // to the first row that "Show more" brings

function moveBatch(by) {
  const from = rows().find((row) => row.hasAttribute("aria-current"));
  const more = document.querySelector("[data-more]");
  if (by > 0 && more && from === rows().at(-1)) {
    goesOn = true;
    more.click();
    return;
  }
  const to = step(rows(), from, by);
  to?.scrollIntoView({ block: "nearest" });
  to?.click();
}

function grown() {
  localise(document);
  refresh();
  if (goesOn) moveBatch(1);
  goesOn = false;
}

/** Change a checkbox and remember what it was, for `z`. */
function set(input, value, remember = true) {
  if (!input || input.checked === value) return;
  if (remember) undo.push(() => set(input, !value, false));
  input.checked = value;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

function send(approve) {
  const left = unseen();
  if (left.length) return show(left[0]);
  const button = form()?.querySelector(approve);
  if (button && !button.disabled) form().requestSubmit(button);
}

/** Bring what was not seen yet onto the screen: the end of a long payload, or the card itself. */
function show(card) {
  focus(card);
  const rest = card.querySelector("[data-unloaded] [data-show-whole]");
  if (rest) return rest.click();
  const place = marks(card).findIndex((_, index) => !seen.has(`${card.dataset.action}/${index}`));
  (marks(card)[Math.max(0, place)] ?? card).scrollIntoView({ block: "center" });
}

function rejectOne(card) {
  const toggle = card?.querySelector("[data-reject]");
  if (!toggle) return;
  set(toggle, !toggle.checked);
}

function askWhy() {
  const list = chosen();
  if (!list.length) return;
  const title = document.querySelector("[data-reject-title]");
  title.textContent = list.length === 1 ? `Reject “${list[0].querySelector(".action-title").textContent}”` : `Reject ${list.length} actions`;
  open("reject-dialog").querySelector("textarea").focus();
}

on("j", () => move(1));
on("k", () => move(-1));
on("shift+J", () => moveBatch(1));
on("shift+K", () => moveBatch(-1));
on("x", () => set(box(current()), !box(current())?.checked));
on("a", () => send("[data-approve]"));
on("shift+A", () => {
  for (const card of selectable()) {
    set(card.querySelector("[data-reject]"), false);
    set(box(card), true);
  }
  send("[data-approve]");
});
on("e", () => current()?.querySelector("[data-edit]")?.click());
on("r", () => (document.querySelector("#batch .action[aria-current]") ? rejectOne(current()) : askWhy()));
on("z", () => {
  const back = undo.pop();
  if (!back) return false;
  back();
  say("Taken back.", 3);
});
on("o", () => batch()?.dataset.run && location.assign(batch().dataset.run));
on("mod+Enter", () => {
  const edit = document.activeElement?.closest("[data-edit-form]");
  if (!edit) return false;
  edit.requestSubmit();
});
on("Escape", () => {
  const discard = document.querySelector("#batch [data-discard]");
  if (!discard) return false;
  discard.click();
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-reject-selected]")) {
    event.preventDefault();
    askWhy();
  }
  if (event.target.closest("[data-approve]") && unseen().length) {
    event.preventDefault();
    show(unseen()[0]);
  }
  const next = event.target.closest("[data-next-batch]");
  const row = next && rows().find((each) => !each.classList.contains("batch-row--decided"));
  if (row) {
    event.preventDefault();
    row.click();
  }
});

// On a narrow screen a batch is a page of its own: the link is followed, htmx is not asked.
document.addEventListener("click", (event) => narrow.matches && event.target.closest(".batch-row") && event.stopImmediatePropagation(), true);

document.addEventListener("focusin", ({ target }) => {
  const card = target.closest("#batch .action");
  if (!card) return;
  place = cards().indexOf(card);
  for (const other of cards()) other === card ? card.setAttribute("aria-current", "true") : other.removeAttribute("aria-current");
});

document.addEventListener("change", ({ target }) => {
  if (target.matches("[data-select-all]")) for (const card of selectable()) set(box(card), target.checked);
  if (target.matches("[data-reject]") && target.checked) target.closest(".action").querySelector(".reject-panel textarea")?.focus();
  if (target.closest("#batch")) draw();
});

// --- editing: what changes, as a diff while one types ----------------------------------------------------------------

document.addEventListener("input", ({ target }) => {
  const edit = target.closest("[data-edit-form]");
  if (!edit) return;
  const lines = [...edit.querySelectorAll("[data-watch-change]")].flatMap((field) => changed(field.dataset.before, field.value));
  const list = edit.querySelector("[data-changes]");
  list.replaceChildren(...lines);
  list.hidden = !lines.length;
  edit.querySelector("[data-changes-label]").hidden = !lines.length;
});

function changed(before, after) {
  if (before === after) return [];
  const [old, now] = [before.split("\n"), after.split("\n")];
  const line = (text, kind) => Object.assign(document.createElement("div"), { className: `diff-line diff-${kind}`, textContent: text });
  return [
    ...old.filter((text) => text && !now.includes(text)).map((text) => line(text, "old")),
    ...now.filter((text) => text && !old.includes(text)).map((text) => line(text, "new")),
  ];
}

// --- what comes in ---------------------------------------------------------------------------------------------------

function settle() {
  const opened = batch()?.dataset.batch;
  for (const row of rows()) {
    if (row.id === `row-${opened}`) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
  page.dataset.batch = opened ?? "";
  localise(document);
  refresh();
  watch();
  draw();
}

// An action that somebody else decided can't be chosen any more; it greys where it stands.
function lock(state) {
  const card = state.closest(".action");
  if (!card || "open" in state.dataset) return;
  for (const input of card.querySelectorAll('[form="decide"]')) input.disabled = true;
  for (const tool of card.querySelectorAll(".action-tools")) tool.remove();
  box(card)?.remove();
  card.removeAttribute("data-decidable");
  card.className = `action action--${state.dataset.status}`;
}

const first = batch()?.dataset.batch;
let swapped = first;

// The answer to an undo says what became of it.
document.addEventListener("submit", ({ target }) => target.closest("[data-undo-toast]")?.setAttribute("data-sent", ""));

document.addEventListener("htmx:after:swap", ({ detail }) => {
  if (detail.ctx?.target?.matches?.(".batch-more")) return grown();
  document.querySelector("[data-undo-toast][data-sent]")?.remove();
  undo.length = 0;
  if (swapped !== batch()?.dataset.batch) place = -1;
  swapped = batch()?.dataset.batch;
  settle();
  tellWhere();
  const edited = document.querySelector("#batch [data-editing]");
  if (edited) {
    const fields = ":is(input:not([type='hidden'], [readonly]), textarea, select)";
    const field = edited.querySelector(`${fields}[aria-invalid]`) ?? edited.querySelector(`.edit-grid ${fields}`);
    field?.focus({ preventScroll: true });
    edited.scrollIntoView({ block: "start" });
  } else if (place >= 0 && !document.querySelector("#batch .action[aria-current]")) focus(cards()[place]);
});

// Others see who reviews a batch: the one that was opened, or in which something was done, while the page is to be seen.
let live;
let reviewing = page && "opened" in page.dataset;

function tellWhere() {
  if (swapped !== first) reviewing = true;
  live?.send(`reviewing ${reviewing && !document.hidden ? (page.dataset.batch ?? "") : ""}`);
}

function begin({ target }) {
  if (reviewing || !target.closest?.("#batch")) return;
  reviewing = true;
  tellWhere();
}

if (page) {
  settle();
  for (const kind of ["pointerdown", "keydown", "focusin"]) document.addEventListener(kind, begin);
  document.addEventListener("visibilitychange", tellWhere);
  live = connect({
    url: () => `/ws/inbox/?newest=${page.dataset.newest}&batch=${page.dataset.batch ?? ""}`,
    onState: (state) => state === "live" && tellWhere(),
    onElement: (element) => {
      if (element.matches(".action-state")) lock(element);
      if (element.matches(".batch-row, .action-state")) settle();
    },
  });
}
