// Which page this document shows. One that came in place (arrive.js) shares its document with the page before it, and the
// browser then goes back and forth between the two without loading either, even after a reload: so every page looks.

let shown = location.pathname;

/** The document shows another page from here on. */
export function moved(path) {
  history.pushState(null, "", path);
  shown = path;
}

addEventListener("popstate", () => location.pathname === shown || location.reload());
