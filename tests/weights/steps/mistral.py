"""Write a Mistral of random weights and a real tokenizer in the layouts that Mistral-7B-Instruct-v0.2 comes in.

Runs where numpy, safetensors, gguf and mistral-common are:  python -m tests.weights.steps.mistral FOLDER
In the folder then: `pytorch/` as Hugging Face's libraries read it, `mistral/` as Mistral's own do, and `f16.gguf`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGUFWriter, LlamaFileType, TokenType
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from sentencepiece import SentencePieceProcessor

from tests.weights.steps.tensors import Array, write_json, write_tensors

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS = 256, 512, 2, 4, 2
HEAD_SIZE = HIDDEN // HEADS
CONTEXT_LENGTH = 32768
ROPE_THETA = 1_000_000.0
NORM_EPSILON = 1e-5
UNKNOWN, BEGIN, END = 0, 1, 2
# Logits this wide have one clear winner, so that engines whose sums differ in the last bits still agree.
LOGIT_WIDTH = 4.0
# As Mistral-7B-Instruct-v0.2 had it at the revision that the catalogue pins.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


class Vocabulary(NamedTuple):
    """What is in a sentencepiece model, by token number."""

    pieces: list[str]
    scores: list[float]
    kinds: list[TokenType]


def main(folder: Path) -> None:
    model = Path(MistralTokenizer._data_path()) / "tokenizer.model.v1"
    vocabulary = read_vocabulary(model)
    tensors = random_tensors(len(vocabulary.pieces))
    folder.mkdir(parents=True, exist_ok=True)
    write_pytorch(folder / "pytorch", tensors, vocabulary, model)
    write_native(folder / "mistral", tensors, model)
    write_gguf(folder / "f16.gguf", tensors, vocabulary)


def read_vocabulary(model: Path) -> Vocabulary:
    processor = SentencePieceProcessor(str(model))
    numbers = range(processor.vocab_size())
    scores = [processor.get_score(number) for number in numbers]
    return Vocabulary([processor.id_to_piece(n) for n in numbers], scores, [_kind(processor, n) for n in numbers])


def _kind(processor: Any, number: int) -> TokenType:
    if processor.is_unknown(number):
        return TokenType.UNKNOWN
    if processor.is_control(number):
        return TokenType.CONTROL
    return TokenType.BYTE if processor.is_byte(number) else TokenType.NORMAL


def random_tensors(words: int) -> dict[str, Array]:
    """Return all tensors by Hugging Face's names, so scaled that each layer matters; the end is never likely."""
    random = np.random.default_rng(0)

    def linear(outputs: int, inputs: int, width: float = 1.0) -> Array:
        return random.standard_normal((outputs, inputs), np.float32) * np.float32(width / inputs**0.5)

    tensors = {"model.embed_tokens.weight": linear(words, HIDDEN, HIDDEN**0.5)}
    for layer in range(LAYERS):
        shapes = {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (KV_HEADS * HEAD_SIZE, HIDDEN),
            "self_attn.v_proj": (KV_HEADS * HEAD_SIZE, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
            "mlp.up_proj": (INTERMEDIATE, HIDDEN),
            "mlp.down_proj": (HIDDEN, INTERMEDIATE),
        }
        tensors |= {f"model.layers.{layer}.{name}.weight": linear(*shape) for name, shape in shapes.items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = np.ones(HIDDEN, np.float32)
    tensors["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    tensors["lm_head.weight"] = linear(words, HIDDEN, LOGIT_WIDTH)
    tensors["lm_head.weight"][[UNKNOWN, BEGIN, END]] = 0
    return tensors


# --- Hugging Face's layout -------------------------------------------------------------------------------------------


def write_pytorch(folder: Path, tensors: dict[str, Array], vocabulary: Vocabulary, model: Path) -> None:
    folder.mkdir()
    write_tensors(folder / "model.safetensors", tensors)
    write_json(folder / "config.json", CONFIG | {"vocab_size": len(vocabulary.pieces)})
    write_json(
        folder / "generation_config.json", {"_from_model_config": True, "bos_token_id": BEGIN, "eos_token_id": END}
    )
    write_json(folder / "tokenizer.json", _tokenizer(vocabulary))
    write_json(folder / "tokenizer_config.json", _tokenizer_config(vocabulary))
    write_json(
        folder / "special_tokens_map.json",
        {name: _special(vocabulary.pieces[number]) for name, number in _SPECIAL.items()},
    )
    shutil.copy(model, folder / "tokenizer.model")


CONFIG = {
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": CONTEXT_LENGTH,
    "model_type": "mistral",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": NORM_EPSILON,
    "rope_theta": ROPE_THETA,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.36.0",
    "use_cache": True,
}
_SPECIAL = {"unk_token": UNKNOWN, "bos_token": BEGIN, "eos_token": END}


def _special(piece: str) -> dict[str, object]:
    return {"content": piece, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def _tokenizer(vocabulary: Vocabulary) -> dict[str, object]:
    """Return the file as Transformers 4.36 converted a sentencepiece model of Llama's kind."""
    pieces = {piece: number for number, piece in enumerate(vocabulary.pieces)}
    added = [{"id": n, **_special(vocabulary.pieces[n]), "special": True} for n in _SPECIAL.values()]
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    begin_again = {"SpecialToken": {"id": "<s>", "type_id": 1}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first],
            "pair": [begin, first, begin_again, second],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BEGIN], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": pieces,
            "merges": [f"{left} {right}" for left, right in _merges(vocabulary, pieces)],
        },
    }


def _merges(vocabulary: Vocabulary, pieces: dict[str, int]) -> list[tuple[str, str]]:
    """Return all ways to put a piece together from two others, the pieces that come first foremost."""
    found = []
    for piece, number in pieces.items():
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        known = sorted((pieces[left], pieces[right]) for left, right in halves if left in pieces and right in pieces)
        found += [(-vocabulary.scores[number], number, left, right) for left, right in known]
    return [(vocabulary.pieces[left], vocabulary.pieces[right]) for _, _, left, right in sorted(found)]


def _tokenizer_config(vocabulary: Vocabulary) -> dict[str, object]:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(number): _special(vocabulary.pieces[number]) | {"special": True} for number in _SPECIAL.values()
        },
        "additional_special_tokens": [],
        "bos_token": "<s>",
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "legacy": True,
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": None,
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


