"""Wheels made on the spot, which uv and pip install like any other."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, bytes], *, requires: Sequence[str] = ()
) -> Path:
    """Write a wheel with `files` into `folder`, which is made if need be, and return its path."""
    folder.mkdir(exist_ok=True)
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    info = f"{name.replace('-', '_')}-{version}"
    content = {
        **files,
        f"{info}.dist-info/METADATA": metadata.encode(),
        f"{info}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_urlsafe(data)},{len(data)}\n" for path, data in content.items())
    wheel = folder / f"{info}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in {**content, f"{info}.dist-info/RECORD": record.encode()}.items():
            archive.writestr(path, data)
    return wheel


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
