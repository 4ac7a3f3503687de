// Opens the page's socket while the page is still being read: a third of the time from a launch to its first news.
// `connect` in ws.js takes it over, with what has come so far. A plain script, because modules wait for the whole page.
{
  const target = new URL(document.currentScript.dataset.socket, location.href);
  target.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(target);
  const frames = [];
  const keep = (event) => frames.push(event.data);
  socket.addEventListener("message", keep);
  window.earlySocket = {
    take(wanted) {
      delete window.earlySocket;
      socket.removeEventListener("message", keep);
      if (wanted.href === target.href && socket.readyState <= WebSocket.OPEN) return { socket, frames };
      socket.close(1000);
      return undefined;
    },
  };
}
