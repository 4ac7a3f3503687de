// The launch form: choosing an agent brings its own task, mode and limits, as long as the reader has not changed them.
import { on } from "./keys.js";

const form = document.getElementById("launch-form");
const fields = { task: "task", cost: "cost", tokens: "tokens", steps: "steps" };
let before = form?.querySelector('[name="agent"]:checked');

const changed = () => document.body.dispatchEvent(new CustomEvent("launch:changed"));

function choose(card) {
  for (const [name, key] of Object.entries(fields)) {
    const field = form.elements[name];
    const untouched = !field.value.trim() || (before && field.value === before.dataset[key]);
    if (untouched) field.value = card.dataset[key];
  }
  const mode = form.querySelector('[name="mode"]:checked');
  if (!mode || !before || mode.value === before.dataset.mode) {
    const own = form.querySelector(`[name="mode"][value="${CSS.escape(card.dataset.mode)}"]`);
    if (own) own.checked = true;
  }
  const label = document.querySelector("[data-launch] span");
  if (label) label.textContent = `Launch ${card.dataset.name}`;
  before = card;
}

if (form) {
  form.addEventListener("change", ({ target }) => {
    if (target.name === "agent") choose(target);
    if (target.name !== "task") changed();
  });
  form.addEventListener("input", ({ target }) => target.closest("#budget") && changed());
  form.addEventListener("click", ({ target }) => {
    const use = target.closest("[data-use-cost]");
    if (!use) return;
    form.elements.cost.value = use.dataset.useCost;
    changed();
  });
  on("mod+Enter", () => {
    const button = document.querySelector("[data-launch]");
    if (!button || button.getAttribute("aria-busy") === "true") return false;
    form.requestSubmit(button);
  });
}
