"""For AgentBarrier's own command, `agentbarrier verify tests.agentbarrier.standalone:adapter`; see `make agentbarrier`.

On SQLite, or on the PostgreSQL that DATABASE_URL names; either way in a database made for this and removed afterwards.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.db import connection  # noqa: E402  (after the set-up)
from django.test.utils import setup_test_environment  # noqa: E402

from tests.agentbarrier.adapter import Agentsite  # noqa: E402


def adapter() -> Agentsite:
    setup_test_environment()
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    folder = tempfile.TemporaryDirectory()
    product = Agentsite(Path(folder.name))

    def clean_up() -> None:
        product.close()
        connection.creation.destroy_test_db(str(name), verbosity=0)
        folder.cleanup()

    atexit.register(clean_up)
    return product
