"""The Celery application. Celery is a doorbell here: no state lives in it (docs/decisions.md)."""

from __future__ import annotations

import os
from importlib import import_module

from celery import Celery
from celery.signals import worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")

app = Celery("agentsite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_ready.connect  # type: ignore[untyped-decorator]
def start_pulse(**_: object) -> None:
    """Beside the tasks, each worker process has one thread for what must not depend on the broker."""
    chores = import_module("agentsite.chores")  # only now: the apps are not loaded yet when this module is imported
    chores.start()
