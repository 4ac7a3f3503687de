// Time left until a server deadline. The server's own clock counts: data-server-now corrects the reader's.

const levels = ["calm", "soon", "urgent", "expired"];
const said = new Map();

function words(left) {
  if (left < 3600) return `${String(Math.floor(left / 60)).padStart(2, "0")}:${String(left % 60).padStart(2, "0")}`;
  const minutes = Math.floor(left / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)}h ${String(minutes % 60).padStart(2, "0")}m`;
  return `${Math.floor(minutes / 1440)}d ${Math.floor((minutes % 1440) / 60)}h`;
}

const offset = (element) => {
  element.offset ??= Date.parse(element.dataset.serverNow) - Date.now() || 0;
  return element.offset;
};

function announce(element, left) {
  const minute = left === 300 ? 5 : left === 60 ? 1 : 0;
  if (!minute || said.get(element.dataset.deadline) === minute) return;
  said.set(element.dataset.deadline, minute);
  const region = document.getElementById("announce");
  if (region) region.textContent = `${minute} ${minute === 1 ? "minute" : "minutes"} left to decide.`;
}

/** Redraw every countdown; fires `countdown:expired` (bubbling) once on an element that runs out. */
export function refresh() {
  for (const element of document.querySelectorAll("[data-deadline]")) {
    const left = Math.max(0, Math.ceil((Date.parse(element.dataset.deadline) - Date.now() - offset(element)) / 1000));
    const level = !left ? "expired" : left < 300 ? "urgent" : left < 1800 ? "soon" : "calm";
    const figure = element.querySelector("[data-left]");
    if (figure && figure.textContent !== words(left)) figure.textContent = words(left);
    announce(element, left);
    if (element.classList.contains(`countdown--${level}`)) continue;
    element.classList.remove(...levels.map((name) => `countdown--${name}`));
    element.classList.add(`countdown--${level}`);
    element.querySelector(".countdown-text")?.toggleAttribute("hidden", !left);
    element.querySelector(".countdown-expired")?.toggleAttribute("hidden", !!left);
    if (!left) element.dispatchEvent(new CustomEvent("countdown:expired", { bubbles: true }));
  }
}

refresh();
setInterval(refresh, 1000);
