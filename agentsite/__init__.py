"""Composition only: settings, addresses, the ASGI and Celery applications."""

from __future__ import annotations

from agentsite.celery import app as celery_app  # every process that sends a task must know its broker

__all__ = ["celery_app"]
