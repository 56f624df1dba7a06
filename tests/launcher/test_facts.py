"""Facts before bytes: what the small files of a repo say decides who runs its weights, before the weights move."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from launcher import ResolutionError, plan, pull
from launcher.settling import settle
from tests.fakes.configured import (
    AWQ,
    GPTQ,
    LLAMA,
    WEIGHTS_BYTES,
    gguf,
    publish_folder,
    weights_asked_for,
    write_layer,
)
from tests.fakes.hub import HubServer
from tests.launcher.commands import Run
from tests.registry.archives import pack

REPO = "org/weighed"
ACT_ORDER = GPTQ | {"desc_act": True}
ASYMMETRIC = GPTQ | {"sym": False}


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a test writes its catalogue entry."""
    path = tmp_path / "weighed.yaml"
    monkeypatch.setenv("LAUNCH_REGISTRY", str(path))
    return path


# --- GPTQ on vLLM ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quantized", "word"), [(ACT_ORDER, "act-order"), (ASYMMETRIC, "asymmetric")])
def test_what_vllm_refuses_is_refused_where_it_was_named(
    run: Run, hub: HubServer, layer: Path, quantized: dict[str, object], word: str
) -> None:
    publish_folder(hub, REPO, LLAMA | {"quantization_config": quantized})
    write_layer(layer, {"gptq": ("Int4", REPO)})
    for words in (("pull", "weighed"), ("weighed", "-p", "hello"), ("lock", "weighed")):
        done = run(*words, "--engine", "vllm")
        assert done.code == 1
        assert f"error: `vllm` refuses {word} GPTQ since 0.32, and these weights are\n" in done.err
        assert "  `transformers` runs it\n" in done.err
        assert "--model-format gptq --quantization Int4 --engine transformers\n" in done.err
    assert weights_asked_for(hub) == []


def test_older_gptq_says_so_in_a_file_of_its_own(run: Run, hub: HubServer, layer: Path) -> None:
    old = b'{"bits": 4, "group_size": 128, "desc_act": true, "sym": true}'
    publish_folder(hub, REPO, LLAMA, more={"quantize_config.json": old})
    write_layer(layer, {"gptq": ("Int4", REPO)})
    assert "refuses act-order GPTQ" in run("pull", "weighed", "--engine", "vllm").err
    assert weights_asked_for(hub) == []


def test_what_vllm_takes_is_fetched_for_it(run: Run, hub: HubServer, layer: Path) -> None:
    publish_folder(hub, REPO, LLAMA | {"quantization_config": GPTQ})
    write_layer(layer, {"gptq": ("Int4", REPO)})
    done = run("pull", "weighed", "--engine", "vllm")
    assert done.code == 0, done.err
    assert done.err.startswith("weighed as gptq Int4 on vllm\n")
    assert len(weights_asked_for(hub)) == 1


def test_the_small_files_are_fetched_once(run: Run, hub: HubServer, layer: Path) -> None:
    publish_folder(hub, REPO, LLAMA | {"quantization_config": GPTQ})
    write_layer(layer, {"gptq": ("Int4", REPO)})
    assert run("pull", "weighed").code == 0
    configs = [r for r in hub.requests if r.path.endswith("/config.json") and r.sent_bytes]
    assert len(configs) == 1


