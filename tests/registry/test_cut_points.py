"""That kill -9 at any byte loses nothing that was whole: CUT_POINTS says at how many, CUT_SEED at which others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.fakes.hub import HubServer
from tests.fakes.tensors import SIZES, publish
from tests.registry.cut_points import cut_at, cut_points

pytestmark = pytest.mark.downloads

LIMIT = 1.05  # of the size may be sent; the rest is what was on its way when the process was killed
CONNECTION_BYTES_PER_S = 16_000_000  # or more would be on its way than a network holds


def test_a_pull_that_is_killed_anywhere(hub: HubServer, tmp_path: Path) -> None:
    count, seed = int(os.environ.get("CUT_POINTS", "10")), int(os.environ.get("CUT_SEED", "4"))
    folder = tmp_path / "published"
    folder.mkdir()
    commit = publish(hub, folder)
    hub.bytes_per_s = CONNECTION_BYTES_PER_S
    cuts = []
    for at_byte in cut_points(seed, count, sum(SIZES)):
        cuts.append(cut_at(hub, commit, at_byte))
        sys.stdout.write(f"{cuts[-1]}\n")
    ratios = sorted(cut.ratio for cut in cuts)
    sys.stdout.write(
        f"{count} cuts, seed {seed}: {sum(cut.is_right for cut in cuts)} right;"
        f" sent of the size: median {ratios[count // 2]:.4f}, at most {ratios[-1]:.4f}\n"
    )
    assert [cut for cut in cuts if not cut.is_right or cut.ratio > LIMIT] == []
    assert min(cut.ratio for cut in cuts) >= 1
