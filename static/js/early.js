// Opens a run's socket before its page is there: a third of the time from a launch to its first news. `connect` in ws.js
// takes it over, with what has come so far. A plain script, because modules wait for the whole page.
window.openEarly = (path) => {
  const target = new URL(path, location.href);
  target.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(target);
  const frames = [];
  const keep = (event) => frames.push(event.data);
  socket.addEventListener("message", keep);
  window.earlySocket = {
    // Steps that the page has already are put in their places once more, so it may have begun further back.
    take(wanted) {
      delete window.earlySocket;
      socket.removeEventListener("message", keep);
      if (wanted.pathname === target.pathname && socket.readyState <= WebSocket.OPEN) return { socket, frames };
      socket.close(1000);
      return undefined;
    },
  };
};
if (document.currentScript.dataset.socket) window.openEarly(document.currentScript.dataset.socket);
