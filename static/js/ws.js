// The live socket. Frames are HTML fragments; each top-level element says by its attributes where it belongs (see live.js).
// Decisions never travel here: every write is a form.
import { apply } from "./live.js";
import { format } from "./times.js";

const BACK_OFF = [1, 2, 4, 8, 15];
const ENDED = {
  4401: "Your session has ended. What you typed is still here.",
  4403: "You may no longer see this page live.",
};
const order = ["idle", "live", "reconnecting", "offline", "ended"];
const connections = new Set();

/**
 * Follow a socket until it is closed for good.
 * @param {object} options
 * @param {(after: number) => string} options.url path of the socket after the sequence number last shown
 * @param {number} [options.after] sequence number the page was rendered with
 * @param {(state: string, tries: number) => void} [options.onState] idle, live, reconnecting, offline or ended
 * @param {(element: Element) => void} [options.onElement] called after each element was put into the page
 * @returns {{close: () => void, retry: () => void, send: (text: string) => void, seq: number}} `send` is a hint: lost while
 *   there is no connection
 */
export function connect({ url, after = 0, onState, onElement }) {
  const connection = { state: "idle", tries: 0, seq: after, seen: Date.now(), next: 0, reason: 0, closed: false };
  let socket;
  let timer = 0;

  function set(state) {
    connection.state = state;
    onState?.(state, connection.tries);
    show();
  }

  function start() {
    clearTimeout(timer);
    if (connection.closed) return;
    const target = new URL(url(connection.seq), location.href);
    target.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const early = window.earlySocket?.take(target);
    socket = early?.socket ?? new WebSocket(target);
    socket.addEventListener("open", opened);
    socket.addEventListener("message", received);
    socket.addEventListener("close", lost);
    if (socket.readyState === WebSocket.OPEN) opened();
    early?.frames.forEach(take);
  }

  function opened() {
    connection.tries = 0;
    connection.seen = Date.now();
    set("live");
  }

  function received(event) {
    if (event.currentTarget === socket) take(event.data);
  }

  function take(html) {
    connection.seen = Date.now();
    connection.seq = Math.max(connection.seq, apply(html, onElement));
  }

  function lost(event) {
    if (event.currentTarget !== socket || connection.closed) return;
    if (event.code in ENDED) {
      connection.reason = event.code;
      connection.closed = true;
      set("ended");
      return;
    }
    const wait = BACK_OFF[Math.min(connection.tries, BACK_OFF.length - 1)];
    connection.tries += 1;
    connection.next = Date.now() + wait * 1000;
    timer = setTimeout(start, wait * 1000);
    set(navigator.onLine ? "reconnecting" : "offline");
  }

  connection.retry = () => {
    if (connection.closed || connection.state === "live" || socket?.readyState === WebSocket.CONNECTING) return;
    start();
  };
  connection.send = (text) => socket.readyState === WebSocket.OPEN && socket.send(text);
  // The answer to a form may have been overtaken by the socket, and then puts back what is over: ask for it all once more.
  document.addEventListener("htmx:after:swap", ({ detail }) => detail.ctx?.request?.method === "POST" && connection.send("afresh"));
  connection.close = () => {
    connection.closed = true;
    clearTimeout(timer);
    connections.delete(connection);
    socket?.close(1000);
    show();
  };
  connections.add(connection);
  start();
  return connection;
}

const worst = () => [...connections].sort((a, b) => order.indexOf(b.state) - order.indexOf(a.state))[0];

function show() {
  const connection = worst();
  const state = connection?.state ?? "idle";
  const word = { live: "Live", reconnecting: "Reconnecting", offline: "Offline", ended: "Not live" }[state];
  for (const element of document.querySelectorAll("[data-connection]")) {
    element.dataset.state = state;
    element.querySelector("[data-connection-word]").textContent = word ?? "Online";
    element.querySelector("[data-connection-try]").textContent = state === "reconnecting" ? `try ${connection.tries}` : "";
  }
  bar(connection);
}

// A server that restarts is back within a second or two; the bar is for longer than that.
function bar(connection) {
  const element = document.getElementById("connection-bar");
  if (!element) return;
  const state = connection?.state;
  element.hidden = !(state === "ended" || state === "offline" || (state === "reconnecting" && connection.tries > 1));
  if (element.hidden) return;
  const text = element.querySelector("[data-connection-text]");
  const retry = element.querySelector("[data-connection-retry]");
  retry.hidden = state === "ended";
  if (state === "ended") return ended(text, connection.reason);
  const left = Math.max(0, Math.ceil((connection.next - Date.now()) / 1000));
  const next = left ? `Next try in ${left} s.` : "Trying now.";
  const asOf = format(new Date(connection.seen), "seconds");
  text.textContent = `You see this page as of ${asOf}. Decisions are still saved when you send them. ${next}`;
}

function ended(text, reason) {
  text.textContent = `${ENDED[reason]} `;
  if (reason !== 4401) return;
  const link = document.createElement("a");
  link.href = `/accounts/login/?next=${encodeURIComponent(location.pathname + location.search)}`;
  link.textContent = "Sign in again";
  text.append(link);
}

const retryAll = () => connections.forEach((connection) => connection.retry());

setInterval(() => {
  const connection = worst();
  if (connection && ["reconnecting", "offline"].includes(connection.state)) bar(connection);
}, 1000);
addEventListener("online", retryAll);
addEventListener("pageshow", (event) => event.persisted && retryAll());
document.addEventListener("visibilitychange", () => document.hidden || retryAll());
document.addEventListener("click", (event) => event.target.closest("[data-connection-retry]") && retryAll());
