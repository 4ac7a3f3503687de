// The undo toast: counts the seconds the engine holds execution, then goes. Put a .toast with data-until into #toasts.

const region = document.getElementById("toasts");

function tick() {
  for (const toast of region.querySelectorAll("[data-until]")) {
    toast.offset ??= Date.parse(toast.dataset.serverNow) - Date.now() || 0;
    const left = Math.ceil((Date.parse(toast.dataset.until) - Date.now() - toast.offset) / 1000);
    if (left <= 0) {
      if (!toast.contains(document.activeElement)) toast.remove();
      continue;
    }
    const figure = toast.querySelector("[data-seconds]");
    if (figure) figure.textContent = left;
    const total = Number(toast.dataset.total) || 10;
    toast.querySelector(".toast-time rect")?.setAttribute("width", `${Math.min(100, (left / total) * 100)}%`);
  }
}

/** Show a short line that goes by itself. */
export function say(text, seconds = 6) {
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.dataset.until = new Date(Date.now() + seconds * 1000).toISOString();
  const line = document.createElement("p");
  line.className = "toast-text";
  line.textContent = text;
  toast.append(line);
  region.append(toast);
}

if (region) setInterval(tick, 250);
