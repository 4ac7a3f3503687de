// Notes of others appear while the page is open. Nothing that is being typed is replaced: `apply` waits until it is sent.
import { apply } from "./live.js";

const EVERY_MS = 5000;

async function look() {
  if (document.hidden) return;
  for (const list of document.querySelectorAll("[data-notes-url]")) {
    const answer = await fetch(`${list.dataset.notesUrl}${list.dataset.notesUrl.includes("?") ? "&" : "?"}have=${encodeURIComponent(list.dataset.have)}`).catch(() => null);
    // 204: nothing has changed. A redirect leads to the sign-in page of somebody who is signed out by now.
    if (answer?.status === 200 && !answer.redirected) apply(await answer.text());
  }
}

setInterval(look, EVERY_MS);
