"""The endpoint that clients are tried with, of a model without weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from launcher import LaunchedModel
from launcher.testing import fake_model


@pytest.fixture
def model() -> Iterator[LaunchedModel]:
    with fake_model(name="fake-model") as model:
        yield model