def test_the_choice_moves_before_it_is_announced(hub: HubServer, layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where vLLM would be the best, and with its reason in the warnings."""
    _pretend_cuda(monkeypatch)
    publish_folder(hub, REPO, LLAMA | {"quantization_config": ACT_ORDER})
    write_layer(layer, {"gptq": ("Int4", REPO)})
    first = plan("weighed")
    settled = settle(first)
    assert (first.engine, settled.engine) == ("vllm", "transformers")
    assert "unchecked: `desc_act` of these weights; `vllm` refuses `True`" in first.warnings
    reason = "`vllm` refuses act-order GPTQ since 0.32, and these weights are"
    assert settled.warnings[-1] == f"{reason}: this is weighed as gptq Int4 on transformers"
    assert ("vllm", reason.removeprefix("`vllm` ")) in set(settled.not_chosen())
    assert settle(settled) == settled
    assert weights_asked_for(hub) == []


def test_what_is_here_is_known_without_the_network(hub: HubServer, layer: Path) -> None:
    commit = publish_folder(hub, REPO, LLAMA | {"quantization_config": ACT_ORDER})
    write_layer(layer, {"gptq": ("Int4", REPO)}, revision=commit)
    pull("weighed", engine="transformers")
    hub.requests.clear()
    assert plan("weighed", engine="vllm").warnings == (
        "`vllm` refuses act-order GPTQ since 0.32, and these weights are",
    )
    with pytest.raises(ResolutionError, match="act-order"):
        pull("weighed", engine="vllm")
    assert hub.requests == []


def test_another_revision_is_read_anew(run: Run, hub: HubServer, layer: Path) -> None:
    """What the catalogue knows of its pin says nothing of a branch."""
    publish_folder(hub, REPO, LLAMA | {"quantization_config": GPTQ})
    write_layer(layer, {"gptq": ("Int4", REPO)}, revision="a" * 40, quantization_config="{desc_act: true}")
    assert "act-order" in run("weighed", "--engine", "vllm", "--dry-run").out
    done = run("pull", "weighed", "--engine", "vllm", "--revision", "main")
    assert done.code == 0, done.err
    assert "act-order" not in done.err


def _pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    from registry.spec import Gpu, Machine

    gpu = Gpu(0, "NVIDIA A10G", 24 << 30, "580.95", compute=(8, 6), cuda=(13, 0))

    machine = Machine("Linux", "x86_64", 16, 64 << 30, gpus=(gpu,))
    monkeypatch.setattr("launcher.planning.read_machine", lambda: machine)


# --- formats, code, architectures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "config", "message"),
    [
        ("awq", LLAMA | {"quantization_config": GPTQ}, f"The weights of `{REPO}` are `gptq`, not `awq`"),
        ("gptq", LLAMA | {"quantization_config": AWQ}, f"The weights of `{REPO}` are `awq`, not `gptq`"),
        ("gptq", LLAMA, f"The weights of `{REPO}` are unquantized, not `gptq`"),
    ],
)
def test_weights_that_are_not_what_they_are_said_to_be(
    run: Run, hub: HubServer, layer: Path, said: str, config: dict[str, object], message: str
) -> None:
    publish_folder(hub, REPO, config)
    write_layer(layer, {said: ("Int4", REPO)})
    done = run("pull", "weighed")
    assert done.code == 1
    assert f"error: {message} as the catalogue says\n" in done.err
    assert weights_asked_for(hub) == []


def test_code_of_the_weights_wants_trust(run: Run, hub: HubServer, layer: Path) -> None:
    code = {"modeling_own.py": b"print('hello')", "sub/other.py": b""}
    own = LLAMA | {"architectures": ["OwnForCausalLM"], "model_type": "own"}
    publish_folder(hub, REPO, own | {"auto_map": {"AutoModelForCausalLM": "modeling_own.X"}}, more=code)
    write_layer(layer, {"pytorch": ("none", REPO)})
    done = run("pull", "weighed")
    assert done.code == 1
    assert "comes with Python code of its own, which would run on this machine with all your rights" in done.err
    assert done.err.endswith("hint: read it; if you trust those who wrote it, add --trust-remote-code\n")
    assert not [r for r in hub.requests if ".py" in r.path or r.origin == "cdn"]
    trusted = pull("weighed", trust_remote_code=True)
    assert (trusted / "modeling_own.py").read_bytes() == b"print('hello')"
    assert not (trusted / "sub").exists()


def test_without_trust_no_code_is_fetched(hub: HubServer, layer: Path) -> None:
    publish_folder(hub, REPO, LLAMA, more={"modeling_own.py": b"print('hello')"})
    write_layer(layer, {"pytorch": ("none", REPO)})
    assert not (pull("weighed") / "modeling_own.py").exists()
    assert (pull("weighed", trust_remote_code=True) / "modeling_own.py").exists()


def test_an_architecture_that_nobody_knows(run: Run, hub: HubServer, layer: Path) -> None:
    publish_folder(hub, REPO, LLAMA | {"architectures": ["NovelForCausalLM"], "model_type": "novel"})
    write_layer(layer, {"pytorch": ("none", REPO)})
    done = run("pull", "weighed")
    assert done.code == 1
    assert "does not know the architecture `NovelForCausalLM`\n" in done.err
    assert weights_asked_for(hub) == []


def test_an_architecture_of_another_format_takes_its_place(hub: HubServer, layer: Path) -> None:
    publish_folder(hub, REPO, LLAMA | {"architectures": ["NovelForCausalLM"], "model_type": "novel"})
    hub.add_repo("org/small-GGUF", {"small.Q4_K_M.gguf": gguf("novelty")})
    write_layer(layer, {"gguf": ("Q4_K_M", "org/small-GGUF"), "awq": ("Int4", "org/quantized")})
    publish_folder(hub, "org/quantized", LLAMA | {"quantization_config": AWQ})
    settled = settle(plan("weighed"))
    assert settled.model_format == "awq"
    assert settled.warnings[-1].startswith(
        "`llama.cpp` does not know the architecture `novelty`: this is weighed as awq"
    )


# --- GGUF ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["huggingface", "modelscope"])
def test_a_gguf_header_is_read_from_either_hub(hub: HubServer, layer: Path, name: str) -> None:
    hub.add_repo(REPO, {"w.Q4_K_M.gguf": gguf("novelty")})
    write_layer(layer, {"gguf": ("Q4_K_M", REPO)})
    layer.write_text(layer.read_text().replace("huggingface", name))
    with pytest.raises(ResolutionError, match="does not know the architecture `novelty`"):
        pull("weighed")
    assert weights_asked_for(hub) == []
    assert sum(request.sent_bytes for request in hub.requests if request.origin == "cdn") < 50_000


def test_a_gguf_that_llama_cpp_knows_is_fetched(hub: HubServer, layer: Path) -> None:
    content = gguf("llama")
    hub.add_repo(REPO, {"w.Q4_K_M.gguf": content})
    write_layer(layer, {"gguf": ("Q4_K_M", REPO)})
    assert pull("weighed").read_bytes() == content


def test_a_gguf_at_a_plain_address_is_looked_into(hub: HubServer, layer: Path) -> None:
    content = gguf("novelty")
    commit = hub.add_repo("files/here", {"w.Q4_K_M.gguf": content})
    address, sha256 = f"{hub.cdn_url}/files/here/{commit}/", hub.sha256("files/here", "w.Q4_K_M.gguf")
    layer.write_text(
        "name: weighed\nspecs:\n  - format: gguf\n    size_in_billions: 1\n    quantizations: [Q4_K_M]\n    sources:\n"
        f"      url: {{address: '{address}', file: w.Q4_K_M.gguf, files: {{w.Q4_K_M.gguf: {{sha256: {sha256}}}}}}}\n"
    )
    with pytest.raises(ResolutionError, match="does not know the architecture `novelty`"):
        pull("weighed")
    assert weights_asked_for(hub) == []


def test_an_archive_is_looked_into_without_fetching_it(hub: HubServer, layer: Path) -> None:
    params = b'{"dim": 4096, "n_layers": 2, "n_heads": 32, "n_kv_heads": 8}'
    content = pack({"own/params.json": params, "own/consolidated.safetensors": bytes(WEIGHTS_BYTES)})
    commit = hub.add_repo("files/here", {"own.tar": content})
    address, md5 = f"{hub.cdn_url}/files/here/{commit}/own.tar", hashlib.md5(content).hexdigest()
    layer.write_text(
        "name: weighed\nspecs:\n  - format: mistral\n    size_in_billions: 1\n    quantizations: [none]\n    sources:\n"
        f"      url: {{address: '{address}', md5: {md5}}}\n"
    )
    architecture = settle(plan("weighed")).settings.architecture
    assert (architecture.heads, architecture.kv_heads, architecture.layers) == (32, 8, 2)
    assert weights_asked_for(hub) == []


def test_a_small_gguf_is_looked_at_when_it_is_here(hub: HubServer, layer: Path) -> None:
    hub.add_repo(REPO, {"w.Q4_K_M.gguf": gguf("novelty", size_bytes=0)})
    write_layer(layer, {"gguf": ("Q4_K_M", REPO)})
    with pytest.raises(ResolutionError, match="does not know the architecture `novelty`"):
        pull("weighed")
    assert not any("Range" in request.headers for request in hub.requests)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_the_context_of_the_weights_is_the_limit(hub: HubServer, layer: Path) -> None:
    hub.add_repo(REPO, {"w.Q4_K_M.gguf": gguf("llama", context_length=1024)})
    write_layer(layer, {"gguf": ("Q4_K_M", REPO)})
    assert plan("weighed").context_length == 8192  # nobody has looked
    assert settle(plan("weighed")).context_length == 1024
    with pytest.raises(ResolutionError, match="has a context of 1,024 tokens, not 2,048"):
        pull("weighed", context_length=2048)
    assert weights_asked_for(hub) == []
    pull("weighed")
    assert plan("weighed").context_length == 1024


def test_the_networks_numbers_come_from_the_weights(hub: HubServer, layer: Path) -> None:
    publish_folder(hub, REPO, LLAMA)
    write_layer(layer, {"pytorch": ("none", REPO)})
    architecture = settle(plan("weighed")).settings.architecture
    assert (architecture.heads, architecture.kv_heads, architecture.layers) == (12, 3, 2)


def test_offline_nobody_is_asked(hub: HubServer, layer: Path) -> None:
    publish_folder(hub, REPO, LLAMA)
    write_layer(layer, {"pytorch": ("none", REPO)})
    settle(plan("weighed", offline=True))
    assert hub.requests == []
