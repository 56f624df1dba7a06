"""A model and its tokenizer, loaded by Transformers from local files: safetensors in any quantization, or a GGUF."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

NEVER_ENDS = -1


class Loaded(NamedTuple):
    """What runs: the model in evaluation mode, its tokenizer, and the tokens that end a text."""

    model: Any
    tokenizer: Any
    end_ids: tuple[int, ...]


def say(stage: str) -> None:
    """Tell the log what goes on, for the launcher to show."""
    print(f"transformers: {stage}", file=sys.stderr, flush=True)


def load(options: argparse.Namespace) -> Loaded:
    """Return the model of the options `model`, `quantize`, `dtype`, `attn_implementation`, `trust_remote_code`.

    Raises what Transformers raises, whose words tell more than its types.
    """
    import transformers

    transformers.utils.logging.set_tqdm_hook(_Progress.hook)
    source = _source(options)
    say("reading the tokenizer")
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    config = transformers.AutoConfig.from_pretrained(**source)
    say("reading the weights" if options.quantize is None else f"reading the weights, to {options.quantize}")
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        **source,
        config=config,
        dtype=choose_dtype(options.dtype, config),
        attn_implementation=options.attn_implementation or _attention(),
        use_safetensors=True,
        output_loading_info=True,
        **_quantization(options),
        **_placement(),
    )
    _refuse_gaps(sorted(found["missing_keys"]))
    return Loaded(model.eval(), tokenizer, _end_ids(model, tokenizer))


def _refuse_gaps(missing: Sequence[str]) -> None:
    """Raise ValueError where tensors are missing: Transformers only warns, and takes random numbers (5.23)."""
    if missing:
        raise ValueError(f"the weights lack {len(missing)} of the model's tensors, `{missing[0]}` among them")


def choose_dtype(asked: str, config: Any) -> Any:
    """Return the type to compute in: the one asked for, or where that is `auto` the one for this machine."""
    import torch

    if asked != "auto":
        return getattr(torch, asked)
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return "auto"
    return torch.float32


def _source(options: argparse.Namespace) -> dict[str, Any]:
    """Return where to read from: a folder, or a folder and the name of a GGUF in it."""
    path = Path(options.model)
    common = {"local_files_only": True, "trust_remote_code": options.trust_remote_code}
    if path.suffix == ".gguf":
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, **common}
    return {"pretrained_model_name_or_path": str(path), **common}


def _quantization(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is quantized while it is read, by bitsandbytes, and that a GGUF is unpacked."""
    import transformers

    if options.model.endswith(".gguf"):  # to keep it packed takes kernels that upstream fetches from a hub (5.23)
        return {"quantization_config": transformers.GgufConfig(dequantize=True)}
    if options.quantize == "8-bit":
        # Else it tells with every matrix of every token that it casts its input (bitsandbytes 0.50).
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return {"quantization_config": transformers.BitsAndBytesConfig(load_in_8bit=True)}
    if options.quantize == "4-bit":
        import torch

        compute = choose_dtype(options.dtype, None)
        return {
            "quantization_config": transformers.BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16 if compute == "auto" else compute,
            )
        }
    return {}


def _placement() -> dict[str, Any]:
    """Return the device: all GPUs of a launch by torchrun share the tensors, else the first one has them all."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return {"tp_plan": "auto"}
    if torch.cuda.is_available():
        return {"device_map": {"": 0}}
    return {"device_map": {"": "mps"}} if torch.backends.mps.is_available() else {}


def _attention() -> str:
    """Return the attention to compute with: flash attention only where it is installed, never fetched."""
    import importlib.util

    import torch

    has_flash = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if has_flash else "sdpa"


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return all tokens that anyone says end a text."""
    given = (model.generation_config.eos_token_id, model.config.get_text_config().eos_token_id, tokenizer.eos_token_id)
    flat = (each for ids in given for each in (ids if isinstance(ids, Iterable) else (ids,)))
    return tuple(dict.fromkeys(each for each in flat if each is not None)) or (NEVER_ENDS,)


class _Progress:
    """What Transformers counts while it loads, as lines of the log: at most one for each tenth."""

    def __init__(self, items: Iterable[Any] | None, total: int, name: str) -> None:
        self._items, self._total, self._name = items, total, name
        self._done = self._shown = 0

    @classmethod
    def hook(cls, factory: Any, args: tuple[Any, ...], options: dict[str, Any]) -> _Progress:
        """Stand in for a progress bar of tqdm's."""
        items: Any = args[0] if args else options.get("iterable")
        total = options.get("total") or (len(items) if hasattr(items, "__len__") else 0)
        return cls(items, total, str(options.get("desc") or "").rstrip(" .:").lower())

    def update(self, count: int = 1) -> None:
        self._done += count
        tenth = self._done * 10 // self._total if self._total else 0
        if tenth > self._shown and self._name:
            self._shown = tenth
            say(f"{self._name}, {self._done} of {self._total}")

    def __iter__(self) -> Any:
        for item in self._items or ():
            yield item
            self.update()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def close(self) -> None:
        pass

    def set_description(self, *args: object, **options: object) -> None:
        pass

    def set_postfix(self, *args: object, **options: object) -> None:
        pass
