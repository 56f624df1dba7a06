"""The choice among formats, quantizations, sizes, engines and hubs, and the reasons against the rest."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.index import CAPABILITIES
from engines.known_architectures import knows_architecture
from registry.catalogue import read_catalogue
from registry.errors import ResolutionError
from registry.facts import Knowledge, SourceKey, WeightFacts
from registry.judging import LARGE_SETUP_BYTES
from registry.resolution import resolve
from registry.spec import Architecture, Capability, FormatSupport, Gpu, Machine, Model, Request, Resolution, parse_size
from tests.registry.entries import PATIENT, model, spec

GB = 1_000_000_000
CPU = Machine("Linux", "x86_64", cores=8, memory_bytes=16 * GB)
CUDA = Machine("Linux", "x86_64", cores=16, memory_bytes=64 * GB, gpus=(Gpu(0, "NVIDIA A10G", 24 * GB),))
METAL = Machine("Darwin", "arm64", cores=8, memory_bytes=16 * GB)
MACHINES = {"cpu": CPU, "cuda": CUDA, "metal": METAL}

GGUF = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0")
# What the seed's page lists, format by format, with the engines that it names.
ALLOWED = [
    *(("pytorch", quantization, "transformers") for quantization in ("none", "8-bit", "4-bit")),
    ("pytorch", "none", "vllm"),
    *(("gptq", "Int4", engine) for engine in ("vllm", "transformers")),
    *(("awq", "Int4", engine) for engine in ("vllm", "transformers")),
    *(("gguf", quantization, "llama.cpp") for quantization in GGUF),
]
FORBIDDEN = [
    ("pytorch", "8-bit", "vllm", "`vllm` does not run pytorch as `8-bit`: bitsandbytes left its tree for a plugin"),
    ("pytorch", "4-bit", "vllm", "`vllm` does not run pytorch as `4-bit`: bitsandbytes left its tree for a plugin"),
    *(("gguf", q, "vllm", "reads no `gguf`: its GGUF reader left the tree for a plugin") for q in GGUF),
    *(("pytorch", q, "llama.cpp", "reads no `pytorch`") for q in ("none", "8-bit", "4-bit")),
    ("gptq", "Int4", "llama.cpp", "`llama.cpp` reads no `gptq`"),
    ("awq", "Int4", "llama.cpp", "`llama.cpp` reads no `awq`"),
]


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Model:
    environ = {"LAUNCH_CACHE": str(tmp_path_factory.mktemp("cache")), "XDG_CONFIG_HOME": "/nonexistent"}
    return read_catalogue(environ=environ).find("mistral-instruct-v0.2").model


def _resolve(found: Model, machine: Machine = CPU, installed: tuple[str, ...] = (), **asked: Any) -> Resolution:
    request = Request(found.name, **asked)
    return resolve(request, found, capabilities=CAPABILITIES, machine=machine, installed=frozenset(installed))


def _refused(found: Model, machine: Machine = CPU, **asked: Any) -> ResolutionError:
    with pytest.raises(ResolutionError) as raised:
        _resolve(found, machine, **asked)
    assert not raised.value.message.endswith(".")
    return raised.value


def test_an_engine_whose_build_leaves_the_gpu_alone_is_judged_by_the_cpu() -> None:
    found = model(specs=[spec("pytorch", 20, ("none",))])
    formats = (FormatSupport("pytorch"), FormatSupport("fp8", accelerators=("cuda",)))
    ranks = {"cuda": 0, "cpu": 0}
    on_cpu = Capability("on-cpu", formats, ranks, accelerator="cpu")
    on_gpu = Capability("on-gpu", formats, ranks)
    machine = CUDA._replace(memory_bytes=256 * GB)

    def choose(*capabilities: Capability) -> Resolution:
        return resolve(Request(found.name), found, capabilities=capabilities, machine=machine)

    assert choose(on_gpu, on_cpu).engine == "on-cpu"  # 40 GB fit into the machine's memory, and not into the GPU's
    fp8 = model(specs=[spec("fp8", 1, ("FP8",))])
    with pytest.raises(ResolutionError) as refused:
        resolve(Request(fp8.name), fp8, capabilities=[on_cpu], machine=machine)
    assert [each.reason for each in refused.value.rejected] == ["runs `fp8` on cuda only"]


def _choice(found: Resolution) -> tuple[str, str, str]:
    return found.spec.model_format, found.quantization, found.engine


def _reason(found: Resolution, engine: str, quantization: str, model_format: str | None = None) -> str:
    wanted = (engine, quantization, model_format)
    (reason,) = {
        r.reason
        for r in found.rejected
        if wanted in ((r.engine, r.quantization, r.model_format), (r.engine, r.quantization, None))
    }
    return reason


def _run_hint(found: Model, hint: str, machine: Machine) -> Resolution:
    """Return what the command in a hint resolves to."""
    command, name, *options = shlex.split(hint)
    assert (command, name) == ("launch", found.name)
    words = {
        "--model-format": "model_format",
        "--quantization": "quantization",
        "--engine": "engine",
        "--hub": "hub",
        "--size-in-billions": "size_in_billions",
        "--gpus": "gpus",
    }
    asked: dict[str, Any] = {words[option]: value for option, value in zip(options[::2], options[1::2], strict=True)}
    if "size_in_billions" in asked:
        asked["size_in_billions"] = parse_size(asked["size_in_billions"])
    if "gpus" in asked:
        asked["gpus"] = 0 if asked["gpus"] == "none" else int(asked["gpus"])
    return _resolve(found, machine, **asked)


# --- the seed's page -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model_format", "quantization", "engine"), ALLOWED)
@pytest.mark.parametrize("machine", ["cpu", "cuda"])
def test_every_combination_of_the_seed_resolves(
    mistral: Model, model_format: str, quantization: str, engine: str, machine: str
) -> None:
    found = _resolve(
        mistral,
        MACHINES[machine],
        model_format=model_format,
        quantization=quantization,
        engine=engine,
        size_in_billions=7.0,
    )
    assert _choice(found) == (model_format, quantization, engine)
    assert found.source.hub == "huggingface"
    act_order = any("act-order GPTQ" in warning for warning in found.warnings)
    assert act_order is ((model_format, engine) == ("gptq", "vllm"))


@pytest.mark.parametrize(("model_format", "quantization", "engine", "reason"), FORBIDDEN)
def test_every_other_combination_is_refused_with_the_reason_and_what_would_work(
    mistral: Model, model_format: str, quantization: str, engine: str, reason: str
) -> None:
    error = _refused(mistral, CUDA, model_format=model_format, quantization=quantization, engine=engine)
    assert f"format `{model_format}`, quantization `{quantization}`, engine `{engine}`" in error.message
    assert reason in error.details[0]
    could = {each for f, q, each in ALLOWED if (f, q) == (model_format, quantization)}
    others = could - {engine, "vllm" if model_format == "gptq" else engine}  # whose act-order vLLM refuses
    assert [detail for detail in error.details if detail.endswith("runs it")] == [
        f"`{e}` runs it" for e in sorted(others)
    ]
    assert error.hint is not None
    assert _run_hint(mistral, error.hint, CUDA).warnings == ()


@pytest.mark.parametrize(("model_format", "quantization"), sorted({(f, q) for f, q, _ in ALLOWED}))
@pytest.mark.parametrize("machine", ["cpu", "cuda"])
@pytest.mark.parametrize("installed", [(), tuple(each.engine for each in CAPABILITIES)], ids=["bare", "all"])
def test_every_quantization_of_the_seed_runs_without_an_engine_being_named(
    mistral: Model, model_format: str, quantization: str, machine: str, installed: tuple[str, ...]
) -> None:
    request = Request(mistral.name, model_format, quantization)
    found = resolve(
        request,
        mistral,
        capabilities=CAPABILITIES,
        machine=MACHINES[machine],
        installed=frozenset(installed),
        must_load=True,
    )
    assert (model_format, quantization, found.engine) in ALLOWED
    assert found.conflicts == ()


def test_what_is_known_not_to_load_is_refused_where_it_must() -> None:
    act_order = spec("gptq", 1, ("Int4",), quantization_config={"desc_act": True})
    only_vllm = tuple(each for each in CAPABILITIES if each.engine == "vllm")
    found = model(specs=[act_order])
    shown = resolve(Request("small"), found, capabilities=only_vllm, machine=CPU)
    assert shown.conflicts == shown.warnings[:1]
    with pytest.raises(ResolutionError) as caught:
        resolve(Request("small"), found, capabilities=only_vllm, machine=CPU, must_load=True)
    assert caught.value.message == shown.conflicts[0]
    assert [each.engine for each in caught.value.rejected] == ["vllm"]


def test_the_seed_names_all_there_is(mistral: Model) -> None:
    known = {(s.model_format, q) for s in mistral.specs for q in s.quantizations}
    ours = {("mistral", "none")}  # the archive of the model's makers, which the seed does not name
    assert known == {(model_format, quantization) for model_format, quantization, _ in ALLOWED} | ours
    beyond = len(GGUF)  # which Transformers reads where both are named
    assert len(ALLOWED) + len(FORBIDDEN) + beyond == 17 * 3


@pytest.mark.parametrize("machine", ["cpu", "cuda"])
def test_the_makers_own_layout_is_known_for_the_asking(mistral: Model, machine: str) -> None:
    assert _resolve(mistral, MACHINES[machine]).spec.model_format != "mistral"
    found = _resolve(mistral, MACHINES[machine], model_format="mistral")
    assert (*_choice(found), found.source.hub) == ("mistral", "none", "vllm", "url")
    assert found.warnings == ()


def test_the_literal_first_command(mistral: Model) -> None:
    found = _resolve(mistral, model_format="gguf", quantization="Q4_K_M")
    assert (found.engine, found.source.repo_id) == ("llama.cpp", "TheBloke/Mistral-7B-Instruct-v0.2-GGUF")
    assert found.source.revision == "3a6fbf4a41a1d52e415a4958cde6856d34b2db93"
    assert found.source.file_names("Q4_K_M") == ("mistral-7b-instruct-v0.2.Q4_K_M.gguf",)
    assert found.warnings == ()


def test_xinference_s_own_line(mistral: Model) -> None:
    asked: dict[str, Any] = {
        "engine": "llama.cpp",
        "size_in_billions": 7.0,
        "model_format": "ggufv2",
        "quantization": "Q4_K_M",
    }
    assert _choice(_resolve(mistral, **asked)) == ("gguf", "Q4_K_M", "llama.cpp")


def test_transformers_reads_gguf_only_when_both_are_named(mistral: Model) -> None:
    named = _resolve(mistral, engine="transformers", model_format="gguf", quantization="Q4_K_M")
    assert _choice(named) == ("gguf", "Q4_K_M", "transformers")
    assert _resolve(mistral, engine="transformers").spec.model_format != "gguf"
    chosen = _resolve(mistral, model_format="gguf", quantization="Q4_K_M")
    assert chosen.engine == "llama.cpp"
    assert "only when both are named" in _reason(chosen, "transformers", "Q4_K_M")


def test_act_order_moves_to_transformers_unless_vllm_is_named(mistral: Model) -> None:
    found = _resolve(mistral, CUDA, model_format="gptq")
    assert found.engine == "transformers"
    assert "refuses act-order GPTQ" in _reason(found, "vllm", "Int4", "gptq")


def test_at_another_revision_the_pin_s_facts_do_not_count(mistral: Model) -> None:
    found = _resolve(mistral, CUDA, model_format="gptq", engine="vllm", revision="gptq-8bit--1g-actorder_True")
    assert not any("act-order" in warning for warning in found.warnings)


# --- how a request may be spelled ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "choice"),
    [
        ({"model_format": "GGUF", "quantization": "q4_k_m"}, ("gguf", "Q4_K_M", "llama.cpp")),
        ({"model_format": "ggufv2"}, ("gguf", "Q4_K_M", "llama.cpp")),
        ({"model_format": "GGUFv2", "engine": "LLAMA.CPP"}, ("gguf", "Q4_K_M", "llama.cpp")),
        ({"model_format": "safetensors", "quantization": "None"}, ("pytorch", "none", "transformers")),
        ({"quantization": "Q8_0"}, ("gguf", "Q8_0", "llama.cpp")),
        ({"engine": "llamacpp"}, ("gguf", "Q4_K_M", "llama.cpp")),
        ({"engine": "xllamacpp"}, ("gguf", "Q4_K_M", "llama.cpp")),
        ({"engine": "vLLM", "model_format": "awq"}, ("awq", "Int4", "vllm")),
        ({"engine": "Transformers", "model_format": "awq"}, ("awq", "Int4", "transformers")),
        ({"engine": "llama_cpp_python", "quantization": "Q4_0"}, ("gguf", "Q4_0", "llama-cpp-python")),
        *(
            ({"model_format": "gptq", "quantization": q}, ("gptq", "Int4", "transformers"))
            for q in ("4bit", "4-bit", "INT4")
        ),
        *(
            ({"model_format": "awq", "quantization": q}, ("awq", "Int4", "transformers"))
            for q in ("4bit", "4-bit", "int4")
        ),
        *(
            ({"model_format": "pytorch", "quantization": q}, ("pytorch", "4-bit", "transformers"))
            for q in ("4bit", "int4")
        ),
        *(
            ({"model_format": "pytorch", "quantization": q}, ("pytorch", "8-bit", "transformers"))
            for q in ("8bit", "Int8")
        ),
        *(
            ({"model_format": "gguf", "quantization": q}, ("gguf", "Q8_0", "llama.cpp"))
            for q in ("8bit", "8-bit", "int8")
        ),
        ({"model_format": "gguf", "quantization": "6bit"}, ("gguf", "Q6_K", "llama.cpp")),
        ({"model_format": "pytorch", "quantization": "bf16"}, ("pytorch", "none", "transformers")),
    ],
)
def test_spellings(mistral: Model, asked: dict[str, Any], choice: tuple[str, str, str]) -> None:
    assert _choice(_resolve(mistral, **asked)) == choice


@pytest.mark.parametrize(
    ("quantization", "meanings"),
    [
        ("4bit", "Q4_0, Q4_K_S or Q4_K_M"),
        ("int4", "Q4_0, Q4_K_S or Q4_K_M"),
        ("3-bit", "Q3_K_S, Q3_K_M or Q3_K_L"),
        ("5bit", "Q5_0, Q5_K_S or Q5_K_M"),
    ],
)
def test_bits_that_may_mean_several_are_not_guessed(mistral: Model, quantization: str, meanings: str) -> None:
    error = _refused(mistral, model_format="gguf", quantization=quantization)
    assert error.details == (f"`{quantization}` may mean {meanings}",)
    assert error.hint == "launch mistral-instruct-v0.2 --model-format gguf --quantization Q4_K_M --engine llama.cpp"


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        ({"model_format": "gguff"}, "`mistral-instruct-v0.2` has no format `gguff`", "did you mean `gguf`?"),
        (
            {"model_format": "mlx"},
            "`mistral-instruct-v0.2` has no format `mlx`",
            "launch inspect mistral-instruct-v0.2",
        ),
        ({"quantization": "Q4_KM"}, "`mistral-instruct-v0.2` has no quantization `Q4_KM`", "did you mean `Q4_K_M`?"),
        ({"quantization": "q5km"}, "`mistral-instruct-v0.2` has no quantization `q5km`", "did you mean `Q5_K_M`?"),
        ({"quantization": "Q4"}, "`mistral-instruct-v0.2` has no quantization `Q4`", "did you mean `Q4_0`?"),
        (
            {"quantization": "zzz"},
            "`mistral-instruct-v0.2` has no quantization `zzz`",
            "launch inspect mistral-instruct-v0.2",
        ),
        ({"size_in_billions": 8.0}, "`mistral-instruct-v0.2` has no size `8`", "launch inspect mistral-instruct-v0.2"),
        ({"engine": "vlm"}, "There is no engine `vlm`", "did you mean `vllm`?"),
        ({"engine": "transformer"}, "There is no engine `transformer`", "did you mean `transformers`?"),
        ({"hub": "github"}, "There is no hub `github`", "the hubs are huggingface, modelscope, url, pypi and local"),
    ],
)
def test_a_near_miss_is_answered_with_what_there_is(
    mistral: Model, asked: dict[str, Any], message: str, hint: str
) -> None:
    error = _refused(mistral, **asked)
    assert (error.message, error.hint) == (message, hint)


def test_an_unknown_quantization_is_answered_with_those_that_there_are(mistral: Model) -> None:
    assert _refused(mistral, quantization="zzz").details == (
        f"it has none, 8-bit, 4-bit, Int4, {', '.join(GGUF[:-1])} and Q8_0",
    )


def test_what_never_comes_together_is_said_for_each(mistral: Model) -> None:
    error = _refused(mistral, model_format="gptq", quantization="q5_k_m", size_in_billions=7.0)
    assert error.details == (
        "size 7 comes as `pytorch`, `gptq`, `awq`, `gguf` and `mistral`",
        "`gptq` comes as `Int4`",
        "`q5_k_m` comes as `gguf`",
    )


# --- machines and what is installed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_without_a_wish_the_light_engine_runs_everywhere(mistral: Model, machine: str) -> None:
    found = _resolve(mistral, MACHINES[machine])
    assert _choice(found) == ("gguf", "Q4_K_M", "llama.cpp")
    assert found.warnings == ()


def test_vllm_does_not_run_on_macos(mistral: Model) -> None:
    error = _refused(mistral, METAL, engine="vllm", model_format="awq")
    assert error.details == ("`vllm` does not run on Darwin", "`transformers` runs it")


def test_some_formats_want_an_accelerator() -> None:
    small = model(specs=[spec("fp8", 1, ("FP8",))])
    assert _resolve(small, CUDA, engine="vllm").engine == "vllm"
    assert "`vllm` runs `fp8` on cuda only" in _refused(small, CPU, engine="vllm").details


def _capable(engine: str, *formats: str, rank: int = 0, setup_bytes: int = 0, automatic: bool = True) -> Capability:
    supported = tuple(FormatSupport(each) for each in formats)
    ranks = {"cpu": rank, "cuda": rank, "metal": rank}
    return Capability(engine, supported, ranks, setup_bytes=setup_bytes, automatic=automatic)


def _resolve_with(
    capabilities: tuple[Capability, ...], found: Model, machine: Machine = CPU, installed: tuple[str, ...] = ()
) -> Resolution:
    request = Request(found.name)
    return resolve(request, found, capabilities=capabilities, machine=machine, installed=frozenset(installed))


BOTH = model(specs=[spec("gguf"), spec("pytorch", quantizations=("none",))])


def test_a_large_set_up_is_avoided_while_something_lighter_runs() -> None:
    heavy = _capable("heavy", "pytorch", rank=0, setup_bytes=3 * GB)
    light = _capable("light", "gguf", rank=1, setup_bytes=LARGE_SETUP_BYTES)
    found = _resolve_with((heavy, light), BOTH)
    assert found.engine == "light"
    assert _reason(found, "heavy", "none", "pytorch") == "is not installed, and takes 3.0 GB to set up"


def test_what_is_installed_needs_no_set_up() -> None:
    heavy = _capable("heavy", "pytorch", rank=0, setup_bytes=3 * GB)
    light = _capable("light", "gguf", rank=1)
    found = _resolve_with((heavy, light), BOTH, installed=("heavy",))
    assert found.engine == "heavy"
    assert _reason(found, "light", "Q4_K_M", "gguf") == "`heavy` suits this machine better"


def test_of_two_large_set_ups_the_installed_one_is_taken() -> None:
    first = _capable("first", "pytorch", rank=0, setup_bytes=3 * GB)
    second = _capable("second", "pytorch", rank=1, setup_bytes=3 * GB)
    pytorch = model(specs=[spec("pytorch", quantizations=("none",))])
    assert _resolve_with((first, second), pytorch).engine == "first"
    found = _resolve_with((first, second), pytorch, installed=("second",))
    assert found.engine == "second"
    assert "engine `second`: already installed" in found.reasons


def test_a_large_set_up_is_made_where_nothing_else_runs() -> None:
    heavy = _capable("heavy", "pytorch", setup_bytes=3 * GB)
    assert _resolve_with((heavy,), model(specs=[spec("pytorch", quantizations=("none",))])).engine == "heavy"


def test_an_engine_that_is_only_used_when_named_is_not_chosen() -> None:
    shy = _capable("shy", "gguf", rank=0, automatic=False)
    bold = _capable("bold", "gguf", rank=1)
    found = _resolve_with((shy, bold), model())
    assert found.engine == "bold"
    assert _reason(found, "shy", "Q4_K_M", "gguf") == "is used only when it is named"
    named = resolve(Request("small", engine="Shy"), model(), capabilities=(shy, bold), machine=CPU)
    assert named.engine == "shy"


def test_echo_answers_for_every_format_when_named(mistral: Model) -> None:
    assert _resolve(mistral, engine="echo").engine == "echo"


# --- sizes -----------------------------------------------------------------------------------------------------------

SIZES = model(
    "sized",
    specs=[
        *(spec("gguf", size, ("Q4_K_M", "Q8_0")) for size in (0.5, 7, 70)),
        spec("pytorch", 7, ("none",)),
    ],
)


@pytest.mark.parametrize(
    ("memory_gb", "size", "quantization"),
    [(1, 0.5, "Q4_K_M"), (4, 0.5, "Q4_K_M"), (8, 7, "Q4_K_M"), (64, 70, "Q4_K_M")],
)
def test_the_largest_size_that_fits_is_chosen(memory_gb: int, size: float, quantization: str) -> None:
    found = _resolve(SIZES, CPU._replace(memory_bytes=memory_gb * GB))
    assert (found.spec.size_in_billions, found.quantization) == (size, quantization)
    assert any(reason.startswith(f"size {size:g}: the largest that suits") for reason in found.reasons)


def test_what_does_not_fit_says_how_much_it_needs() -> None:
    found = _resolve(SIZES, CPU._replace(memory_bytes=8 * GB))
    reasons = {reason.reason for reason in found.rejected}
    assert "its weights, about 35.0 GB, leave too little of the memory" in reasons
    assert "its weights, about 7.0 GB, leave too little of the memory" in reasons
    assert "another size suits this machine's memory better" in reasons


def test_the_smallest_is_chosen_where_nothing_fits() -> None:
    found = _resolve(SIZES, CPU._replace(memory_bytes=100_000_000))
    assert found.spec.size_in_billions == 0.5


def test_the_gpu_s_memory_counts_where_there_is_one() -> None:
    assert _resolve(SIZES, CUDA).spec.size_in_billions == 7


def test_a_size_that_is_asked_for_is_kept_whatever_fits() -> None:
    found = _resolve(SIZES, CPU._replace(memory_bytes=GB), size_in_billions=70.0)
    assert found.spec.size_in_billions == 70


def test_a_hint_keeps_the_size_apart_from_its_others() -> None:
    error = _refused(SIZES, size_in_billions=7.0, model_format="gguf", engine="vllm")
    assert (
        error.hint == "launch sized --size-in-billions 7 --model-format gguf --quantization Q4_K_M --engine llama.cpp"
    )


def test_a_size_that_a_format_does_not_have() -> None:
    error = _refused(SIZES, size_in_billions=0.5, model_format="pytorch")
    assert error.details == ("size 0.5 comes as `gguf`", "`pytorch` comes as `none`")


# --- hubs and revisions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hub", ["modelscope", "ModelScope", "ms"])
def test_a_hub_that_is_named_is_used(mistral: Model, hub: str) -> None:
    found = _resolve(mistral, hub=hub, model_format="gguf")
    assert (found.source.hub, found.source.repo_id) == ("modelscope", "Xorbits/Mistral-7B-Instruct-v0.2-GGUF")
    assert found.quantization == "Q4_K_M"


def test_what_is_not_on_a_hub_says_where_it_is(mistral: Model) -> None:
    error = _refused(mistral, hub="modelscope", model_format="gguf", quantization="Q8_0")
    assert "hub `modelscope`" in error.message
    assert "it is not on modelscope, but on huggingface" in error.details
    assert error.hint is not None
    assert error.hint.endswith("--quantization Q4_K_M --engine llama.cpp --hub modelscope")
    assert _run_hint(mistral, error.hint, CPU).source.hub == "modelscope"


def test_a_format_that_a_hub_does_not_have_is_found_on_another(mistral: Model) -> None:
    error = _refused(mistral, hub="ms", model_format="gptq")
    assert "it is not on modelscope, but on huggingface" in error.details


def test_the_catalogue_s_order_of_hubs_is_kept() -> None:
    found = _resolve(model(specs=[spec(hubs=("modelscope", "huggingface"))]))
    assert found.source.hub == "modelscope"


def test_hubs_that_this_version_does_not_reach() -> None:
    far = model(specs=[spec(hubs=("openmind_hub",))])
    assert _refused(far).details[0] == "it is published only on openmind_hub, which this version does not reach"
    near = model(specs=[spec(hubs=("openmind_hub", "modelscope"))])
    assert _resolve(near).source.hub == "modelscope"


def test_a_quantization_that_was_never_published() -> None:
    data = spec(quantizations=("Q4_K_M", "Q8_0")) | {
        "sources": {"huggingface": {"repo_id": "a/b", "quantizations": ["Q8_0"]}}
    }
    error = _refused(model(specs=[data]), quantization="Q4_K_M")
    assert error.message == "`small` was never published as `gguf Q4_K_M`"
    assert error.details == ("`gguf` comes as `Q8_0`",)
    assert error.hint == "launch small --model-format gguf --quantization Q8_0 --engine llama.cpp"


def test_a_format_that_was_never_published_names_those_that_were() -> None:
    coming_soon = spec("mistral", 47, ("none",), hubs=())
    others = [spec("gguf", 47, hubs=("huggingface", "modelscope")), spec("gguf", 141)]
    error = _refused(model(specs=[coming_soon, *others]), model_format="mistral")
    assert error.message == "`small` was never published as `mistral none`"
    assert error.details == (
        "`gguf` is on huggingface: `org/small-47b-gguf`",
        "`gguf` is on modelscope: `org/small-47b-gguf`",
    )
    assert error.hint is not None
    assert error.hint.startswith("launch small --size-in-billions 47 --model-format gguf --quantization Q4_K_M")


def test_where_no_format_of_a_size_was_published_other_sizes_are_named() -> None:
    error = _refused(model(specs=[spec(size=8, hubs=()), spec(size=70)]), size_in_billions=8.0)
    assert error.details == ("`gguf` of size 70 is on huggingface: `org/small-70b-gguf`",)


def test_what_nobody_published_at_all() -> None:
    error = _refused(model(specs=[spec(hubs=())]))
    assert error.message == "`small` was never published as `gguf Q4_K_M`"
    assert error.details == ("nor is it published as anything else that the catalogue knows",)
    assert error.hint == "launch inspect small"


def test_what_was_published_is_chosen_before_what_was_not() -> None:
    found = _resolve(model(specs=[spec("mistral", 1, ("none",), hubs=()), spec()]))
    assert _choice(found) == ("gguf", "Q4_K_M", "llama.cpp")
    assert _reason(found, "vllm", "none") == "`none` was never published"


def test_another_revision_replaces_the_pin_and_says_so(mistral: Model) -> None:
    found = _resolve(mistral, model_format="gguf", revision="main")
    assert (found.source.revision, found.source.files) == ("main", {})
    assert found.warnings == ("revision `main` replaces the catalogue's pin: its checksums do not count",)


def test_the_pin_named_as_the_revision_changes_nothing(mistral: Model) -> None:
    plain = _resolve(mistral, model_format="gguf")
    named = _resolve(mistral, model_format="gguf", revision=plain.source.revision)
    assert (named.source, named.warnings) == (plain.source, ())


def test_two_specs_that_say_the_same() -> None:
    twins = model(specs=[spec(repo_id="org/first"), spec(repo_id="org/second")])
    found = _resolve(twins)
    assert found.source.repo_id == "org/first"
    assert _reason(found, "llama.cpp", "Q4_K_M") == "the catalogue names `org/first` before `org/second`"


# --- reasons ---------------------------------------------------------------------------------------------------------


def test_the_choice_says_why(mistral: Model) -> None:
    assert _resolve(mistral).reasons == (
        "format `gguf`: suits this machine best",
        "quantization `Q4_K_M`: small, with little loss",
        "engine `llama.cpp`: the only one that can be used",
    )
    assert _resolve(mistral, CUDA, model_format="pytorch", engine="vllm").reasons == (
        "format `pytorch`: as asked",
        "quantization `none`: unquantized, as published",
        "engine `vllm`: as asked",
    )


def test_everything_else_says_why_not(mistral: Model) -> None:
    found = _resolve(mistral)
    assert _reason(found, "llama.cpp", "Q8_0") == "`Q4_K_M` is preferred"
    assert _reason(found, "llama.cpp", "none", "pytorch") == "reads no `pytorch`"
    assert _reason(found, "echo", "Q8_0") == "is used only when it is named"
    asked = _resolve(mistral, model_format="gguf", quantization="Q8_0", engine="llama.cpp")
    assert _reason(asked, "llama.cpp", "Q4_K_M") == "quantization `Q8_0` was asked for"
    assert _reason(asked, "transformers", "Q8_0") == "`llama.cpp` was asked for"
    assert _reason(asked, "llama.cpp", "none") == "format `gguf` was asked for"


def test_a_format_that_an_engine_reads_only_where_both_are_named() -> None:
    found = model(specs=[spec("gguf", 7, ("Q4_0",))])
    refused = _refused(found, engine="transformers")
    assert refused.details[0].startswith("`transformers` reads `gguf` only when both are named")
    assert _resolve(found, engine="transformers", model_format="gguf").engine == "transformers"


# --- in general ------------------------------------------------------------------------------------------------------

_formats = st.sampled_from(["pytorch", "gptq", "awq", "gguf", "fp8", "mlx", "mistral", "bnb"])
_quantizations = st.sampled_from(
    ["none", "Int4", "4-bit", "8-bit", "Q4_K_M", "q4_k_m", "Q4_0", "Q8_0", "FP8", "AWQ", "Int8"]
)
_hubs = st.sampled_from(["huggingface", "modelscope", "pypi", "openmind_hub"])
_specs = st.builds(
    lambda model_format, size, quantizations, hubs: spec(model_format, size, tuple(quantizations), tuple(hubs)),
    _formats,
    st.sampled_from([0.5, 7, 70, 671]),
    st.lists(_quantizations, min_size=1, max_size=4, unique=True),
    st.lists(_hubs, max_size=3, unique=True),
)
_models = st.lists(_specs, min_size=1, max_size=4).map(lambda specs: model(specs=specs))
_machines = st.sampled_from([*MACHINES.values(), Machine("Windows", "AMD64", 4, 8 * GB), CPU._replace(memory_bytes=GB)])
_engines = st.sampled_from([*(capability.engine for capability in CAPABILITIES), "vLLM", "nonsense"])
_requests = st.builds(
    Request,
    name=st.just("small"),
    model_format=st.none() | _formats,
    quantization=st.none() | _quantizations | st.sampled_from(["4bit", "INT8", "5bit", "", "x"]),
    engine=st.none() | _engines,
    size_in_billions=st.none() | st.sampled_from([0.5, 7.0, 8.0]),
    hub=st.none() | _hubs,
    revision=st.none() | st.just("main"),
)
_installed = st.frozensets(st.sampled_from([capability.engine for capability in CAPABILITIES]))


def _combinations(found: Model) -> Counter[tuple[str, str, str]]:
    return Counter(
        (capability.engine, each.model_format, quantization)
        for each in found.specs
        for quantization in each.quantizations
        for capability in CAPABILITIES
    )


def _check_refusal(error: ResolutionError, found: Model, machine: Machine, *, has_facts: bool = False) -> None:
    assert error.hint
    assert all(rejection.reason for rejection in error.rejected)
    # What the request itself gets wrong is said before any combination is judged.
    if error.rejected:
        assert Counter((r.engine, r.model_format, r.quantization) for r in error.rejected) == _combinations(found)
        assert error.details or has_facts  # of the weights, which the message may say completely
        if error.hint.startswith("launch ") and error.hint != f"launch inspect {found.name}":
            _run_hint(found, error.hint, machine)


@PATIENT
@given(_requests, _models, _machines, _installed)
def test_a_choice_of_the_model_or_a_reason_against_every_combination(
    request: Request, found: Model, machine: Machine, installed: frozenset[str]
) -> None:
    try:
        choice = resolve(request, found, capabilities=CAPABILITIES, machine=machine, installed=installed)
    except ResolutionError as error:
        _check_refusal(error, found, machine)
        return
    assert choice.spec in found.specs
    assert choice.quantization in choice.spec.quantizations
    in_catalogue = choice.source._replace(with_code=False)
    assert choice.source.with_code is request.trusts_remote_code
    assert request.revision or in_catalogue in choice.spec.sources_of(choice.quantization)
    assert request.model_format in (None, choice.spec.model_format)
    assert request.size_in_billions in (None, choice.spec.size_in_billions)
    assert request.engine is None or request.engine.lower() == choice.engine
    assert request.hub in (None, choice.source.hub)
    assert all(rejection.reason for rejection in choice.rejected)
    chosen = Counter([(choice.engine, choice.spec.model_format, choice.quantization)])
    rejected = Counter((r.engine, r.model_format, r.quantization) for r in choice.rejected)
    assert chosen + rejected == _combinations(found)


_facts = st.builds(
    WeightFacts,
    architecture=st.builds(Architecture, class_names=st.sampled_from([(), ("MistralForCausalLM",), ("Novel",)])),
    quantization_config=st.sampled_from(
        [{}, {"quant_method": "gptq", "desc_act": True}, {"quant_method": "gptq"}, {"quant_method": "awq"}]
    ),
    has_code=st.booleans(),
)


def _knows(engine: str, model_format: str, architecture: Architecture) -> bool | None:
    return knows_architecture(engine, None, model_format, architecture)


@PATIENT
@given(_requests, _models, _machines, _installed, _facts)
def test_what_must_load_is_in_no_conflict_with_what_is_known(
    request: Request, found: Model, machine: Machine, installed: frozenset[str], facts: WeightFacts
) -> None:
    """Whatever is chosen when facts are known; and the hint of a refusal is in none either."""
    known = {
        SourceKey.of(source, quantization)._replace(revision=request.revision or source.revision): facts
        for each in found.specs
        for quantization in each.quantizations
        for source in each.sources
    }
    knowledge = Knowledge(known, _knows)
    try:
        choice = resolve(
            request,
            found,
            capabilities=CAPABILITIES,
            machine=machine,
            installed=installed,
            knowledge=knowledge,
            must_load=True,
        )
    except ResolutionError as error:
        _check_refusal(error, found, machine, has_facts=True)
        return
    assert choice.conflicts == ()
    if choice.engine != "echo":
        assert request.trusts_remote_code or not facts.has_code


@PATIENT
@given(_requests, _models, _machines, _installed)
def test_the_same_question_has_the_same_answer(
    request: Request, found: Model, machine: Machine, installed: frozenset[str]
) -> None:
    answers: list[object] = []
    for capabilities in (CAPABILITIES, CAPABILITIES):
        try:
            answers.append(resolve(request, found, capabilities=capabilities, machine=machine, installed=installed))
        except ResolutionError as error:
            answers.append((error.message, error.details, error.hint, error.rejected))
    assert answers[0] == answers[1]


def test_an_engine_for_one_gpu_is_given_no_more() -> None:
    single = Capability("single", (FormatSupport("gguf"),), {"cuda": 0})
    with pytest.raises(ResolutionError) as raised:
        resolve(Request("small", gpus=2), model(specs=[spec()]), capabilities=[single], machine=CUDA)
    assert "`single` runs a model on one GPU only" in raised.value.details
