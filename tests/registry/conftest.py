"""The hub on this machine, with the clients' variables pointing at it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.fakes.hub import HubServer

# Read when the client is imported, which is when tests are collected: it would look for huggingface.co otherwise.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.huggingface_url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.modelscope_url)
        yield server
