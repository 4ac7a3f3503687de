// Actions across runs: moving, selecting, and how many the buttons are about. Deciding itself is the form's own POST.
import { on } from "./keys.js";

const form = document.getElementById("across");
const boxes = () => [...form.querySelectorAll('input[name="select"]')];
const ready = () => boxes().filter((box) => !box.disabled);
const rows = () => [...form.querySelectorAll(".across-row")];
const target = (row) => row.querySelector('input[name="select"]:not(:disabled), a[href]');

function draw() {
  const chosen = ready().filter((box) => box.checked).length;
  for (const button of form.querySelectorAll("[data-words]")) {
    button.textContent = chosen ? `${button.dataset.words} ${chosen} selected` : `${button.dataset.words} selected`;
    button.disabled = !chosen;
  }
  const line = form.querySelector("[data-across-all]");
  if (!line) return;
  line.hidden = ready().length < 2;
  const all = line.querySelector("[data-all]");
  all.checked = chosen === ready().length;
  all.indeterminate = chosen > 0 && !all.checked;
}

function move(by) {
  const list = rows();
  const place = list.findIndex((row) => row.contains(document.activeElement));
  const row = list[place < 0 ? 0 : Math.min(list.length - 1, Math.max(0, place + by))];
  target(row)?.focus();
  row?.scrollIntoView({ block: "nearest" });
}

if (form) {
  form.addEventListener("change", ({ target: changed }) => {
    if (changed.matches("[data-all]")) for (const box of ready()) box.checked = changed.checked;
    draw();
  });
  on("j", () => move(1));
  on("k", () => move(-1));
  on("x", () => {
    const row = rows().find((each) => each.contains(document.activeElement));
    row?.querySelector('input[name="select"]:not(:disabled)')?.click();
  });
  on("a", () => form.querySelector('[data-words="Approve"]:not(:disabled)')?.click());
  document.addEventListener("htmx:after:swap", draw);
  addEventListener("pageshow", draw); // a page one goes back to has its boxes as they were left
  draw();
}
