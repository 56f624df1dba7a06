"""What is unpacked, and what is refused; whatever an archive says, nothing is written outside its folder."""

from __future__ import annotations

import hashlib
import io
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.archive import MAX_FILES, ArchiveFile, extract, read_members
from registry.errors import UnsafeFileError
from registry.tar_header import MAX_HEADERS
from tests.registry.archives import MISTRAL, entry, pack, pack_entries, patched
from tests.registry.entries import PATIENT

LAYOUTS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def _names(archive: bytes) -> list[str]:
    return [member.path for member in read_members(ArchiveFile(io.BytesIO(archive)), "x.tar")]


def _unpack(archive: bytes, folder: Path) -> dict[str, bytes]:
    file = io.BytesIO(archive)
    hashes = extract(file, read_members(ArchiveFile(file), "x.tar"), folder)
    found = {path: (folder / path).read_bytes() for path in hashes}
    assert {path: hashlib.sha256(content).hexdigest() for path, content in found.items()} == hashes
    return found


def _refusal(archive: bytes) -> str:
    with pytest.raises(UnsafeFileError) as caught:
        _names(archive)
    assert caught.value.hint is not None
    return caught.value.message


# --- what is unpacked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_are_unpacked_with_their_hashes(tmp_path: Path, layout: int) -> None:
    assert _unpack(pack(MISTRAL, layout=layout), tmp_path) == MISTRAL


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(layout: int) -> None:
    name = "/".join(("deep" * 20, "name" * 40, "é" * 90))
    assert _names(pack({name: b"x", "y": b""}, layout=layout)) == [name, "y"]


def test_names_in_two_fields() -> None:
    name = "folder/" * 20 + "file"
    assert _names(pack({name: b"x", "y": b""}, layout=tarfile.USTAR_FORMAT)) == [name, "y"]


def test_one_folder_around_all_is_left_out() -> None:
    folder = (entry("mistral-7B", kind=tarfile.DIRTYPE), b"")
    files = [(entry(f"mistral-7B/{name}", len(data)), data) for name, data in MISTRAL.items()]
    assert _names(pack_entries([folder, *files])) == list(MISTRAL)


def test_the_folder_itself_and_a_dot_before_names() -> None:
    files = [(entry("./", kind=tarfile.DIRTYPE), b""), (entry("./params.json", 1), b"x")]
    assert _names(pack_entries(files)) == ["params.json"]


def test_sizes_beyond_what_octal_digits_hold() -> None:
    size = 14_483_464_192
    header = entry("consolidated.safetensors", size)

    class Large:
        size_bytes = size + 4096

        def __init__(self, head: bytes) -> None:
            self._head = head

        def read_at(self, position: int, count: int) -> bytes:
            return self._head[position : position + count] if position < len(self._head) else bytes(count)

    for layout in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        head = header.tobuf(layout)
        (member,) = read_members(Large(head), "x.tar")
        assert (member.size_bytes, member.offset) == (size, len(head))


def test_a_comment_for_all_files_is_passed_over() -> None:
    archive = pack_entries([(entry("a", 1), b"x")], layout=tarfile.PAX_FORMAT, facts={"comment": "made by git"})
    assert _names(archive) == ["a"]


def test_an_end_that_is_not_marked() -> None:
    assert _names(pack({"a": b"x"})[:1024]) == ["a"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry("a", kind=tarfile.SYMTYPE, target="/etc"), "a symbolic link"),
        (entry("a", kind=tarfile.LNKTYPE, target="/etc/passwd"), "a hard link"),
        (entry("a", kind=tarfile.CHRTYPE), "a device"),
        (entry("a", kind=tarfile.BLKTYPE), "a device"),
        (entry("a", kind=tarfile.FIFOTYPE), "a named pipe"),
        (entry("a", kind=tarfile.GNUTYPE_SPARSE), "a sparse file"),
        (entry("a", kind=tarfile.CONTTYPE), "an entry of kind b'7'"),
        (entry("../a"), "outside its folder"),
        (entry("ok/../../a"), "outside its folder"),
        (entry("/etc/a"), "outside its folder"),
        (entry("C:\\a"), "outside its folder"),
        (entry("a\\..\\b"), "outside its folder"),
        (entry("a\nb"), "outside its folder"),
        (entry("n" * 250), "outside its folder"),
        (entry("../folder", kind=tarfile.DIRTYPE), "outside its folder"),
    ],
)
def test_what_is_not_a_plain_file_in_the_folder(bad: tarfile.TarInfo, reason: str) -> None:
    assert reason in _refusal(pack_entries([(entry("fine", 1), b"x"), (bad, b"")]))


def test_a_link_that_a_file_would_be_written_through() -> None:
    link = entry("folder", kind=tarfile.SYMTYPE, target="/tmp")
    assert "a symbolic link" in _refusal(pack_entries([(link, b""), (entry("folder/a", 1), b"x")]))


@pytest.mark.parametrize(
    ("first", "second"), [("a", "a"), ("a", "A"), ("a", "./a"), ("\u00e9", "e\u0301"), ("\u00c9", "e\u0301")]
)
def test_a_name_that_comes_twice(first: str, second: str) -> None:
    archive = pack_entries([(entry(first, 1), b"x"), (entry(second, 1), b"y")])
    assert "twice" in _refusal(archive)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "a/B")])
