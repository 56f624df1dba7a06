"""Makes a catalogue entry of a file or folder on disk, so that a path can stand wherever a name can."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry.errors import CatalogueError
from registry.spec import Chat, Model, Source, Spec

_QUANTIZED_FORMATS = {"gptq": "gptq", "awq": "awq", "fp8": "fp8", "bitsandbytes": "bnb"}


def is_path(name: str) -> bool:
    """True for what can only be meant as a path: `./m.gguf`, `~/m`, `/m`, or anything that ends in `.gguf`."""
    return name.startswith(("./", "../", "/", "~")) or name in (".", "..") or name.lower().endswith(".gguf")


def read_local_model(name: str) -> Model:
    """Return an entry for the GGUF file or the folder of safetensors at a path; its weights stay where they are.

    Raises CatalogueError for what is not there, or is neither.
    """
    path = Path(name).expanduser().absolute()
    if path.is_dir():
        return _model_of_folder(path)
    if not path.is_file():
        raise CatalogueError(f"There is no file or folder `{name}`", hint="launch list shows the models known by name")
    return _model_of_file(path)


def _model_of_file(path: Path) -> Model:
    from registry.gguf_header import read_gguf_facts

    facts = read_gguf_facts(path)
    spec = Spec(
        model_format="gguf",
        size_in_billions=facts.parameters / 1e9 if facts.parameters else 0,
        quantizations=(facts.quantization,),
        sources=(Source(hub="local", repo_id=str(path), file=path.name),),
    )
    abilities = ("chat",) if facts.has_template else ("generate",)
    return Model(name=_plain(path.stem), specs=(spec,), abilities=abilities, context_length=facts.context_length)


def _model_of_folder(path: Path) -> Model:
    single = sorted(path.glob("*.gguf"))
    if len(single) == 1:
        return _model_of_file(single[0])
    if len(single) > 1:
        names = [file.name for file in single]
        raise CatalogueError(f"`{path}` holds {len(names)} GGUF files", hint=f"launch {single[0]}", details=names)
    configuration = _read_json(path / "config.json")
    if configuration is None or not list(path.glob("*.safetensors")):
        raise CatalogueError(
            f"`{path}` holds no model that can be launched",
            details=("wanted: a GGUF file, or config.json beside safetensors",),
        )
    return _model_of_configuration(path, configuration)


def _model_of_configuration(path: Path, configuration: Mapping[str, Any]) -> Model:
    quantized = configuration.get("quantization_config") or {}
    model_format = _QUANTIZED_FORMATS.get(str(quantized.get("quant_method", "")).lower(), "pytorch")
    quantization = f"Int{quantized.get('bits', 4)}" if model_format in ("gptq", "awq") else "none"
    size_bytes = sum(os.path.getsize(file) for file in path.glob("*.safetensors"))
    spec = Spec(
        model_format=model_format,
        size_in_billions=round(size_bytes / 2e9, 3),
        quantizations=(quantization,),
        sources=(Source(hub="local", repo_id=str(path), quantization_config=quantized),),
    )
    abilities = ("chat",) if _has_template(path) else ("generate",)
    return Model(
        name=_plain(path.name),
        specs=(spec,),
        abilities=abilities,
        context_length=configuration.get("max_position_embeddings"),
        chat=Chat(),
    )


def _plain(name: str) -> str:
    """Return a name that no command line takes for an option, and that writes nothing to a terminal but itself."""
    return "".join(filter(str.isprintable, name)).lstrip("-") or "model"


def _has_template(path: Path) -> bool:
    tokenizer = _read_json(path / "tokenizer_config.json") or {}
    return (path / "chat_template.jinja").exists() or bool(tokenizer.get("chat_template"))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
