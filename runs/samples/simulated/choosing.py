"""Which of the sample tasks a task is."""

from __future__ import annotations

from collections.abc import Callable

from runs.samples.simulated import cleanup, desk, report, research

DESK, RESEARCH, CLEANUP, REPORT = "Refund desk", "Supplier research", "Nightly cleanup", "Report"
# The agent it was written for, a tool that only this task needs, and the words that a task of this kind holds.
KINDS = (
    (DESK, "read_ticket", desk.TASK),
    (RESEARCH, "read_supplier", research.TASK),
    (CLEANUP, "list_stale_records", cleanup.TASK),
)


def choose(agent: str, task: str, has_tool: Callable[[str], bool]) -> str:
    """The kind whose words the task holds: the agent's own first, then one whose tool is there. "" for none."""
    if agent in (report.EDITOR, report.SEARCHER, report.SUMMARISER, report.EVALUATOR) and report.TASK.search(task):
        return REPORT
    known = [(name, tool) for name, tool, words in KINDS if words.search(task)]
    own = [name for name, _ in known if name == agent]
    equipped = [name for name, tool in known if has_tool(tool)]
    return next(iter([*own, *equipped]), "")