def test_a_file_under_a_file(names: tuple[str, str]) -> None:
    assert "under a file" in _refusal(pack(dict.fromkeys(names, b"x")))


def test_too_many_files() -> None:
    assert f"more than {MAX_FILES} files" in _refusal(pack({f"f{n}": b"" for n in range(MAX_FILES + 1)}))


def test_too_many_folders() -> None:
    folders = [(entry(f"d{n}", kind=tarfile.DIRTYPE), b"") for n in range(MAX_HEADERS)]
    assert f"more than {MAX_HEADERS} entries" in _refusal(pack_entries(folders))


@pytest.mark.parametrize("facts", [{"path": "a"}, {"size": "1"}, {"linkpath": "/etc"}, {"GNU.sparse.major": "1"}])
def test_records_that_would_change_every_file(facts: dict[str, str]) -> None:
    assert "holds" in _refusal(pack_entries([(entry("b", 1), b"x")], layout=tarfile.PAX_FORMAT, facts=facts))


def test_a_sparse_file_of_the_pax_kind() -> None:
    info = entry("a", 1)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 60)}
    assert "a sparse file" in _refusal(pack_entries([(info, b"x")], layout=tarfile.PAX_FORMAT))


def test_a_record_that_would_fill_the_memory() -> None:
    info = entry("a", 1)
    info.pax_headers = {"path": "n" * 100_000}
    assert "over 64 KiB" in _refusal(pack_entries([(info, b"x")], layout=tarfile.PAX_FORMAT))


@pytest.mark.parametrize(
    "size", [b"-0000000001\0", b"\xff" * 12, b"99999999999\0", b"77777777777\0", b"\x80" + b"\x7f" * 11]
)
def test_a_size_that_leads_backwards_or_beyond_the_end(size: bytes) -> None:
    assert "is damaged" in _refusal(patched(pack({"a": b"x"}), 124, size))


def test_a_wrong_checksum() -> None:
    archive = pack({"a": b"x"})
    assert "checksum is wrong" in _refusal(b"b" + archive[1:])


@pytest.mark.parametrize("cut", [100, 600])
def test_an_archive_that_was_cut_off(cut: int) -> None:
    assert "it ends early" in _refusal(pack({"a": b"x" * 1000})[:cut])


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"BZh", b"PK\3\4", b"\xfd7zXZ"])
def test_compressed_archives_are_not_unpacked(magic: bytes) -> None:
    assert "is damaged" in _refusal(magic + bytes(range(256)) * 8)


def test_a_name_that_is_not_utf_8() -> None:
    assert "not UTF-8" in _refusal(patched(pack({"a": b"x"}), 0, b"\xff\xfe"))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(FileExistsError):
        _unpack(pack({"a": b"after"}), tmp_path)
    assert (tmp_path / "a").read_bytes() == b"before"


# --- in general ------------------------------------------------------------------------------------------------------

_parts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["..", ".", "", "/", "~"])
_any_names = st.lists(_parts, min_size=1, max_size=4).map("/".join).filter(lambda name: "\0" not in name)
_kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
_entries = st.builds(
    lambda name, kind, data: (name, kind, data if kind == tarfile.REGTYPE else b""),
    _any_names,
    _kinds,
    st.binary(max_size=1500),
)
_plain = st.from_regex(r"[a-z0-9_]{1,20}(\.[a-z]{1,4})?", fullmatch=True)


def _outside(folder: Path) -> set[Path]:
    return {path for path in folder.parent.rglob("*") if folder not in (path, *path.parents)}


@PATIENT
@given(entries=st.lists(_entries, max_size=5), layout=st.sampled_from(LAYOUTS[1:]))
def test_whatever_its_names_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes, bytes]], layout: int
) -> None:
    folder = tmp_path_factory.mktemp("any") / "folder"
    folder.mkdir()
    packed = [(entry(name, len(data), kind, target="../x"), data) for name, kind, data in entries]
    try:
        _unpack(pack_entries(packed, layout=layout), folder)
    except UnsafeFileError:
        assert not list(folder.iterdir())
    assert _outside(folder) == set()
    assert not any(path.is_symlink() for path in folder.rglob("*"))


@PATIENT
@given(files=st.dictionaries(_plain, st.binary(max_size=1500), min_size=1, max_size=6), layout=st.sampled_from(LAYOUTS))
def test_a_plain_archive_is_read_as_others_read_it(files: dict[str, bytes], layout: int) -> None:
    archive = io.BytesIO(pack(files, layout=layout))
    ours = [(member.path, member.size_bytes, member.offset) for member in read_members(ArchiveFile(archive), "x.tar")]
    archive.seek(0)
    with tarfile.open(fileobj=archive) as theirs:
        assert ours == [(each.name, each.size, each.offset_data) for each in theirs]


@PATIENT
@given(data=st.data())
def test_a_damaged_archive_ends_in_an_error_or_in_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    archive = bytearray(pack({"a/b": b"x" * 700, "c" * 150: b"y"}, layout=data.draw(st.sampled_from(LAYOUTS[1:]))))
    for _ in range(data.draw(st.integers(1, 8))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("any") / "folder"
    folder.mkdir()
    with suppress(UnsafeFileError):
        _unpack(patched(bytes(archive), 0, b""), folder)
    assert _outside(folder) == set()
