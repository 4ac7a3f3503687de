// <dialog> without inline code. data-open="id" opens, data-close closes the one around it, a click on the backdrop closes.
// A form with data-confirm="dialog-id" opens that dialog instead of posting; the dialog's own form does the posting.

/** Open a dialog by id and give the focus back to where it was when it closes. */
export function open(id) {
  const dialog = document.getElementById(id);
  if (!dialog || dialog.open) return dialog;
  for (const other of document.querySelectorAll("dialog[open]")) other.close();
  const before = document.activeElement;
  dialog.showModal();
  dialog.dispatchEvent(new CustomEvent("dialog:open"));
  dialog.addEventListener("close", () => before?.isConnected && before.focus({ preventScroll: true }), { once: true });
  return dialog;
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-open]");
  if (opener && document.getElementById(opener.dataset.open)) {
    event.preventDefault();
    open(opener.dataset.open);
    return;
  }
  if (event.target.closest("[data-close]")) event.target.closest("dialog")?.close();
  if (event.target.tagName === "DIALOG" && event.target.open && outside(event)) event.target.close();
});

function outside(event) {
  const box = event.target.getBoundingClientRect();
  return event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom;
}

document.addEventListener("submit", (event) => {
  const id = event.target.dataset.confirm;
  if (!id || !document.getElementById(id)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  open(id);
}, true);
