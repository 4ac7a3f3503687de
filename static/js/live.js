// Puts fragments into the page. What each top-level element of a frame may say:
//   id="x"                      replaces #x where it stands; the same again changes nothing
//   id="x" data-append="#list"  goes to the end of #list unless #x exists (then it replaces it)
//   data-text-append="#x"       its text is added to #x; data-offset (code points) makes that safe to repeat
//   data-remove="#x"            takes #x away
//   data-reload                 the gap is too big: fetch the page again
//   data-seq="12"               the number to resume after
// Nothing is put above anything, and nothing a person is typing into is replaced: that waits until the focus leaves.
import { localise } from "./times.js";
import { refresh } from "./countdown.js";

const postponed = new Map();

/** Apply one frame. Returns the largest data-seq in it, 0 when there is none. */
export function apply(html, onElement) {
  const template = document.createElement("template");
  template.innerHTML = html;
  let seq = 0;
  for (const element of [...template.content.children]) {
    seq = Math.max(seq, Number(element.dataset.seq) || 0);
    const placed = place(element);
    if (placed) settle(placed, onElement);
  }
  return seq;
}

function place(element) {
  if ("reload" in element.dataset) return void reload();
  if (element.dataset.remove) return void document.querySelector(element.dataset.remove)?.remove();
  if (element.dataset.textAppend) return appendText(element);
  const existing = element.id && document.getElementById(element.id);
  if (existing) return replace(existing, element);
  const list = element.dataset.append && document.querySelector(element.dataset.append);
  if (!list) return undefined;
  list.append(element);
  return element;
}

function settle(element, onElement) {
  localise(element);
  refresh();
  window.htmx?.process(element);
  element.dispatchEvent(new CustomEvent("live:changed", { bubbles: true }));
  onElement?.(element);
}

const points = (text) => [...text].length;

function appendText(element) {
  const target = document.querySelector(element.dataset.textAppend);
  if (!target) return undefined;
  let text = element.textContent;
  if (element.dataset.offset !== undefined) {
    const have = Number(target.dataset.length ?? points(target.textContent));
    const skip = have - Number(element.dataset.offset);
    if (skip < 0) return undefined; // a piece is missing; the recorded step will bring the whole text
    text = [...text].slice(skip).join("");
    target.dataset.length = have + points(text);
  }
  if (!text) return undefined;
  target.append(document.createTextNode(text));
  return target;
}

function typingIn(region) {
  const field = document.activeElement;
  if (!field || !region.contains(field) || !field.matches("input, textarea, select")) return false;
  return !["checkbox", "radio"].includes(field.type);
}

const dirty = (region) =>
  [...region.querySelectorAll("textarea, input:not([type='checkbox'], [type='radio'], [type='hidden'])")].some(
    (field) => field.value !== field.defaultValue,
  );

function replace(existing, element) {
  if (existing.isEqualNode(element)) return undefined;
  if (typingIn(existing) || dirty(existing)) {
    postponed.set(element.id, element);
    return undefined;
  }
  postponed.delete(element.id);
  keep(existing, element);
  const focused = existing.contains(document.activeElement) ? document.activeElement : null;
  existing.replaceWith(element);
  if (focused) refocus(element, focused);
  return element;
}

// What the reader opened stays open.
function keep(existing, element) {
  for (const details of [existing, ...existing.querySelectorAll("details[id]")]) {
    if (details.tagName !== "DETAILS" || !details.open) continue;
    const twin = element.id === details.id ? element : element.querySelector(`#${CSS.escape(details.id)}`);
    if (twin) twin.open = true;
  }
}

function refocus(element, focused) {
  const selector = focused.id ? `#${CSS.escape(focused.id)}` : focused.dataset.focus && `[data-focus="${CSS.escape(focused.dataset.focus)}"]`;
  const twin = selector ? (element.matches(selector) ? element : element.querySelector(selector)) : null;
  (twin ?? element).focus({ preventScroll: true });
}

function reload() {
  if (!dirty(document.body)) location.reload();
}

document.addEventListener("focusout", () => {
  setTimeout(() => {
    for (const [id, element] of [...postponed]) {
      const existing = document.getElementById(id);
      if (!existing) postponed.delete(id);
      else if (!typingIn(existing) && !dirty(existing)) {
        const placed = replace(existing, element);
        if (placed) settle(placed);
      }
    }
  });
});

/**
 * Follow a growing list: keeps its end in view until the reader scrolls up; then counts what came since.
 * @returns {{following: boolean, set: (on: boolean) => void}}
 */
export function follow(list, { toggle, pill } = {}) {
  let on = true;
  let missed = 0;
  const scroller = scrolls(list);
  const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;

  function set(value) {
    on = value;
    if (toggle) toggle.checked = on;
    if (on) {
      missed = 0;
      scroller.scrollTop = scroller.scrollHeight;
    }
    label();
  }

  function label() {
    if (!pill) return;
    pill.hidden = !missed;
    pill.textContent = missed === 1 ? "1 new step" : `${missed} new steps`;
  }

  new MutationObserver((changes) => {
    if (on) {
      scroller.scrollTop = scroller.scrollHeight;
      return;
    }
    // One that changes in place leaves and comes in the same breath: only the difference is new.
    for (const change of changes) if (change.target === list) missed += change.addedNodes.length - change.removedNodes.length;
    missed = Math.max(0, missed);
    label();
  }).observe(list, { childList: true, subtree: true, characterData: true });

  (scroller === document.scrollingElement ? document : scroller).addEventListener(
    "scroll",
    () => {
      if (on && !atEnd()) set(false);
      else if (!on && atEnd()) set(true);
    },
    { passive: true },
  );
  toggle?.addEventListener("change", () => set(toggle.checked));
  pill?.addEventListener("click", () => set(true));
  return {
    get following() {
      return on;
    },
    set,
  };
}

function scrolls(element) {
  for (let node = element; node && node !== document.body; node = node.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(node).overflowY)) return node;
  }
  return document.scrollingElement;
}
