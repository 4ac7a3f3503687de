"""What a request to the model says: the task, what every tool call so far came to, and what people said since."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from runs.samples.simulated.billing import blocks_of
from runs.samples.simulated.reply import JsonObject

RESULTS = "Results of the queued actions"
WRAP_UP = "Wrap up now"
QUEUED = "queued for approval"
SIMULATED = "simulated:"
MESSAGE = re.compile(r"Message from (?P<who>[^\n]*?)(?:, who watches this run)?:\s*(?P<text>.*)", re.DOTALL)
NOTE = re.compile(r"^rejected by a person(?: \((?P<by>[^)]*)\))?[.:]?\s*(?:Note:\s*)?(?P<note>.*)$", re.DOTALL)
NOT_DONE = re.compile(
    r"^not done: (?P<state>expired|cancelled|stale|revoked|superseded|failed|unknown)\b", re.IGNORECASE
)
JSON_START = re.compile(r"[{\[]")
NOTICE = "Notice from agentsite:"
CUT_OFF = "Your last turn was cut off"


@dataclass(slots=True)
class Use:
    """One tool call of an earlier turn. `state`: done, queued, simulated, rejected, error, or how a decision ended."""

    id: str
    tool: str
    args: JsonObject
    state: str = "error"
    text: str = "there was no result"
    data: Any = None
    note: str = ""
    by: str = ""
    was_queued: bool = False

    @property
    def happened(self) -> bool:
        return self.state == "done"

    @property
    def open(self) -> bool:
        return self.state == "queued"


@dataclass(frozen=True, slots=True)
class Note:
    """What a person said to the run. `fresh` until a turn of the model has followed it."""

    who: str
    text: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class ToolInfo:
    name: str
    properties: frozenset[str]


@dataclass(slots=True)
class Conversation:
    agent: str
    task: str
    tools: dict[str, ToolInfo]
    uses: list[Use] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    wrap_up: bool = False
    may_use_tools: bool = True

    def of(self, tool: str) -> list[Use]:
        return [use for use in self.uses if use.tool == tool]

    @property
    def said(self) -> str:
        """Task and people's messages: everything that a person asked for."""
        return "\n".join([self.task, *(note.text for note in self.notes)])


def read(body: JsonObject) -> Conversation:
    system = "\n".join(str(block.get("text", "")) for block in blocks_of(body.get("system")))
    name = re.search(r"You are (.+?)\.", system)
    tools = {
        short(str(tool.get("name"))): ToolInfo(
            str(tool.get("name")), frozenset((tool.get("input_schema") or {}).get("properties") or {})
        )
        for tool in body.get("tools") or []
    }
    choice = (body.get("tool_choice") or {}).get("type")
    found = Conversation(name.group(1) if name else "", "", tools, may_use_tools=choice != "none" and bool(tools))
    by_id: dict[str, Use] = {}
    for index, message in enumerate(body["messages"]):
        for block in blocks_of(message["content"]):
            if message["role"] == "assistant":
                _read_call(found, by_id, block)
            else:
                _read_answer(found, by_id, block, first=index == 0)
        if message["role"] == "assistant":
            found.notes = [Note(note.who, note.text, fresh=False) for note in found.notes]
    return found


def _read_call(found: Conversation, by_id: dict[str, Use], block: JsonObject) -> None:
    if block.get("type") == "tool_use":
        given = block["input"] if isinstance(block.get("input"), dict) else {}
        args = {key: value for key, value in given.items() if key not in ("reasoning", "confidence")}
        use = Use(str(block["id"]), short(str(block["name"])), args)
        by_id[use.id] = use
        found.uses.append(use)


def _read_answer(found: Conversation, by_id: dict[str, Use], block: JsonObject, *, first: bool) -> None:
    if block.get("type") == "tool_result" and block.get("tool_use_id") in by_id:
        text = "".join(str(part.get("text", "")) for part in blocks_of(block.get("content")))
        settle(by_id[block["tool_use_id"]], text, is_error=bool(block.get("is_error")))
        return
    text = str(block.get("text") or "").strip()
    message = MESSAGE.fullmatch(text)
    if text.startswith(NOTICE):
        return  # the script derives everything from results; what the machinery says about them is for real models
    if text.startswith(RESULTS):
        for line in json_values(text[len(RESULTS) :]):
            _read_outcome(by_id, line)
    elif text.startswith(WRAP_UP):
        found.wrap_up = True
    elif message:
        found.notes.append(Note(message["who"], message["text"].strip(), fresh=True))
    elif first:
        found.task = f"{found.task}\n{text}".strip()
    elif text and not text.startswith(CUT_OFF):
        found.notes.append(Note("", text, fresh=True))


def settle(use: Use, text: str, *, is_error: bool) -> None:
    """What the result of a call means. A refusal by a person is told from a tool's own error by its first words."""
    use.text, use.data = text, first_json(text)
    start = text.lstrip().casefold()
    ended = NOT_DONE.match(text.strip())
    rejected = NOTE.match(text.strip())
    if start.startswith(QUEUED):
        use.state, use.was_queued = "queued", True
    elif start.startswith(SIMULATED):
        use.state = "simulated"
    elif rejected:
        use.state, use.by, use.note = "rejected", rejected["by"] or "", rejected["note"].strip()
    elif ended:
        use.state = ended["state"].casefold()
    else:
        use.state = "error" if is_error else "done"


def _read_outcome(by_id: dict[str, Use], line: Any) -> None:
    use = by_id.get(str(line.get("tool_call_id"))) if isinstance(line, dict) else None
    if use is None:
        return
    outcome = str(line.get("outcome") or "unknown")
    use.state = {"succeeded": "done", "failed": "error"}.get(outcome, outcome)
    use.note, use.by = str(line.get("note") or "").strip(), str(line.get("by") or "").strip()
    result = line.get("result")
    use.text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    use.data = first_json(result) if isinstance(result, str) else result


def short(name: str) -> str:
    """`shop__get_order` and `shop.get_order` without the server they come from."""
    return re.split(r"__|\.", name)[-1]


def json_values(text: str) -> list[Any]:
    """Every JSON object or array in a text, in order. Of one that is cut off its whole parts are returned."""
    decoder = json.JSONDecoder()
    values: list[Any] = []
    at = 0
    while (match := JSON_START.search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, match.start())
        except ValueError:
            at = match.start() + 1
            continue
        values.append(value)
    return values


def first_json(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = next(iter(json_values(text)), None)
    # Some servers wrap a result that is no object.
    return value["result"] if isinstance(value, dict) and set(value) == {"result"} else value
