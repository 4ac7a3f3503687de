// Browser notifications, while a page of agentsite is open somewhere. What is due is asked for; a click opens the batch.
const KEY = "browser-notices";
const EVERY_MS = 20_000;
const isOn = () =>
  document.body.dataset.signedIn === "yes" && "Notification" in window && Notification.permission === "granted" && localStorage.getItem(KEY) === "on";

function token() {
  const headers = document.body.getAttribute("hx-headers:inherited") ?? "{}";
  return JSON.parse(headers)["X-CSRFToken"] ?? "";
}

async function take() {
  if (!isOn()) return;
  // One tab at a time: all of them share what is due.
  const ask = async () => {
    const answer = await fetch("/approvals/notifications/take", { method: "POST", headers: { "X-CSRFToken": token() } });
    if (!answer.ok) return;
    for (const { id, title, body, url } of (await answer.json()).notices) show(id, title, body, url);
  };
  await ask().catch(() => {}); // the next round asks again
}

function show(tag, title, body, url) {
  const shown = new Notification(title, { body, tag });
  shown.addEventListener("click", () => {
    window.focus();
    location.assign(url);
  });
}

function describe() {
  const place = document.querySelector("[data-browser-notices]");
  if (!place) return;
  place.hidden = !("Notification" in window);
  const [button, state] = [place.querySelector("[data-browser-on]"), place.querySelector("[data-browser-state]")];
  button.hidden = isOn();
  state.textContent = isOn()
    ? "This browser shows them."
    : window.Notification?.permission === "denied"
      ? "This browser does not let agentsite show notifications."
      : "";
}

document.addEventListener("click", async ({ target }) => {
  if (!target.closest("[data-browser-on]")) return;
  if ((await Notification.requestPermission()) === "granted") localStorage.setItem(KEY, "on");
  describe();
  take();
});

for (const field of document.querySelectorAll("[data-time-zone]")) {
  if (field.value === "UTC") field.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

describe();
take();
setInterval(take, EVERY_MS);
