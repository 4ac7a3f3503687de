"""How the simulated model works: it states what it needs, and whatever has not been called yet becomes its next turn.

Nothing is remembered between turns. Every decision is derived again from the conversation, so a run that resumes on
another machine goes on at the same place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from runs.samples.simulated.conversation import Conversation, Use
from runs.samples.simulated.reply import JsonObject, Reply, ToolCall

SKIP = re.compile(
    r"\b(?:skip|ignore|leave out|leave alone|hold off on|(?:do not|don['’]t) (?:refund|touch))\b([^.;\n]*)",
    re.IGNORECASE,
)
HOPELESS = re.compile(r"there is no|not found|no such|unknown|do not fit|there is no tool named", re.IGNORECASE)
MAX_TRIES = 2

ABOUT = (
    "I am the simulated model of this installation: my replies are scripted, no language model is behind them. I can "
    "work the sample agents: the refund desk (refund requests by tag, ticket or order), supplier research (find "
    "and compare suppliers of a product), the nightly cleanup (delete stale exports, tickets and carts) and the report "
    "editor (a report on some topics of the shop's policy, with sub-agents)."
)


class Work:
    """One turn in the making. `wanted` are its calls; `problems` what went wrong for good, in words."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.wanted: list[ToolCall] = []
        self.problems: list[str] = []

    def has(self, *tools: str) -> bool:
        return all(tool in self.conversation.tools for tool in tools)

    def read(self, tool: str, why: str, **args: Any) -> JsonObject | None:
        """The result once there is one. None while the call is wanted, and when it failed for good (see `failed`)."""
        earlier = [use for use in self.conversation.of(tool) if use.args == args]
        good = [use for use in earlier if use.happened and isinstance(use.data, dict)]
        if good:
            data: JsonObject = good[-1].data
            return data
        if not self.has(tool):
            self._problem(f"the tool {tool} is not available to me")
        elif not earlier:
            self._call(tool, args, why, 0.98)
        elif self._gave_up(earlier):
            self._problem(f"{tool}({_shown(args)}) failed: {first_line(earlier[-1].text)}")
        else:
            self._call(tool, args, f"The first try failed ({first_line(earlier[-1].text)}), so once more.", 0.9)
        return None

    def effect(self, tool: str, key: Mapping[str, Any], args: JsonObject, why: str, confidence: float) -> Use | None:
        """The latest call whose arguments hold `key`. None when it was wanted just now, or the tool is not there."""
        earlier = self.find(tool, key)
        if earlier is not None:
            return earlier
        if self.has(tool):
            self._call(tool, args, why, confidence)
        return None

    def find(self, tool: str, key: Mapping[str, Any]) -> Use | None:
        matching = [use for use in self.conversation.of(tool) if key.items() <= use.args.items()]
        return matching[-1] if matching else None

    def again(self, tool: str, args: JsonObject, why: str, confidence: float) -> None:
        self._call(tool, args, why, confidence)

    def turn(self, text: str) -> Reply:
        """What to say now, with the calls that are wanted."""
        said = f"{self.acknowledgement()}{text}"
        return Reply(text=said, tools=tuple(self.wanted)) if self.wanted else Reply(text=said)

    def acknowledgement(self) -> str:
        fresh = [note for note in self.conversation.notes if note.fresh]
        lines = []
        for note in fresh:
            skipped = skipped_orders(note.text)
            what = f" I will leave {listed(skipped)} alone." if skipped else ""
            who = f" from {note.who}" if note.who else ""
            lines.append(f"Noted{who}: “{first_line(note.text)}”.{what}")
        return "".join(f"{line}\n\n" for line in lines)

    def _gave_up(self, earlier: Sequence[Use]) -> bool:
        return len(earlier) >= MAX_TRIES or bool(HOPELESS.search(earlier[-1].text))

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def _call(self, tool: str, args: JsonObject, why: str, confidence: float) -> None:
        info = self.conversation.tools[tool]
        extra = {"reasoning": why, "confidence": confidence}
        asked = {key: value for key, value in extra.items() if key in info.properties and key not in args}
        call = ToolCall(info.name, {**args, **asked})
        if call not in self.wanted:
            self.wanted.append(call)


def skipped_orders(text: str) -> list[str]:
    """Order and ticket numbers that somebody asked to leave out."""
    return [number for match in SKIP.finditer(text) for number in re.findall(r"\bT-\d+|\b\d{4,}\b", match.group(1))]


def not_mine(conversation: Conversation) -> Reply:
    """An honest answer to a task that no script knows."""
    name = conversation.agent or "This agent"
    work = Work(conversation)
    return work.turn(
        f"{ABOUT} This task is none of them, so {name} has done nothing. With a real model (an API key or a base URL "
        "in the environment) the same agent would work on it."
    )


def not_equipped(conversation: Conversation, missing: Sequence[str]) -> Reply:
    return Work(conversation).turn(
        f"{ABOUT} For this task I would need {listed(missing)}, which this agent does not have, so nothing was done."
    )


def describe(use: Use | None, done: str, what: str) -> str:
    """How one effect ended, in words: `done` says that it happened, `what` names it in every other case."""
    if use is None:
        return f"{what} was not asked for"
    by = f" by {use.by}" if use.by else ""
    note = f", with the note “{use.note}”" if use.note else ""
    match use.state:
        case "done":
            return done + note
        case "queued":
            return f"{what} waits for approval"
        case "simulated":
            return f"{what} was simulated only"
        case "rejected":
            return f"{what} was rejected{by}{note}"
        case "error":
            return f"{what} failed ({first_line(use.text).rstrip('.')})"
    return f"{what} is {use.state.replace('_', ' ')}{note}"


def first_line(text: str) -> str:
    line = next(iter(text.strip().splitlines()), "")
    return line if len(line) <= 160 else f"{line[:157]}..."


def _shown(args: Mapping[str, Any]) -> str:
    return ", ".join(str(value) for value in args.values())


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
