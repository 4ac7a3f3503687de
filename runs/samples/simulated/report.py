"""The report: a searcher finds, a summariser writes, an evaluator judges; the editor asks each in turn.

All four are answered here, told apart by the agent's name. Facts come from the shop's own policy.
"""

from __future__ import annotations

import re

from runs.samples.simulated.conversation import Conversation, Use
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.work import Work, first_line, listed

EDITOR, SEARCHER, SUMMARISER, EVALUATOR = "Report editor", "Searcher", "Summariser", "Evaluator"
TASK = re.compile(r"\breport\b|\bbriefing\b|summar|\bsearch for\b|\bjudge\b", re.IGNORECASE)
QUESTION = re.compile(r"(?:report|briefing)\s+(?:on|about)\s+(?P<topics>[^.\n]+)", re.IGNORECASE)
FINDINGS = "Findings:"
PASSED = "Verdict: good."
MOST_TOPICS = 3
WORDS = 60


def respond(conversation: Conversation) -> Reply:
    work = Work(conversation)
    match conversation.agent:
        case name if name == SEARCHER:
            return _search(work)
        case name if name == SUMMARISER:
            return work.turn(_summary(conversation.task))
        case name if name == EVALUATOR:
            return work.turn(_verdict(conversation.task))
    return _edit(work)


def topics_of(task: str) -> list[str]:
    match = QUESTION.search(task)
    named = re.split(r",\s*(?:and\s+)?|\s+and\s+", match["topics"]) if match else [task]
    return [topic.strip() for topic in named if topic.strip()][:MOST_TOPICS]


def _edit(work: Work) -> Reply:
    topics = topics_of(work.conversation.task)
    searches = [_asked(work, "searcher", f"Search for: {topic}") for topic in topics]
    if work.wanted:
        return work.turn(f"{listed(topics)}: a searcher looks into each, side by side.")
    found = [_answer(use) for use in searches if use is not None]
    if not any(found):
        return work.turn("No search brought anything, so there is nothing to report.")
    summary = _answer(_asked(work, "summariser", f"Summarise for a busy reader. {FINDINGS}\n" + "\n".join(found)))
    if work.wanted:
        return work.turn("The searches are back. The summariser makes one text of them.")
    verdict = _answer(_asked(work, "evaluator", f"Judge this summary against its findings.\n{summary}"))
    if work.wanted:
        return work.turn("An evaluator that has not seen how it was made judges the text.")
    return work.turn(f"{summary}\n\n{verdict}".strip())


def _asked(work: Work, agent: str, task: str) -> Use | None:
    key = {"agent": agent, "task": task}
    return work.effect("delegate", key, {**key, "budget": 0.1}, f"This is the {agent}'s part.", 0.95)


def _answer(use: Use | None) -> str:
    data: JsonObject = use.data if use is not None and isinstance(use.data, dict) else {}
    return str(data.get("answer") or "") if use is not None and use.happened else ""


def _search(work: Work) -> Reply:
    topic = work.conversation.task.partition(":")[2].strip() or work.conversation.task
    found = work.read("search_policy", "The policy is where rules of the shop are written.", query=topic)
    if work.wanted:
        return work.turn(f"I look up {topic}.")
    sections = (found or {}).get("sections") or []
    lines = [f"- {section.get('title')}: {first_line(str(section.get('text') or ''))}" for section in sections]
    return work.turn("\n".join(lines[:4]) or f"Nothing was found on {topic}.")


def _summary(task: str) -> str:
    findings = [line.removeprefix("- ") for line in task.partition(FINDINGS)[2].splitlines() if line.startswith("- ")]
    kept = list(dict.fromkeys(findings))
    return "\n".join(f"- {' '.join(line.split()[:WORDS])}" for line in kept) or "There was nothing to summarise."


def _verdict(task: str) -> str:
    lines = [line for line in task.splitlines() if line.startswith("- ")]
    return f"{PASSED} {len(lines)} points, each with its source." if lines else "Verdict: poor. It says nothing."
