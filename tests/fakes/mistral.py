"""mistral-instruct-v0.2 on a hub of this machine: real repo ids and file names, weights that were built here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml

import registry
from tests.fakes.hub import HubServer, Repo
from tests.weights.built import BuiltWeights

NAME = "mistral-instruct-v0.2"
ENTRY = Path(registry.__file__).parent / "models" / f"{NAME}.yaml"
GGUF_REPO = "TheBloke/Mistral-7B-Instruct-v0.2-GGUF"
# Beside the weights lie files that no launch may fetch: pickles and pages.
NOT_WANTED: dict[str, bytes | Path] = {"pytorch_model.bin": b"a pickle", "README.md": b"read me", "LICENSE": b"text"}

Kind = Literal["smollm2", "mistral"]


def publish_mistral(hub: HubServer, weights: BuiltWeights, kind: Kind) -> None:
    """Put all formats of `kind` into the repos that the catalogue names."""
    pytorch = weights["smollm2-pytorch"] if kind == "smollm2" else weights["mistral"] / "pytorch"
    hub.add_repo("mistralai/Mistral-7B-Instruct-v0.2", _files(pytorch))
    hub.add_repo("TheBloke/Mistral-7B-Instruct-v0.2-GPTQ", _files(weights[f"{kind}-gptq"]))
    hub.add_repo("TheBloke/Mistral-7B-Instruct-v0.2-AWQ", _files(weights[f"{kind}-awq"]))
    quantizations = weights[f"{kind}-gguf"].iterdir()
    hub.add_repo(GGUF_REPO, NOT_WANTED | {f"mistral-7b-instruct-v0.2.{file.name}": file for file in quantizations})


def _files(folder: Path) -> dict[str, bytes | Path]:
    return NOT_WANTED | {file.name: file for file in folder.iterdir()}


def write_layer(hub: HubServer, layer: Path, kind: Kind) -> None:
    """Write the catalogue's own entry with the commits, sizes and hashes that the hub has, as a registry layer."""
    entry = yaml.safe_load(ENTRY.read_text("utf-8"))
    specs = [spec for spec in entry["specs"] if "huggingface" in spec["sources"]]
    for spec in specs:
        source = spec["sources"]["huggingface"]
        spec["sources"] = {"huggingface": _pinned(source, hub.repos[source["repo_id"]])}
    entry["specs"] = specs
    if kind == "smollm2":  # another model, which has a template of its own
        del entry["chat"]
    layer.write_text(yaml.safe_dump(entry, sort_keys=False, allow_unicode=True), "utf-8")


def _pinned(source: dict[str, Any], repo: Repo) -> dict[str, Any]:
    wanted = {name: file for name, file in repo.files.items() if name not in NOT_WANTED}
    pins = {name: {"size_bytes": file.size_bytes, "sha256": file.sha256} for name, file in wanted.items()}
    kept = {key: value for key, value in source.items() if key != "quantization_config"}
    return kept | {"revision": repo.commit, "files": pins}
