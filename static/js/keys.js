// Single-key shortcuts, `g` sequences, `?`, esc. Off while typing, in dialogs, with modifiers, and where the reader turned them off.
import { open } from "./dialog.js";

const handlers = new Map();
let pending = "";
let timer = 0;

const disabled = () => document.body.dataset.shortcuts === "off";

/** True while the keyboard belongs to a field. */
export function typing(target = document.activeElement) {
  if (!target) return false;
  if (target.isContentEditable || target.matches?.("textarea, select, [role='combobox']")) return true;
  return target.matches?.("input") && !["checkbox", "radio", "button", "submit", "range"].includes(target.type);
}

/**
 * Bind a key: on("j", handler), on("g x", handler), on("shift+A", handler), on("mod+Enter", handler).
 * `mod` keys also work in fields. A handler returning false lets the key through. Returns a function that unbinds.
 */
export function on(key, handler) {
  handlers.set(key, handler);
  return () => handlers.delete(key);
}

function name(event) {
  const key = event.key.length === 1 ? event.key : event.key;
  if (event.metaKey || event.ctrlKey) return `mod+${key.length === 1 ? key.toLowerCase() : key}`;
  return event.shiftKey && /^[A-Z]$/.test(key) ? `shift+${key}` : key;
}

function run(key, event) {
  const handler = handlers.get(key);
  if (!handler || handler(event) === false) return false;
  event.preventDefault();
  return true;
}

function expect(prefix) {
  pending = prefix;
  clearTimeout(timer);
  timer = setTimeout(() => (pending = ""), 1200);
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || event.altKey) return;
  const key = name(event);
  if (key.startsWith("mod+")) return void run(key, event);
  if (event.key === "Escape") return void escape(event);
  if (disabled() || typing(event.target) || document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary, input, label")) return;
  const sequence = pending ? `${pending} ${key}` : key;
  pending = "";
  if (run(sequence, event)) return;
  if ([...handlers.keys()].some((bound) => bound.startsWith(`${key} `))) expect(key);
});

function escape(event) {
  if (document.querySelector("dialog[open]")) return;
  if (run("Escape", event)) return;
  const field = document.activeElement;
  if (typing(field)) field.blur();
}

for (const link of document.querySelectorAll(".sidebar [data-key]")) {
  on(link.dataset.key, () => location.assign(link.href));
}
on("?", () => void open("shortcuts"));
on("/", () => {
  const field = document.querySelector("[data-page-search]");
  if (!field) return false;
  field.focus();
  field.select?.();
});

// A control may name its own key: data-key-click="p" is pressed by p.
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.metaKey || event.ctrlKey || disabled() || typing(event.target)) return;
  if (document.querySelector("dialog[open]") || pending) return;
  const control = document.querySelector(`[data-key-click="${CSS.escape(name(event))}"]:not(:disabled)`);
  if (!control) return;
  event.preventDefault();
  control.click();
});

function sayMods() {
  if (!/Mac|iPhone|iPad/.test(navigator.platform)) return;
  for (const key of document.querySelectorAll("kbd[data-mod]")) key.textContent = `⌘${key.dataset.mod}`;
}

sayMods();
document.addEventListener("page:arrived", sayMods);
