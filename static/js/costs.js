// The cost table: task types fold under their agent. Without scripts they are all shown.
const rowsOf = (key) => [...document.querySelectorAll(".cost-table .child")].filter((row) => row.dataset.parent === key);

function set(button, open) {
  button.setAttribute("aria-expanded", String(open));
  for (const row of rowsOf(button.dataset.expand)) row.hidden = !open;
}

document.querySelectorAll("[data-expand]").forEach((button, index) => {
  button.hidden = false;
  set(button, index === 0);
  button.addEventListener("click", () => set(button, button.getAttribute("aria-expanded") === "false"));
});
