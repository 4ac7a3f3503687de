"""axe-core in a page, past its policy, which would refuse a script element."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
FOUND = """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
  .filter((violation) => ["serious", "critical"].includes(violation.impact))
  .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 4).map((node) =>
    `${node.target} ${node.any.concat(node.all, node.none).map((check) => check.message)[0] ?? ""}`).join(" | ")}`)"""


def problems(page: Page, where: str) -> list[str]:
    """What is serious or worse, in a line each."""
    if not page.evaluate("'axe' in window"):
        page.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    found: list[str] = page.evaluate(FOUND)
    return [f"{where}: {text}" for text in found]
