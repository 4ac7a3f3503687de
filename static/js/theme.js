// Light or dark: posts the choice so that the next page comes right, and swaps the attribute at once. Without scripts the form posts.

const dark = matchMedia("(prefers-color-scheme: dark)");
const current = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");

function show() {
  const next = current() === "dark" ? "light" : "dark";
  for (const form of document.querySelectorAll("[data-theme-toggle]")) {
    form.elements.theme.value = next;
    const button = form.querySelector("button");
    button.title = `Change to the ${next} theme`;
    button.setAttribute("aria-label", button.title);
    const use = button.querySelector("use");
    use.setAttribute("href", use.getAttribute("href").replace(/#.*/, next === "dark" ? "#moon" : "#sun"));
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-theme-toggle]");
  if (!form) return;
  event.preventDefault();
  const body = new FormData(form);
  document.documentElement.dataset.theme = body.get("theme");
  show();
  fetch(form.action, { method: "POST", body, redirect: "manual" }).catch(() => {});
});

dark.addEventListener("change", show);
document.addEventListener("page:arrived", show);
show();
