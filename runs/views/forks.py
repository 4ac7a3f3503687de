"""The form for a fork. Nothing typed is lost when it is refused."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from accounts.access import Right, get, rows
from accounts.http import HttpRequest
from runs import forks
from runs.errors import Invalid
from runs.models import Agent, Run, Step

FIELDS = ("agent", "task", "model", "output", "output_of")


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest, run_id: str) -> HttpResponse:
    run = get(request.access, Run.objects.select_related("agent", "agent_version"), run_id, right=Right.LAUNCH)
    if request.method != "POST":
        typed = {"agent": run.agent.slug, "task": run.task}
        return _form(request, run, _seq(request.GET.get("from", "1")), typed, {})
    typed = {name: request.POST.get(name, "").replace("\r\n", "\n") for name in FIELDS}
    seq = _seq(request.POST.get("from_seq", ""))
    changed = _is_changed(request, run, typed)
    if "show" in request.POST and not changed:
        return _form(request, run, seq, {**typed, "output_of": ""}, {})
    if errors := _errors(seq, typed, changed):
        return _form(request, run, seq, typed, errors)
    if "show" in request.POST:
        return _form(request, run, seq, typed, {})
    try:
        made = forks.fork(request.access, run.id, _wanted(run, seq, typed, changed))
    except Invalid as invalid:
        return _form(request, run, seq, typed, invalid.errors)
    return HttpResponseRedirect(reverse("runs:live", args=[made.id]), status=303)


def _errors(seq: int, typed: dict[str, str], changed: bool) -> dict[str, str]:
    errors = {}
    if not typed["task"].strip():
        errors["task"] = "Write what the agent should do."
    if changed and _seq(typed["output_of"]) != seq:
        errors["replace_output"] = (
            f"You changed the output of step {typed['output_of']}: fork from that step, or undo the change."
        )
    return errors


def _wanted(run: Run, seq: int, typed: dict[str, str], changed: bool) -> forks.Fork:
    """What was left as it is shown is not given: the run goes on with the real texts, also where they are redacted."""
    output = {"replace_output": _value(typed["output"])} if changed else {}
    return forks.Fork(
        from_seq=seq,
        agent="" if typed["agent"] == run.agent.slug else typed["agent"],
        task="" if typed["task"] == run.task.replace("\r\n", "\n") else typed["task"],
        model=typed["model"],
        **output,
    )


def _is_changed(request: HttpRequest, run: Run, typed: dict[str, str]) -> bool:
    """Whether the output of the step that was shown is another one now."""
    step = _step(request, run, _seq(typed["output_of"]))
    return step is not None and typed["output"] != _shown(step).replace("\r\n", "\n")


def _step(request: HttpRequest, run: Run, seq: int) -> Step | None:
    return rows(request.access, Step).filter(run=run, seq=seq).select_related("payload").first()


def _shown(step: Step) -> str:
    output = step.payload.output
    return output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)


def _value(text: str) -> Any:
    """JSON where it is some, else the text itself: tools return both."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _form(request: HttpRequest, run: Run, seq: int, typed: dict[str, str], errors: dict[str, str]) -> HttpResponse:
    step = _step(request, run, seq)
    if not typed.get("output_of") and step is not None and step.kind in forks.WITH_OUTPUT:
        typed = {**typed, "output": _shown(step), "output_of": str(seq)}
    context = {
        "run": run,
        "seq": seq,
        "step": step,
        "typed": typed,
        "errors": errors,
        "agents": rows(request.access, Agent).filter(current__isnull=False).select_related("current").order_by("slug"),
        "model": run.model or run.agent_version.definition.get("model") or "",
    }
    return render(request, "runs/fork.html", context, status=422 if errors else 200)


def _seq(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
