"""The simulated model itself: plans, evaluates, and works the sample agents' tasks."""

from __future__ import annotations

from collections.abc import Callable

from runs.samples.simulated import choosing, cleanup, desk, planning, report, research
from runs.samples.simulated.conversation import Conversation, read
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.work import not_mine

SCRIPTS: dict[str, Callable[[Conversation], Reply]] = {
    choosing.DESK: desk.respond,
    choosing.RESEARCH: research.respond,
    choosing.CLEANUP: cleanup.respond,
    choosing.REPORT: report.respond,
}


def respond(body: JsonObject) -> Reply:
    structured = planning.respond(body)
    if structured is not None:
        return structured
    conversation = read(body)
    kind = choosing.choose(conversation.agent, conversation.task, conversation.tools.__contains__)
    reply = SCRIPTS.get(kind, not_mine)(conversation)
    schema = planning.schema_of(body)
    if schema and not reply.tools:
        return Reply(data=planning.fill(schema, reply.text))
    return reply
