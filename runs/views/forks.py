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

FIELDS = ("agent", "task", "model", "output", "replace")


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest, run_id: str) -> HttpResponse:
    run = get(request.access, Run.objects.select_related("agent", "agent_version"), run_id, right=Right.LAUNCH)
    if request.method == "POST":
        typed = {name: request.POST.get(name, "").replace("\r\n", "\n") for name in FIELDS}
        seq = _seq(request.POST.get("from_seq", ""))
        try:
            made = forks.fork(request.access, run.id, _wanted(run, seq, typed))
        except Invalid as invalid:
            return _form(request, run, seq, typed, invalid.errors)
        return HttpResponseRedirect(reverse("runs:live", args=[made.id]), status=303)
    return _form(request, run, _seq(request.GET.get("from", "1")), {"agent": run.agent.slug, "task": run.task}, {})


def _wanted(run: Run, seq: int, typed: dict[str, str]) -> forks.Fork:
    output = {"replace_output": _value(typed["output"])} if typed["replace"] else {}
    agent = "" if typed["agent"] == run.agent.slug else typed["agent"]
    return forks.Fork(from_seq=seq, agent=agent, task=typed["task"], model=typed["model"], **output)


def _value(text: str) -> Any:
    """JSON where it is some, else the text itself: tools return both."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _form(request: HttpRequest, run: Run, seq: int, typed: dict[str, str], errors: dict[str, str]) -> HttpResponse:
    steps = rows(request.access, Step).filter(run=run, seq=seq)
    step = steps.select_related("payload").first()
    has_output = step is not None and step.kind in forks.WITH_OUTPUT
    if step is not None and has_output and "output" not in typed:
        output = step.payload.output
        typed = {**typed, "output": output if isinstance(output, str) else json.dumps(output, indent=2)}
    context = {
        "run": run,
        "seq": seq,
        "step": step,
        "has_output": has_output,
        "typed": typed,
        "errors": errors,
        "agents": rows(request.access, Agent).filter(current__isnull=False).select_related("current").order_by("slug"),
        "model": run.model or run.agent_version.definition.get("model") or "",
    }
    return render(request, "runs/fork.html", context, status=422 if errors else 200)


def _seq(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
