// The query box: colours behind the text, completions, and the way into the results. The server does the searching.
import { on } from "./keys.js";

const input = () => document.querySelector("[data-query-input]");
const layer = () => document.querySelector("[data-query-layer]");
const options = () => document.querySelector("[data-completions]");
const listed = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "[]");
const fields = () => listed("query-fields");

// --- colours ---------------------------------------------------------------------------------------------------------

const TOKEN = /\s+|"(?:[^"\\]|\\.)*"?|[()]|[^\s()"]+/g;
const KEYWORD = /^(?:AND|OR|NOT|TO)$/;
const NUMBER = /^[$\d.][\d.,]*[a-z]*$/i;

function piece(text, kind) {
  if (!kind) return document.createTextNode(text);
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text;
  return span;
}

function value(text) {
  const [, sign, rest] = /^([<>]=?|=|\[)?(.*)$/s.exec(text);
  return [piece(sign ?? "", sign && "q-operator"), piece(rest, rest && (NUMBER.test(rest) ? "q-number" : "q-value"))];
}

function pieces(text) {
  const known = new Set([...fields(), ...listed("query-step-fields")].map((field) => field.name));
  const found = [];
  let open = false; // a field was just named: what follows without a blank is its value
  for (const token of text.match(TOKEN) ?? []) {
    const named = /^(-?)([A-Za-z_.]+):(?!\/\/)(.*)$/s.exec(token);
    if (open && !/^\s/.test(token)) found.push(...value(token));
    else if (named) {
      const [head] = named[2].toLowerCase().replace(/^run\./, "").split(".");
      found.push(piece(named[1], named[1] && "q-operator"));
      found.push(piece(`${named[2]}:`, known.has(head) || /^(?:count|step)$/.test(head) ? "q-field" : "q-unknown"));
      if (named[3]) found.push(...value(named[3]));
    } else found.push(piece(token, KEYWORD.test(token) || /^[()]$/.test(token) ? "q-operator" : ""));
    open = Boolean(named && !/[^<>=]/.test(named[3])) || (open && token === "(");
  }
  return found;
}

function paint() {
  const field = input();
  if (!field || !layer()) return;
  layer().replaceChildren(...pieces(field.value));
  layer().scrollLeft = field.scrollLeft;
}

// --- completions -----------------------------------------------------------------------------------------------------

const MOST = 8;

/** The word under the caret and where it begins. */
function word() {
  const field = input();
  const before = field.value.slice(0, field.selectionStart);
  const start = Math.max(before.lastIndexOf(" "), before.lastIndexOf("("), before.lastIndexOf("{")) + 1;
  const inStep = before.lastIndexOf("step:{") > before.lastIndexOf("}");
  return { start, inStep, text: before.slice(start).replace(/^-/, ""), minus: before[start] === "-" ? 1 : 0 };
}

/** Values that occur, by field: asked for once, when the box is first used. */
let values = null;

async function learnValues() {
  if (values) return;
  values = {};
  const answer = await fetch("/traces/values/", { headers: { Accept: "application/json" } }).catch(() => null);
  if (answer?.ok) values = await answer.json();
}

const quoted = (text) => (/^[^\s()"[\]{}|*<>=]+$/.test(text) ? text : `"${text.replace(/(["\\])/g, "\\$1")}"`);

function offers() {
  const { text, inStep } = word();
  if (!text) return [];
  const here = inStep ? listed("query-step-fields") : fields();
  const [name, rest] = text.includes(":") ? text.split(/:(.*)/s) : [text.toLowerCase(), null];
  if (rest === null) {
    return here
      .filter((field) => field.name.startsWith(name))
      .map((field) => ({ text: `${field.name}:`, hint: field.hint }));
  }
  const field = here.find((each) => each.name === name.toLowerCase());
  const known = field?.choices.length ? field.choices : (values?.[field?.name] ?? []);
  const begun = rest.replace(/^"/, "").toLowerCase();
  return known
    .filter((choice) => choice.toLowerCase().includes(begun) && choice !== rest)
    .sort((a, b) => b.toLowerCase().startsWith(begun) - a.toLowerCase().startsWith(begun))
    .map((choice) => ({ text: `${name}:${quoted(choice)}`, hint: "" }));
}

let picked = -1;

function offer() {
  const box = options();
  if (!box) return;
  const found = document.activeElement === input() ? offers().slice(0, MOST) : [];
  picked = -1;
  box.hidden = !found.length;
  box.replaceChildren(
    ...found.map(({ text, hint }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.tabIndex = -1;
      button.className = "completion";
      button.dataset.complete = text;
      button.setAttribute("role", "option");
      button.append(piece(text, ""), piece(hint, "quiet"));
      return button;
    }),
  );
}

function pick(by) {
  const all = [...options().children];
  picked = (picked + by + all.length) % all.length;
  all.forEach((button, index) => button.setAttribute("aria-selected", String(index === picked)));
}

function complete(text) {
  const field = input();
  const { start, minus } = word();
  field.setRangeText(text, start + minus, field.selectionStart, "end");
  changed();
}

function changed() {
  paint();
  offer();
}

// --- results ---------------------------------------------------------------------------------------------------------

const results = () => [...document.querySelectorAll("[data-result]")];

function step(by) {
  const all = results();
  if (!all.length) return false;
  const at = all.indexOf(document.activeElement);
  if (at + by < 0) return void input().focus();
  all[Math.min(at + by, all.length - 1)].focus();
}

// --- two traces to compare ------------------------------------------------------------------------------------------

const marks = () => [...document.querySelectorAll("[data-mark]:checked")];

function mark(result) {
  const box = result.parentElement.querySelector("[data-mark]");
  box.checked = !box.checked;
  keepTwo(box);
}

/** A third mark lets go of the first. */
function keepTwo(newest) {
  const others = marks().filter((box) => box !== newest);
  if (newest.checked && others.length > 1) others[0].checked = false;
}

// --- a stretch of time, dragged on the histogram ------------------------------------------------------------------

let drag = null;

function bucketAt(event) {
  const { left, width } = drag.chart.getBoundingClientRect();
  const share = (event.clientX - left) / width;
  return Math.max(0, Math.min(drag.count - 1, Math.floor(share * drag.count)));
}

document.addEventListener("pointerdown", (event) => {
  const plot = event.target.closest?.("[data-histogram]");
  if (!plot || event.button) return;
  drag = { plot, chart: plot.querySelector(".histogram-chart"), count: Number(plot.dataset.count), moved: false };
  drag.from = drag.to = bucketAt(event);
});

document.addEventListener("pointermove", (event) => {
  if (!drag) return;
  drag.to = bucketAt(event);
  drag.moved ||= drag.to !== drag.from;
  const shown = drag.plot.querySelector("[data-drag]");
  const [low, high] = [drag.from, drag.to].sort((a, b) => a - b);
  shown.setAttribute("x", `${(low / drag.count) * 100}%`);
  shown.setAttribute("width", `${((high + 1 - low) / drag.count) * 100}%`);
  shown.setAttribute("visibility", drag.moved ? "visible" : "hidden");
});

document.addEventListener("pointerup", () => {
  if (!drag) return;
  const { plot, from, to, moved } = drag;
  drag = null;
  if (!moved) return;
  const { rest, first, seconds } = plot.dataset;
  const [low, high] = [from, to].sort((a, b) => a - b);
  const moment = (bucket) => new Date((Number(first) + bucket * Number(seconds)) * 1000).toISOString().slice(0, 16) + "Z";
  input().value = `${rest} since:${moment(low)} until:${moment(high + 1)}`.trim();
  plot.addEventListener("click", (event) => event.preventDefault(), { once: true, capture: true });
  input().form.requestSubmit();
});

document.addEventListener("dragstart", (event) => event.target.closest?.("[data-histogram]") && event.preventDefault());

// --- wiring ----------------------------------------------------------------------------------------------------------

document.addEventListener("input", (event) => event.target === input() && changed());
document.addEventListener("scroll", (event) => event.target === input() && paint(), true);
document.addEventListener("focusin", (event) => {
  if (event.target === input()) learnValues().then(offer);
  offer();
});

document.addEventListener("click", (event) => {
  const add = event.target.closest("[data-add]");
  if (add) {
    const field = input();
    field.value = `${field.value.trimEnd()} ${add.dataset.add}`.trimStart();
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
    changed();
    if (!/[:<]$/.test(add.dataset.add)) field.form.requestSubmit();
  }
  const completion = event.target.closest("[data-complete]");
  if (completion) {
    complete(completion.dataset.complete);
    input().focus();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.target === input()) return inBox(event);
  if (event.target.closest?.("[data-result]") && event.key === "x" && !event.ctrlKey && !event.metaKey) {
    mark(event.target.closest("[data-result]"));
  }
  if (event.target.closest?.("[data-result]") && ["ArrowDown", "ArrowUp"].includes(event.key)) {
    event.preventDefault();
    step(event.key === "ArrowDown" ? 1 : -1);
  }
});

function inBox(event) {
  const listed = !options().hidden;
  if (event.key === "Tab" && listed && !event.shiftKey) {
    event.preventDefault();
    complete(options().children[Math.max(picked, 0)].dataset.complete);
  } else if (event.key === "Escape" && listed) {
    event.stopPropagation();
    options().hidden = true;
  } else if (event.key === "Enter" && listed && picked >= 0) {
    event.preventDefault();
    complete(options().children[picked].dataset.complete);
  } else if (["ArrowDown", "ArrowUp"].includes(event.key)) {
    event.preventDefault();
    if (listed) pick(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "ArrowDown") step(1);
  }
}

on("j", () => step(1));
on("k", () => step(-1));
on("d", () => marks().length === 2 && document.getElementById("compare").requestSubmit());

document.addEventListener("change", (event) => event.target.matches("[data-mark]") && keepTwo(event.target));

document.addEventListener("htmx:after:swap", () => {
  paint();
  if (document.activeElement === document.body && document.body.dataset.searched) input()?.focus();
});
document.addEventListener("submit", (event) => {
  if (event.target.matches("[data-query-form]")) document.body.dataset.searched = "1";
});

paint();
