// Tells the decision form which actions had their details opened, for the measures of how reviews go.
const opened = new Set();

document.addEventListener(
  "toggle",
  ({ target }) => {
    const card = target.open && target.closest(".action");
    if (card) opened.add(card.dataset.action);
  },
  true,
);

// Before htmx reads the form.
document.addEventListener(
  "submit",
  ({ target }) => {
    if (target.id !== "decide") return;
    const field = target.querySelector('input[name="opened"]') ?? document.createElement("input");
    Object.assign(field, { type: "hidden", name: "opened", value: [...opened].join(" ") });
    target.append(field);
  },
  true,
);
