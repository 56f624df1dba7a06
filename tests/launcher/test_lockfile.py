"""`launch.lock` as a file: what is written is what is read, and nonsense is refused with a reason."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.lockfile import Locked, LockedEngine, LockedFile, LockedOptions, read_lock, write_lock
from registry.digest import Digest
from registry.errors import LockError
from tests.registry.entries import PATIENT

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
COUNT = st.integers(1, 2**40)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.text("abcXYZ019._-", min_size=1, max_size=20).filter(lambda name: name not in (".", ".."))
DIGESTS = st.one_of(
    st.none(),
    st.builds(lambda value: Digest("sha256", value), HEX),
    st.builds(lambda value: Digest("git-sha1", value[:40]), HEX),
    st.builds(lambda value: Digest("md5", value[:32]), HEX),
)
FILES = st.builds(LockedFile, st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.integers(0, 2**50), DIGESTS)
ENTRIES = st.builds(
    Locked,
    TEXT,
    TEXT,
    st.floats(0.001, 5000),
    TEXT,
    TEXT,
    TEXT,
    TEXT,
    st.lists(FILES, max_size=4).map(tuple),
    st.builds(LockedEngine, TEXT, st.none() | TEXT, st.none() | HEX, st.none() | TEXT),
    st.builds(LockedOptions, COUNT, COUNT, st.none() | COUNT, st.lists(TEXT, max_size=4).map(tuple)),
    st.none() | TEXT,
)
ONE = Locked(
    "own", "gguf", 0.5, "Q4_0", "huggingface", "org/own", "v1", (), LockedEngine("echo"), LockedOptions(2048, 4)
)


@settings(PATIENT, max_examples=25)  # of up to four entries each
@given(st.lists(ENTRIES, max_size=4, unique_by=lambda entry: entry.model))
def test_what_is_written_is_what_is_read(entries: list[Locked]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "launch.lock")
        write_lock(path, entries)
        assert set(read_lock(path)) == set(entries)
        first = path.read_bytes()
        write_lock(path, read_lock(path)[::-1])
        assert path.read_bytes() == first


def test_it_begins_with_what_it_is(tmp_path: Path) -> None:
    write_lock(tmp_path / "launch.lock", [ONE])
    first, *rest = (tmp_path / "launch.lock").read_text().splitlines()
    assert first.startswith("# What `launch --locked` runs")
    assert rest[1:4] == ["schema: 1", "models:", "- model: own"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("schema: 1", "schema: 2", "it is of schema 2, this version reads 1"),
        ("  hub: huggingface\n", "", "it has no `hub` where one belongs"),
        ("revision: v1", "revision: 0.5", "`0.5` is not text: put it in quotes"),
        ("concurrency: 4", "concurrency: none", "`none` is not a whole number of at least 1"),
        ("files: []", "files: [{path: ../x, size_bytes: 1}]", "would be written outside its folder"),
        ("files: []", "files: [{path: x, size_bytes: 1, sha256: abc}]", "`abc` is not a sha256"),
        ("files: []", "files: 7", "not iterable"),
        ("models:", "model:", "it has no `models` where one belongs"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = tmp_path / "launch.lock"
    write_lock(path, [ONE])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(LockError, match="makes no sense") as caught:
        read_lock(path)
    assert reason in caught.value.details[0]


@pytest.mark.parametrize("content", ["", "[]", "7", "schema"])
def test_so_is_what_is_no_lock_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "launch.lock").write_text(content)
    with pytest.raises(LockError, match="makes no sense"):
        read_lock(tmp_path / "launch.lock")


def test_what_is_no_yaml_and_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "broken.lock").write_text("a: [")
    with pytest.raises(LockError, match="cannot be read"):
        read_lock(tmp_path / "broken.lock")
    with pytest.raises(LockError, match="There is no"):
        read_lock(tmp_path / "launch.lock")
    with pytest.raises(LockError, match="cannot be written"):
        write_lock(tmp_path / "broken.lock" / "launch.lock", [ONE])
