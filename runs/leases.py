"""Who owns a run right now. A lease is in the database; this registry is what one worker process knows of its own."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from django.utils import timezone

from runs import lifecycle, slots
from runs.engine.types import RunStatus
from runs.models import Run, WorkerHeartbeat
from runs.recording import Wishes


@dataclass(slots=True)
class Lease:
    """`stopped` is set when a person wants the run to stop, or when the lease is gone. `wishes` is what the last write
    of the run's row saw, until it is heeded."""

    run_id: uuid.UUID
    owner: str
    stopped: threading.Event = field(default_factory=threading.Event)
    wishes: Wishes | None = None
    thread: int = field(default_factory=threading.get_ident)

    def stop(self) -> None:
        """A person waits for this: the run's thread does not wait behind others for a slot."""
        self.stopped.set()
        slots.hurry(self.thread)


_held: dict[str, Lease] = {}
_lock = threading.Lock()


def process_name() -> str:
    """host:pid:start, so that a process of this host can be seen to be gone, even if its pid is used again."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


@contextmanager
def claimed(run_id: uuid.UUID) -> Iterator[Lease | None]:
    """The lease, or None when the run is not to be taken: somebody has it, it isn't due, or it has ended."""
    lease = Lease(run_id=run_id, owner=f"{process_name()}:{secrets.token_hex(4)}")
    if not lifecycle.claim_lease(run_id, lease.owner):
        yield None
        return
    with _lock:
        _held[lease.owner] = lease
    try:
        yield lease
    finally:
        with _lock:
            _held.pop(lease.owner, None)


def renew() -> None:
    lifecycle.renew_leases(_owners())


def watch() -> None:
    """Stops the runs of this process that a person wants stopped, or that it no longer owns."""
    owners = _owners()
    if not owners:
        return
    rows = Run.objects.filter(lease_owner__in=owners, status=RunStatus.RUNNING).values_list("lease_owner", "wish")
    still_ours = dict(rows)
    with _lock:
        held = list(_held.values())
    for lease in held:
        if lease.owner in owners and still_ours.get(lease.owner) != "":
            lease.stop()


def beat() -> None:
    WorkerHeartbeat.objects.update_or_create(worker=process_name(), defaults={"at": timezone.now()})
    WorkerHeartbeat.objects.filter(at__lt=timezone.now() - dt.timedelta(hours=1)).delete()


def free_lost() -> list[uuid.UUID]:
    """Puts runs back into the queue whose worker is gone: its lease has run out, or its process died on this host."""
    freed = []
    running = Run.objects.filter(status=RunStatus.RUNNING).values_list("id", "lease_owner", "lease_until")
    for run_id, owner, until in running:
        gone = until is None or until < timezone.now() or _is_dead(owner)
        if gone and lifecycle.free_lost_lease(run_id, owner):
            freed.append(run_id)
    return freed


def _owners() -> list[str]:
    with _lock:
        return list(_held)


def _is_dead(owner: str) -> bool:
    host, pid, started, *_ = [*owner.split(":"), "", "", ""]
    if host != socket.gethostname() or not pid.isdigit() or not started:
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """The kernel's start time of a process; empty where it cannot be read, and then only the lease's time counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "" if Path("/proc/self/stat").exists() is False else "gone"