# --- Mistral's own layout --------------------------------------------------------------------------------------------


def write_native(folder: Path, tensors: dict[str, Array], model: Path) -> None:
    folder.mkdir()
    native = {_renamed(name, NATIVE_NAMES): _interleaved(name, tensor) for name, tensor in tensors.items()}
    write_tensors(folder / "consolidated.safetensors", native)
    shutil.copy(model, folder / model.name)
    write_json(
        folder / "params.json",
        {
            "dim": HIDDEN,
            "n_layers": LAYERS,
            "head_dim": HEAD_SIZE,
            "hidden_dim": INTERMEDIATE,
            "n_heads": HEADS,
            "n_kv_heads": KV_HEADS,
            "norm_eps": NORM_EPSILON,
            "vocab_size": len(tensors["lm_head.weight"]),
            "rope_theta": ROPE_THETA,
        },
    )


NATIVE_NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.layers": "layers",
    "model.norm": "norm",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _renamed(name: str, names: dict[str, str]) -> str:
    for theirs, ours in names.items():
        name = name.replace(theirs, ours)
    return name


def _interleaved(name: str, tensor: Array) -> Array:
    """Return queries and keys with the two numbers of each rotated pair side by side, where Hugging Face has halves."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return tensor
    halves = tensor.reshape(-1, 2, HEAD_SIZE // 2, HIDDEN)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.shape)


# --- GGUF ------------------------------------------------------------------------------------------------------------


def write_gguf(file: Path, tensors: dict[str, Array], vocabulary: Vocabulary) -> None:
    writer = GGUFWriter(file, "llama")
    writer.add_name("mistralai_mistral-7b-instruct-v0.2")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.kinds)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in tensors.items():
        values = _interleaved(name, tensor)
        writer.add_tensor(_renamed(name, GGUF_NAMES), values if values.ndim == 1 else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.layers": "blk",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.down_proj": "ffn_down",
    "mlp.up_proj": "ffn_up",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
