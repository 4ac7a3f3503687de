"""What the addresses of static files change with."""

from __future__ import annotations

import hashlib
from pathlib import Path


def content_version(folder: Path) -> str:
    """Names what is in the folder. As part of the address it lets browsers keep each file for good: modules import each
    other by relative addresses, so a change of one is a new address for all, without a build step."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
