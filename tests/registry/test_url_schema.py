"""What a source at a plain address may say, and what the types make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry.cache import cache_folder
from registry.catalogue import read_catalogue
from registry.errors import SchemaError, UnknownModelError
from registry.hubs import open_hub
from registry.schema import validate_entry
from registry.selection import MAX_NAME_BYTES
from registry.spec import PinnedFile, Source
from tests.registry.entries import PATIENT, entry, model, write_yaml

ADDRESS = "https://models.example.org/small-v0.1/Small-7B.tar"
FOLDER = "https://models.example.org/small/"
MD5 = "0123456789abcdef" * 2
SHA256 = MD5 * 2


def _entry(**source: Any) -> dict[str, Any]:
    """Return an entry with one spec, published at an address."""
    spec = {"format": "mistral", "size_in_billions": 7, "quantizations": ["none"], "sources": {"url": source}}
    return entry(specs=[spec])


def _source(**source: Any) -> Source:
    return model(specs=_entry(**source)["specs"]).specs[0].sources[0]


def test_an_archive_is_pinned_by_its_checksum() -> None:
    source = _source(address=ADDRESS, mirrors=["https://old.example.org/Small-7B.tar"], md5=MD5)
    assert (source.hub, source.repo_id, source.revision) == ("url", ADDRESS, f"md5:{MD5}")
    assert source.mirrors == ("https://old.example.org/Small-7B.tar",)
    assert source.is_pinned


def test_the_stronger_checksum_counts() -> None:
    assert _source(address=ADDRESS, md5=MD5, sha256=SHA256).revision == f"sha256:{SHA256}"


def test_a_folder_is_pinned_file_by_file() -> None:
    source = _source(address=FOLDER, file="x.gguf", files={"x.gguf": {"md5": MD5, "size_bytes": 3}})
    assert (source.repo_id, source.revision, source.is_pinned) == (FOLDER, None, True)
    assert source.files == {"x.gguf": PinnedFile(3, md5=MD5)}


@pytest.mark.parametrize(
    "address",
    [
        "https://x.org/a/b_c+d@e~f-1.0.tar",
        "https://x.org:8443/a.tar",
        "https://x.org/small-{quantization}.tar",
        "http://127.0.0.1:8000/a.tar",
        "http://localhost/a.tar",
    ],
)
def test_addresses(address: str) -> None:
    assert _source(address=address, md5=MD5).repo_id == address


@pytest.mark.parametrize(
    "address",
    [
        "http://x.org/a.tar",
        "http://localhost.x.org/a.tar",
        "http://127.0.0.1.x.org/a.tar",
        "https://me:secret@x.org/a.tar",
        "https://x.org/a.tar?signature=x",
        "https://x.org/a.tar#x",
        "https://x.org/a.tar.gz",
        "https://x.org/a.zip",
        "https://x.org/../a.tar\n",
        "https://x.org/a b.tar",
        "https://x.org/é.tar",
        "https://-x.org/a.tar",
        "ftp://x.org/a.tar",
        "file:///etc/a.tar",
        "a.tar",
        "",
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValidationError, match=r"is not an https address that ends in `\.tar`"):
        validate_entry(_entry(address=address, md5=MD5))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"md5": MD5}, "is missing"),
        ({"repo_id": "org/small"}, "is missing"),
        ({"address": ADDRESS}, "needs its `md5` or `sha256`"),
        ({"address": ADDRESS, "md5": MD5, "files": {"x": {"md5": MD5}}}, "and no `files`"),
        ({"address": ADDRESS, "md5": MD5, "revision": "main"}, "does not go with the hub `url`"),
        ({"address": ADDRESS, "md5": MD5, "repo_id": "org/x"}, "does not go with the hub `url`"),
        ({"address": ADDRESS, "md5": MD5, "mirrors": [FOLDER]}, "is not of the same kind as `address`"),
        ({"address": FOLDER}, "needs `files` with their checksums"),
        ({"address": FOLDER, "md5": MD5, "files": {"x": {"md5": MD5}}}, "needs `files` with their checksums"),
        ({"address": FOLDER, "files": {"x": {"size_bytes": 3}}}, "needs its `md5` or `sha256`"),
        ({"address": ADDRESS, "md5": MD5.upper()}, "is not an MD5"),
        ({"address": ADDRESS, "sha256": MD5}, "is not a SHA-256"),
    ],
)
def test_what_would_leave_bytes_unverified_is_no_source(source: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        validate_entry(_entry(**source))


@pytest.mark.parametrize("key", ["address", "mirrors", "md5", "sha256"])
def test_repos_have_no_addresses(key: str) -> None:
    value = {"address": ADDRESS, "mirrors": [ADDRESS], "md5": MD5, "sha256": SHA256}[key]
    data = _entry()
    data["specs"][0]["sources"] = {"huggingface": {"repo_id": "org/small", key: value}}
    with pytest.raises(ValidationError, match="does not go with the hub `huggingface`"):
        validate_entry(data)


_segments = st.lists(
    st.sampled_from(["..", ".", "a", "B-1", "~", "@", "+", "é", "x" * 300, " ", "{quantization}", "%2e"])
)


@PATIENT
@given(segments=_segments, ending=st.sampled_from(["/", ".tar", "/.tar"]))
def test_whatever_the_address_its_files_go_to_one_folder_of_ours(segments: list[str], ending: str) -> None:
    address = "/".join(["https://x.org", *segments]) + ending
    facts: dict[str, Any] = {"files": {"x": {"md5": MD5}}} if ending == "/" else {"md5": MD5}
    try:
        source = _source(address=address, **facts)
    except ValidationError:
        return
    folder = open_hub("url").snapshot(source, "none")
    assert folder.parent == cache_folder() / "url"
    assert folder.name not in ("", ".", "..")
    assert len(folder.name.encode()) <= MAX_NAME_BYTES


def test_other_bytes_of_an_address_go_to_another_folder() -> None:
    sources = [_source(address=ADDRESS, md5=MD5), _source(address=ADDRESS, sha256=SHA256)]
    assert len({open_hub("url").snapshot(source, "none") for source in sources}) == 2


YAML = f"""\
name: small
specs:
  - format: mistral
    size_in_billions: 7
    quantizations: [none]
    sources:
      url:
        address: {ADDRESS}
        revision: main
        md5: {MD5}
"""


def test_an_error_names_the_line_of_the_key(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="does not go with the hub `url`") as caught:
        read_catalogue([write_yaml(tmp_path / "small.yaml", YAML)])
    assert (caught.value.line, caught.value.key) == (9, "specs.0.sources.url.revision")


def test_an_address_is_nobodys_name(tmp_path: Path) -> None:
    catalogue = read_catalogue([write_yaml(tmp_path / "small.yaml", YAML.replace("        revision: main\n", ""))])
    assert catalogue.find("small").model.specs[0].sources[0].repo_id == ADDRESS
    with pytest.raises(UnknownModelError):
        catalogue.find(ADDRESS)
