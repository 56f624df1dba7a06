"""What making an environment tells while it goes on, and what is said where it fails."""

from __future__ import annotations

import os

import pytest

from engines.base import Requirements
from engines.installing import UvLines, lines_of, torch_source, uv_sources
from engines.uv_trouble import trouble_in
from registry.progress import Progress

UV_SAYS = """\
Resolved 3 packages in 520ms
Downloading torch (182.9MiB)
Downloading numpy (16.1MiB)
   Building llama-cpp-python==0.3.36
 Downloaded numpy
 Downloaded torch
      Built llama-cpp-python==0.3.36
Installed 3 packages in 6ms
 + torch==2.13.0+cpu
"""


def test_uvs_lines_become_progress() -> None:
    seen: list[Progress] = []
    tell = UvLines(seen.append)
    for line in UV_SAYS.splitlines():
        tell(line)
    assert [(progress.done, progress.text) for progress in seen] == [
        (0, "Resolved 3 packages in 520ms"),
        (0, "fetching torch 192 MB"),
        (0, "fetching torch 192 MB, numpy 17 MB"),
        (0, "building llama-cpp-python 0.3.36 from source, which may take minutes"),
        (16882073, "17 MB here, fetching torch 192 MB"),
        (208666623, "209 MB here"),
        (208666623, "Built llama-cpp-python==0.3.36"),
        (208666623, "Installed 3 packages in 6ms"),
        (208666623, "+ torch==2.13.0+cpu"),
    ]


def test_a_silence_says_how_long_the_last_thing_takes() -> None:
    seen: list[str] = []
    now = iter((0.0, 5.0, 15.0, 130.0))
    tell = UvLines(lambda progress: seen.append(progress.text), lambda: next(now))
    tell("   Building slow==1")
    tell(None)
    tell(None)
    building = "building slow 1 from source, which may take minutes"
    assert seen == [building, f"{building}: 0:10", f"{building}: 2:05"]


def test_lines_come_as_they_are_written_and_silence_as_none() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as out:
        lines = lines_of(stream, silence_s=0.01)
        out.write(b"one\ntw")
        assert next(lines) == "one"
        assert next(lines) is None
        out.write(b"o\nrest")
        assert next(lines) == "two"
        out.close()
        assert [line for line in lines if line is not None] == ["rest"]


TORCH = Requirements("torch", "torch", ">=2", "x.txt", torch_backend="cpu", index_url="https://upstream.example/whl")
UPSTREAM = {"UV_INDEX": "https://upstream.example/whl"}


@pytest.mark.parametrize(
    ("environ", "sources", "torch"),
    [
        ({}, UPSTREAM, {"UV_TORCH_BACKEND": "cpu"}),
        ({"UV_TORCH_BACKEND": "auto"}, UPSTREAM, {}),
        ({"PIP_FIND_LINKS": "/wheels"}, {"UV_FIND_LINKS": "/wheels", **UPSTREAM}, {}),
        (
            {"PIP_INDEX_URL": "https://mirror.example/simple"},
            {"UV_DEFAULT_INDEX": "https://mirror.example/simple", **UPSTREAM},
            {},
        ),
        (
            {"UV_INDEX": "https://own.example/simple"},
            {"UV_INDEX": "https://upstream.example/whl https://own.example/simple"},
            {},
        ),
    ],
)
def test_indexes_of_upstream_come_beside_the_users_own(
    environ: dict[str, str], sources: dict[str, str], torch: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("UV_", "PIP_")):
            monkeypatch.delenv(name)
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", **environ}.items():
        monkeypatch.setenv(name, value)
    plain = TORCH._replace(index_url="")
    assert uv_sources(TORCH, os.environ) == sources
    assert torch_source(plain, uv_sources(plain, os.environ)) == torch


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "error: Failed to install: numpy.whl\n  cause: failed to copy file: No space left on device (os error 28)",
            "the disk is full",
        ),
        (
            "  × Failed to build `llama-cpp-python==0.3.36`\n  ├─▶ The build backend returned an error\n"
            "      CMake Error: CMAKE_CXX_COMPILER not set, after EnableLanguage",
            "`llama-cpp-python==0.3.36` must be compiled, and there is no compiler here",
        ),
        (
            "error: Failed to build `pypcre==0.6.4`\n         error: [Errno 2] No such file or directory: 'gcc'\n",
            "`pypcre==0.6.4` must be compiled, and there is no compiler here",
        ),
        (
            "error: Failed to build `pypcre==0.6.4`\n  a.c:1:10: fatal error: Python.h: No such file or directory\n",
            "`pypcre==0.6.4` must be compiled, and Python's headers are not here",
        ),
        (
            "  × Failed to build `gptqmodel==7.6.0`\n      RuntimeError: something else",
            "`gptqmodel==7.6.0` could not be built from its source",
        ),
        (
            "error: Request failed after 3 retries\n  cause: error sending request for url\n  cause: tcp connect error",
            "the package index cannot be reached",
        ),
        (
            "error: Failed to fetch: `https://x/simple/torch/`\n  cause: HTTP status client error (403 Forbidden)",
            "the package index refuses access",
        ),
        (
            "error: No solution found\n  cause: Because there is no version of torch==2.0+cpu and",
            "`torch==2.0+cpu` is not on the package index",
        ),
        ("error: something new", "something new"),
        ("", "uv failed"),
    ],
)
def test_uvs_last_words_become_a_cause(output: str, message: str) -> None:
    assert trouble_in(output).message == message
