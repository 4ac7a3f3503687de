// ⌘K: filters the list the server rendered (recent runs, pages). Arrows move, Enter opens, no match searches the traces.
import { open } from "./dialog.js";
import { on } from "./keys.js";

const dialog = document.getElementById("palette");
const input = dialog?.querySelector(".palette-input");
const options = dialog ? [...dialog.querySelectorAll(".palette-item")] : [];
const shown = () => options.filter((option) => !option.hidden);

function choose(option) {
  for (const other of options) other.setAttribute("aria-selected", String(other === option));
  if (!option) return input.removeAttribute("aria-activedescendant");
  option.id ||= `palette-${options.indexOf(option)}`;
  input.setAttribute("aria-activedescendant", option.id);
  option.scrollIntoView({ block: "nearest" });
}

function filter() {
  const words = input.value.trim().toLowerCase();
  for (const option of options) {
    if (option.dataset.search) aim(option, input.value.trim());
    else option.hidden = !words.split(/\s+/).every((word) => option.textContent.toLowerCase().includes(word));
  }
  for (const group of dialog.querySelectorAll("[data-group]")) group.hidden = !group.querySelector(".palette-item:not([hidden])");
  choose(shown().find((option) => !option.dataset.search) ?? shown()[0]);
}

function aim(option, words) {
  option.href = words ? option.dataset.search + encodeURIComponent(words) : option.getAttribute("href");
  option.hidden = !words;
  option.querySelector("[data-search-words]").textContent = ` for “${words}”`;
}

function move(step) {
  const list = shown();
  const at = list.findIndex((option) => option.getAttribute("aria-selected") === "true");
  choose(list[(at + step + list.length) % list.length]);
}

if (dialog) {
  dialog.addEventListener("dialog:open", () => {
    input.value = "";
    filter();
    input.focus();
  });
  input.addEventListener("input", filter);
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) move(step);
    else if (event.key === "Enter") dialog.querySelector('.palette-item[aria-selected="true"]')?.click();
    else return;
    event.preventDefault();
  });
  on("mod+k", () => void open("palette"));
}
