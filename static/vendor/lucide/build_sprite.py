"""Write static/icons.svg from names.txt and an unpacked lucide-static package.

    npm pack lucide-static@1.62.0 && tar xzf lucide-static-1.62.0.tgz
    python static/vendor/lucide/build_sprite.py package/icons

Only the shapes are kept: colour, size and stroke come from the stylesheet.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "icons.svg"
BODY = re.compile(r"<svg[^>]*>(.*)</svg>", re.DOTALL)


def symbol(name: str, source: str) -> str:
    match = BODY.search(source)
    if match is None:
        raise SystemExit(f"{name}: no <svg> element")
    shapes = " ".join(match.group(1).split()).replace(" />", "/>").replace("> <", "><")
    return f'<symbol id="{name}" viewBox="0 0 24 24">{shapes}</symbol>'


def main(folder: Path) -> None:
    names = (HERE / "names.txt").read_text().split()
    symbols = [symbol(name, (folder / f"{name}.svg").read_text()) for name in sorted(set(names))]
    symbols.append((HERE / "brand.svg").read_text().strip())
    TARGET.write_text("\n".join(['<svg xmlns="http://www.w3.org/2000/svg">', *symbols, "</svg>", ""]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
