// Turns <time datetime data-local="style"> into the reader's own zone, and keeps the clock in the frame.

const part = (options) => new Intl.DateTimeFormat(undefined, options);
const hours = part({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const seconds = part({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = part({ day: "numeric", month: "short" });
const dayOfYear = part({ day: "numeric", month: "short", year: "numeric" });
const full = part({ dateStyle: "full", timeStyle: "long" });
const zone = part({ timeZoneName: "short" });

const date = (moment) => (moment.getFullYear() === new Date().getFullYear() ? day : dayOfYear).format(moment);

function dayWord(moment) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  if (moment >= midnight && moment - midnight < 86_400_000) return "Today";
  midnight.setDate(midnight.getDate() - 1);
  if (moment >= midnight && moment < new Date().setHours(0, 0, 0, 0)) return "Yesterday";
  return date(moment);
}

const styles = {
  time: (moment) => hours.format(moment),
  seconds: (moment) => seconds.format(moment),
  date,
  datetime: (moment) => `${date(moment)} ${hours.format(moment)}`,
  day: (moment) => `${dayWord(moment)} ${hours.format(moment)}`,
  exact: (moment) => `${dayOfYear.format(moment)} ${seconds.format(moment)}`,
};

/** Format a Date in one of the styles of the `local_time` tag. */
export function format(moment, style = "datetime") {
  return (styles[style] ?? styles.datetime)(moment);
}

/** Rewrite every <time data-local> inside `root`. Safe to call again. */
export function localise(root = document) {
  for (const element of root.querySelectorAll("time[data-local]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    element.textContent = format(moment, element.dataset.local);
    element.title = full.format(moment);
  }
}

function clocks() {
  const now = new Date();
  const name = zone.formatToParts(now).find((piece) => piece.type === "timeZoneName")?.value ?? "";
  for (const clock of document.querySelectorAll("[data-clock]")) clock.textContent = `${hours.format(now)} ${name}`;
}

function tick() {
  clocks();
  setTimeout(tick, 60_050 - (Date.now() % 60_000));
}

localise();
tick();
document.addEventListener("htmx:after:swap", () => localise());
document.addEventListener("page:arrived", () => {
  localise();
  clocks();
});
document.addEventListener("live:changed", (event) => localise(event.target));
