// Small manners of forms: a button that is working says so, a changed field shows it, a click copies.

document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method === "dialog") return;
  const button = event.submitter;
  if (!button?.classList.contains("button")) return;
  button.style.setProperty("min-width", `${button.offsetWidth}px`);
  button.setAttribute("aria-busy", "true");
  if (button.dataset.busy) button.lastChild.textContent = button.dataset.busy;
});

// Coming back by the browser's cache must not show a button that still works.
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const button of document.querySelectorAll('.button[aria-busy="true"]')) button.removeAttribute("aria-busy");
});

document.addEventListener("htmx:finally:request", () => {
  for (const button of document.querySelectorAll('.button[aria-busy="true"]')) button.removeAttribute("aria-busy");
});

document.addEventListener("input", ({ target }) => {
  if (!target.matches("[data-watch-change]")) return;
  const before = target.dataset.before ?? target.defaultValue;
  target.toggleAttribute("data-changed", target.value !== before);
});

for (const box of document.querySelectorAll("input[data-mixed]")) box.indeterminate = true;

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy || location.href);
  const region = document.getElementById("announce");
  if (region) region.textContent = "Copied.";
  button.dataset.copied = "";
  setTimeout(() => delete button.dataset.copied, 1500);
});

// The sheet behind "More" and open menus close when the reader goes elsewhere.
document.addEventListener("click", (event) => {
  for (const more of document.querySelectorAll(".tab-more[open], .menu[open]")) if (!more.contains(event.target)) more.open = false;
});
