// From the launch form to the run's live page without leaving the document: the run's socket opens as soon as its address
// is known, beside the request for the page. Loading the page afresh would double the time until the first news.
import { moved } from "./place.js";
import { say } from "./toast.js";

const KEPT = ["palette", "toasts"]; // their modules hold on to them

document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || !event.target.matches("[data-arrive]")) return;
  event.preventDefault();
  launch(event.target, event.submitter);
});

async function launch(form, submitter) {
  let answer;
  try {
    answer = await fetch(form.action, { method: "POST", body: new FormData(form, submitter), headers: { "HX-Request": "true" } });
  } catch {
    submitter?.removeAttribute("aria-busy");
    say("The server did not answer. Look at the runs before you launch once more.", 12);
    return;
  }
  const path = answer.headers.get("HX-Redirect");
  // Nothing was launched: the server says why on a page of its own, with everything that was typed.
  if (!path) return form.submit();
  window.openEarly(`/ws${path}?after=0`);
  try {
    await show(path);
  } catch {
    location.assign(path);
  }
}

async function show(path) {
  const answer = await fetch(path);
  if (!answer.ok || answer.redirected) throw new Error(answer.statusText);
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of KEPT) next.getElementById(id)?.replaceWith(document.getElementById(id));
  moved(path);
  document.title = next.title;
  document.body.replaceWith(document.adoptNode(next.body));
  scrollTo(0, 0);
  window.htmx.process(document.body);
  document.dispatchEvent(new CustomEvent("page:arrived"));
  await Promise.all([...document.querySelectorAll("body script[type=module]")].map((script) => import(script.src)));
}
