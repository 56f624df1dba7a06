"""Print what an installed folder weighs, by distribution, and fail above the limit: `python size.py FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

LIMIT_MB = 120


def size_bytes(distribution: Distribution) -> int:
    """Return the bytes of the files that the distribution says are its own."""
    return total_bytes(Path(str(file.locate())) for file in distribution.files or ())


def total_bytes(files: Iterable[Path]) -> int:
    """Return the bytes of `files`, byte code not counted: nobody ships it."""
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB)
    arguments = parser.parse_args()
    sizes = {found.name: size_bytes(found) for found in distributions(path=[str(arguments.folder)])}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{size / 1e6:8.2f} MB  {name}")
    total = total_bytes(arguments.folder.rglob("*")) / 1e6
    print(f"{total:8.2f} MB  in all, {len(sizes)} distributions, limit {arguments.limit_mb:g} MB")
    return int(total > arguments.limit_mb)


if __name__ == "__main__":
    sys.exit(main())
