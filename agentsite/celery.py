"""The Celery application. Celery is a doorbell here: no state lives in it (docs/decisions.md)."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from celery import Celery, bootsteps
from celery.signals import worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")

app = Celery("agentsite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
LOOK_EVERY_S = 0.05


class LooksForRoom(bootsteps.StartStopStep):  # type: ignore[misc]
    """A full worker takes nothing from the broker, and Celery sees that a place has become free only when its loop goes
    round: each second, while nothing else happens."""

    requires = ("celery.worker.consumer:Tasks",)

    def start(self, consumer: Any) -> None:
        if consumer.hub is not None:
            consumer.hub.call_repeatedly(LOOK_EVERY_S, _nothing)


def _nothing() -> None:
    """The loop has gone round."""


app.steps["consumer"].add(LooksForRoom)


@worker_ready.connect  # type: ignore[untyped-decorator]
def start_pulse(**_: object) -> None:
    """Beside the tasks, each worker process has one thread for what must not depend on the broker."""
    chores = import_module("agentsite.chores")  # only now: the apps are not loaded yet when this module is imported
    chores.start()
