"""What `launch.yaml` means, and what it is told where it makes no sense."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.planning import Request, make_plan
from launcher.serve_file import ServedModel, ServeFile, read_serve_file
from launcher.serve_schema import DefaultsEntry, EndpointOptions, ModelOptions, ServedEntry, json_schema, keys_of
from registry.cache import cache_folder
from registry.catalogue import read_catalogue
from registry.errors import CatalogueError, SchemaError
from tests.registry.entries import yaml_entry

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "launch.yaml"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "launch.yaml"


def read(path: Path, text: str) -> ServeFile:
    path.write_text(text)
    return read_serve_file(path)


def only(path: Path, text: str) -> ServedModel:
    """Return the only model of a file with these options of it, each a line."""
    (model,) = read(path, f"models:\n  - model: smollm2-instruct\n    {text}\n").models
    return model


def refused(path: Path, text: str) -> SchemaError:
    path.write_text(text)
    with pytest.raises(SchemaError) as raised:
        read_serve_file(path)
    assert raised.value.file == str(path)
    assert raised.value.message.startswith(f"{path}:{raised.value.line}")
    assert raised.value.message.isprintable()
    return raised.value


# --- what it means ----------------------------------------------------------------------------------------------------


def test_a_name_alone_is_a_model(path: Path) -> None:
    file = read(path, "models:\n  - smollm2-instruct\n")
    served = ServedModel("smollm2-instruct", "smollm2-instruct", (), {}, "demand", None, False, None)
    assert file == (path, {}, (served,))


def test_a_model_has_its_own_options(path: Path) -> None:
    file = read(
        path,
        """
models:
  - smollm2-instruct
  - model: mistral-instruct-v0.2
    name: small
    aliases: [gpt-4o-mini, org/name]
    size-in-billions: 7
    model-format: ggufv2
    quantization: Q4_K_M
    context-length: 8_192
    concurrency: 2
    gpus: none
    start: fast
    dtype: auto
    trust-remote-code: false
    no-install: true
    load: start
    keep: 10m
    pinned: true
    max-queue: 8
    engine-args: [--flash-attn, on, --threads-http, 4]
""",
    )
    request: Request = {
        "size_in_billions": 7,
        "model_format": "gguf",
        "quantization": "Q4_K_M",
        "context_length": 8192,
        "concurrency": 2,
        "gpus": "none",
        "start": "fast",
        "dtype": "auto",
        "trust_remote_code": False,
        "install": False,
        "engine_args": ["--flash-attn", "on", "--threads-http", "4"],
    }
    small = ServedModel(
        "small",
        "mistral-instruct-v0.2",
        ("gpt-4o-mini", "org/name"),
        request,
        "start",
        600,
        is_pinned=True,
        max_queue=8,
    )
    assert file.models[1] == small


def test_defaults_are_the_endpoint_s_and_all_models(path: Path) -> None:
    file = read(
        path,
        """
defaults:
  port: 8001
  max-memory: 12GB
  max-queue: 4
  json: true
  allowed-host: example.com
  context-length: max
  keep: 2h
  pinned: true
models:
  - smollm2-instruct
  - {model: mistral-instruct-v0.2, context-length: 512, keep: 90s, pinned: false, max-queue: 0}
""",
    )
    assert file.options == {
        "port": 8001,
        "max_memory": "12GB",
        "max_queue": 4,
        "json": True,
        "allowed_host": ["example.com"],
    }
    first, second = file.models
    assert (first.request, first.keep_s, first.is_pinned, first.max_queue) == (
        {"context_length": "max"},
        7200,
        True,
        None,
    )
    assert (second.request, second.keep_s, second.is_pinned, second.max_queue) == (
        {"context_length": 512},
        90,
        False,
        0,
    )


def test_nothing_takes_a_default_back(path: Path) -> None:
    head = "defaults: {keep: 10m, quantization: Q4_K_M, locked: true, port: null}\n"
    own = "    keep:\n    quantization: null\n    locked: false\n"
    file = read(path, f"{head}models:\n  - model: smollm2-instruct\n{own}")
    assert (file.models[0].keep_s, file.models[0].request, file.options) == (None, {}, {})


def test_underscores_equal_hyphens(path: Path) -> None:
    head = "defaults: {max_memory: 1GiB, context_length: 512}\n"
    file = read(path, f"{head}models: [{{model: smollm2-instruct, max_queue: 2}}]\n")
    assert file.options == {"max_memory": "1GiB"}
    assert (file.models[0].max_queue, file.models[0].request) == (2, {"context_length": 512})


@pytest.mark.parametrize(
    ("text", "word", "value"),
    [
        ("gpus: 2", "gpus", 2),
        ("gpus: 0,1", "gpus", "0,1"),
        ("gpus: [0, 1]", "gpus", [0, 1]),
        ("size-in-billions: 0_5", "size_in_billions", 0.5),
        ("size-in-billions: 7b", "size_in_billions", 7),
        ("context-length: MAX", "context_length", "max"),
        (
            "engine-args: {mlock: true, n_gpu_layers: 3, none: null}",
            "engine_args",
            {"mlock": True, "n_gpu_layers": 3, "none": None},
        ),
        ("hub: modelscope,hf", "hub", "modelscope,hf"),
        ("engine: llamacpp", "engine", "llamacpp"),
        ("environment: 0.9.1", "environment", "0.9.1"),
        ("offline: true", "offline", True),
    ],
)
def test_values_are_those_of_the_command_line(path: Path, text: str, word: str, value: object) -> None:
    assert dict(only(path, text).request) == {word: value}


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("access-log: on", "access_log", "on"),
        ("access-log: false", "access_log", "off"),
        ("hang-after: 2m", "hang_after", "2m"),
        ("max-restarts: 0", "max_restarts", 0),
        ("allowed-host: [a, 'b:8000']", "allowed_host", ["a", "b:8000"]),
        ("host: 0.0.0.0", "host", "0.0.0.0"),
        ("no-api-key: true", "no_api_key", True),
    ],
)
def test_options_of_the_endpoint_are_those_of_the_command_line(
    path: Path, text: str, option: str, value: object
) -> None:
    assert read(path, f"defaults:\n  {text}\nmodels: [smollm2-instruct]\n").options == {option: value}


def test_paths_are_from_the_file_s_folder(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    head = "defaults: {api-key-file: keys, tls-cert: ~/cert.pem, tls-key: /key.pem, access-log: ../log}\n"
    model = "{model: smollm2-instruct, locked: true, environment: venv}"
    file = read(path, f"{head}models: [{model}]\n")
    assert file.options == {
        "api_key_file": f"{tmp_path}/keys",
        "tls_cert": f"{Path.home()}/cert.pem",
        "tls_key": "/key.pem",
        "access_log": f"{tmp_path}/../log",
    }
    assert file.models[0].request == {"locked": f"{tmp_path}/launch.lock", "environment": f"{tmp_path}/venv"}


def test_a_model_may_be_a_path(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    (model,) = read(path, "models: [./weights]\n").models
    assert (model.name, model.model) == ("weights", str(folder))


def test_a_repo_id_and_an_alias_are_served_under_the_model_s_own_name(path: Path) -> None:
    catalogue = read_catalogue()
    known = catalogue.find("mistral-instruct-v0.2").model
    repo_id = known.specs[0].sources[0].repo_for(known.specs[0].quantizations[0])
    (model,) = read(path, f"models: ['{repo_id}']\n").models
    assert (model.name, model.model) == ("mistral-instruct-v0.2", repo_id)


def test_two_models_may_be_the_same_with_other_options(path: Path) -> None:
    file = read(path, "models:\n  - smollm2-instruct\n  - {model: smollm2-instruct, name: long, context-length: max}\n")
    assert [model.name for model in file.models] == ["smollm2-instruct", "long"]


# --- its own catalogue ------------------------------------------------------------------------------------------------


def own(name: str) -> str:
    """Return an entry as it stands in the list `registry`."""
    first, *rest = yaml_entry(name).splitlines()
    return "\n".join([f"  - {first}", *(f"    {line}" for line in rest)]) + "\n"


def test_own_entries_and_layers_are_the_models_catalogue(path: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "one.yaml").write_text(yaml_entry("layered"))
    file = read(path, f"models: [mine, layered]\nregistry:\n  - more/\n{own('mine')}")
    assert file.models[0].request == {"registry": (tmp_path / "more", path)}
    plans = [make_plan(model.model, model.request) for model in file.models]
    assert [plan.name for plan in plans] == ["mine", "layered"]


def test_a_file_without_own_entries_is_no_layer(path: Path, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(yaml_entry("layered"))
    (model,) = read(path, "models: [layered]\nregistry: [one.yaml]\n").models
    assert model.request == {"registry": (tmp_path / "one.yaml",)}


def test_of_a_launch_yaml_the_registry_option_takes_the_entries(path: Path) -> None:
    path.write_text(f"models: [mine]\nregistry:\n  - no/such/layer\n{own('mine')}{own('other')}")
    before = {summary.name for summary in read_catalogue().models}
    catalogue = read_catalogue([path])
    assert {summary.name for summary in catalogue.models} - before == {"mine", "other"}


def test_the_index_of_own_entries_is_made_anew_when_the_file_changes(path: Path) -> None:
    path.write_text(f"models: [mine]\nregistry:\n{own('mine')}")
    read_serve_file(path)
    index = cache_folder() / "index"
    made = {each.name for each in index.iterdir()}
    read_serve_file(path)
    assert {each.name for each in index.iterdir()} == made
    (model,) = read(path, f"models: [changed]\nregistry:\n{own('changed')}").models
    assert model.name == "changed"
    assert {each.name for each in index.iterdir()} > made


# --- what makes no sense ----------------------------------------------------------------------------------------------

_HEAD = "models: [smollm2-instruct]\n"
_ONE = "models:\n  - model: smollm2-instruct\n    "


@pytest.mark.parametrize(
    ("text", "line", "key", "message", "hint"),
    [
        (_HEAD + "modles: []\n", 2, "modles", "is not a key", "did you mean `models`?"),
        (_ONE + "quantisation: Q4_K_M\n", 3, "models.0.quantisation", "is not a key", "did you mean `quantization`?"),
        (_ONE + "max_que: 3\n", 3, "models.0.max-que", "is not a key", "did you mean `max-queue`?"),
        (
            _HEAD + "defaults:\n  max-memroy: 1GB\n",
            3,
            "defaults.max-memroy",
            "is not a key",
            "did you mean `max-memory`?",
        ),
        (_HEAD + "defaults:\n  name: x\n", 3, "defaults.name", "is not a key", None),
        (
            _ONE + "port: 8000\n",
            3,
            "models.0.port",
            "is an option of the whole endpoint: it belongs under `defaults`",
            None,
        ),
        (_HEAD + "host: localhost\n", 2, "host", "is an option of the whole endpoint: it belongs under", None),
        (_HEAD + "defaults: {port: 70000}\n", 2, "defaults.port", "should be less than or equal to 65535", None),
        (_HEAD + "defaults: {port: '8000'}\n", 2, "defaults.port", "is not a whole number, but `8000` was given", None),
        (_HEAD + "defaults: {max-memory: lots}\n", 2, "defaults.max-memory", "must be a size such as `12GB`", None),
        (_HEAD + "defaults: {hang-after: 90}\n", 2, "defaults.hang-after", "must be a time such as `90s`, `10m`", None),
        (_HEAD + "defaults: {host: ''}\n", 2, "defaults.host", "is empty", None),
        (_ONE + "keep: true\n", 3, "models.0.keep", "must be a time such as `90s`, `10m` or `2h`, not `true`", None),
        (_ONE + "keep: [1]\n", 3, "models.0.keep", "must be a time", None),
        (
            _ONE + "context-length: 8k\n",
            3,
            "models.0.context-length",
            "must be a whole number or `max`, not `8k`",
            None,
        ),
        (_ONE + "load: lazy\n", 3, "models.0.load", "must be one of `start`, `demand`, but `lazy` was", None),
        (_ONE + "load: strat\n", 3, "models.0.load", "must be one of `start`, `demand`", "did you mean `start`?"),
        (
            _ONE + "model-format: gguff\n",
            3,
            "models.0.model-format",
            "must be one of `pytorch`",
            "did you mean `gguf`?",
        ),
        (
            _ONE + "engine: vlm\n",
            3,
            "models.0.engine",
            "cannot be used: there is no engine `vlm`",
            "did you mean `vllm`?",
        ),
        (_ONE + "hub: hugging\n", 3, "models.0.hub", "cannot be used: there is no hub `hugging`", "the hubs are"),
        (_ONE + "dtype: int4\n", 3, "models.0.dtype", "cannot be used: there is no dtype `int4`", "--dtype auto, bfl"),
        (_ONE + "gpus: all\n", 3, "models.0.gpus", "cannot be used: `all` says not which GPUs", "--gpus 2 for two"),
        (_ONE + "gpus: [a]\n", 3, "models.0.gpus", "cannot be used", "--gpus 2 for two"),
        (_ONE + "engine-args: --mlock\n", 3, "models.0.engine-args", "is neither a list of words nor a mapping", None),
        (_ONE + "engine-args: [--a, true]\n", 3, "models.0.engine-args.1", "is not a word", "put it in quotes"),
        (_ONE + "engine-args:\n      a: [1]\n", 4, "models.0.engine-args.a", "is not a plain value", None),
        (_ONE + "concurrency: 0\n", 3, "models.0.concurrency", "should be greater than 0", None),
        (_ONE + "pinned: yes\n", 3, "models.0.pinned", "is neither true nor false, but `yes` was given", None),
        (_ONE + "quantization: 4\n", 3, "models.0.quantization", "is not text, but `4` was given", "put it in quotes"),
        (_ONE + "name: a b\n", 3, "models.0.name", "is not a name such as `gpt-4o-mini` or `org/name`", None),
        (_ONE + "aliases: x\n", 3, "models.0.aliases", "is not a list", None),
        (_ONE + "max-queue: 1\n    max_queue: 2\n", 4, "models.0.max-queue", "is given twice", None),
        ("models:\n  - name: x\n", 2, "models.0.model", "is missing", None),
        ("models: [3]\n", 1, "models.0", "is not a mapping of keys, but `3` was given", None),
        ("models: smollm2-instruct\n", 1, "models", "is not a list", None),
        ("models: []\n", 1, "models", "is empty", None),
        ("models:\n", 1, "models", "is not a list", None),
        ("defaults: {}\n", 1, "models", "is missing", None),
        ("models:\n  - smollm2-instruct\n  - smollm2\n  - smollm3-instrct\n", 3, "models.1.model", "", None),
        (_HEAD + "registry: [missing/]\n", 2, "registry.0", "names no file or folder", None),
        (_HEAD + "registry: models/\n", 2, "registry", "is not a list", None),
        (_HEAD + "registry: [3]\n", 2, "registry.0", "is not a mapping of keys, but `3` was given", None),
    ],
)
def test_an_error_names_file_line_key_and_what_would_be_right(
    path: Path, text: str, line: int, key: str, message: str, hint: str | None
) -> None:
    error = refused(path, text)
    assert (error.line, error.key) == (line, key)
    assert f"`{key}` {message}" in error.message
    assert (error.hint or "").startswith(hint or "")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_serves_nothing(path: Path, text: str) -> None:
    assert "`models` is missing" in refused(path, text).message


def test_one_document_is_all(path: Path) -> None:
    error = refused(path, f"{_HEAD}---\n{_HEAD}")
    assert (error.line, "second document" in error.message) == (3, True)


@pytest.mark.parametrize("where", ["defaults: {api-key: s3cret}\n" + _HEAD, _ONE + "api_key: s3cret\n"])
def test_keys_do_not_belong_into_the_file(path: Path, where: str) -> None:
    error = refused(path, where)
    assert "api-key` does not belong into a file that is shared" in error.message
    assert error.hint == "say it as LAUNCH_API_KEY, or in a file of its own by `api-key-file`"
    assert "s3cret" not in error.message


def test_a_model_that_there_is_not_has_the_near_one(path: Path) -> None:
    error = refused(path, "models:\n  - smollm2-instruct\n  - model: mistral-instrct-v0.2\n    name: x\n")
    assert error.message == f"{path}:3: `models.1.model` cannot be served: no model is called `mistral-instrct-v0.2`"
    assert error.hint == "did you mean `mistral-instruct-v0.2`?"


def test_weights_that_there_are_not_have_the_line(path: Path, tmp_path: Path) -> None:
    error = refused(path, "models:\n  - ./weights.gguf\n")
    cause = f"there is no file or folder `{tmp_path}/weights.gguf`"
    assert error.message == f"{path}:2: `models.0.model` cannot be served: {cause}"


@pytest.mark.parametrize(
    ("second", "key", "name"),
    [
        ("smollm2-instruct", "models.1.model", "smollm2-instruct"),
        ("{model: mistral-instruct-v0.2, name: SmolLM2-Instruct}", "models.1.name", "SmolLM2-Instruct"),
        ("{model: mistral-instruct-v0.2, aliases: [x, Small]}", "models.1.aliases.1", "Small"),
        ("{model: mistral-instruct-v0.2, aliases: [smollm2-instruct]}", "models.1.aliases.0", "smollm2-instruct"),
    ],
)
def test_a_name_is_one_model_s(path: Path, second: str, key: str, name: str) -> None:
    first = "models:\n  - model: smollm2-instruct\n    aliases: [small]\n"
    error = refused(path, f"{first}  - {second}\n")
    line = 3 if name == "Small" else 2
    assert error.message == f"{path}:4: `{key}` would answer to `{name}`, as does that of line {line}"
    assert error.hint == "give one of them another `name`"


def test_own_entries_are_held_to_the_catalogue_s_schema(path: Path) -> None:
    error = refused(path, f"models: [mine]\nregistry:\n{own('mine')}    relesed: 2024\n")
    assert (error.line, error.key, error.hint) == (12, "registry.0.relesed", "did you mean `released`?")
    with pytest.raises(SchemaError) as raised:
        read_catalogue([path])
    assert raised.value.message == error.message


def test_a_layer_s_own_errors_name_the_layer(path: Path, tmp_path: Path) -> None:
    layer = tmp_path / "one.yaml"
    layer.write_text(yaml_entry("layered") + "relesed: 2024\n")
    path.write_text(_HEAD + "registry: [one.yaml]\n")
    with pytest.raises(SchemaError) as raised:
        read_serve_file(path)
    assert raised.value.file == str(layer)


def test_a_file_that_cannot_be_read_is_named(path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"launch\.yaml cannot be read: No such file or directory"):
        read_serve_file(path)


def test_bombs_are_refused(path: Path) -> None:
    laughs = "\n".join(["a0: &a0 [lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))])
    assert "alias `*a0`" in refused(path, laughs).message
    assert "is nested too deep" in refused(path, "models: " + "[" * 200_000).message


def test_a_long_value_is_shown_short(path: Path) -> None:
    error = refused(path, f'{_ONE}keep: "{"x" * 100_000}\\e[2J"\n')
    assert len(error.message) < len(str(path)) + 400


# --- whatever comes ---------------------------------------------------------------------------------------------------

_ANY = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=80
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
_VALUES = st.recursive(
    _SCALARS | st.sampled_from(["10m", "12GB", "max", "none", "0,1", "vllm", "gguf", "start"]),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=9), value, max_size=3),
    max_leaves=6,
)
_DEFAULTS = st.dictionaries(st.sampled_from(sorted(keys_of(DefaultsEntry))), _VALUES, max_size=4)
_MODEL = st.dictionaries(st.sampled_from(sorted(keys_of(ServedEntry))), _VALUES, max_size=4)


def _read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        file = read_serve_file(path)
    except SchemaError as error:
        _check_place(error, path)
    else:
        _check_right(file)


def _check_place(error: SchemaError, path: Path) -> None:
    assert error.line >= 1
    assert str(path) in error.message


def _check_right(file: ServeFile) -> None:
    assert set(file.options) <= {key.replace("-", "_") for key in keys_of(EndpointOptions)}
    for model in file.models:
        assert set(model.request) <= set(Request.__annotations__)
        assert model.load in ("start", "demand")
        assert model.keep_s is None or model.keep_s >= 0
        assert model.max_queue is None or model.max_queue >= 0
        assert None not in model.request.values()


@_ANY
@given(_DEFAULTS, _MODEL)
def test_any_value_of_any_option_is_right_or_a_schema_error(
    path: Path, defaults: Mapping[str, Any], model: Mapping[str, Any]
) -> None:
    data = {"defaults": defaults, "models": [{"model": "smollm2-instruct", **model}]}
    _read_or_refuse(path, yaml.safe_dump(data, allow_unicode=True).encode())


@_ANY
@given(st.sampled_from(["defaults", "models", "registry"]), _VALUES)
def test_any_section_is_right_or_a_schema_error(path: Path, section: str, value: object) -> None:
    data = {"models": ["smollm2-instruct"], section: value}
    _read_or_refuse(path, yaml.safe_dump(data, allow_unicode=True).encode())


@_ANY
@given(st.integers(min_value=0), st.characters(codec="utf-8"))
def test_any_damage_to_the_example_is_right_or_a_schema_error(path: Path, at: int, character: str) -> None:
    text = EXAMPLE.read_text()
    at %= len(text)
    _read_or_refuse(path, (text[:at] + character + text[at + 1 :]).encode())


# --- one list of options ----------------------------------------------------------------------------------------------


def test_every_word_of_a_request_is_an_option_of_a_model() -> None:
    words = set(Request.__annotations__) - {"registry", "install"} | {"no_install"}
    assert words | {"load", "keep", "pinned", "max_queue"} == set(ModelOptions.model_fields)


def test_the_schema_for_editors_has_every_option_and_the_catalogue_s_entry() -> None:
    schema = json_schema()
    options = schema["$defs"]["DefaultsEntry"]["properties"]
    assert set(options) == set(keys_of(EndpointOptions)) | set(keys_of(ModelOptions))
    assert all("-" in name or name.isalpha() for name in options)
    assert {"DefaultsEntry", "ServedEntry", "ModelEntry", "SpecEntry"} <= set(schema["$defs"])
    json.dumps(schema)


def test_the_example_is_read() -> None:
    file = read_serve_file(EXAMPLE)
    assert file.options["max_memory"] == "12GB"
    assert [(model.name, model.aliases) for model in file.models] == [
        ("smollm2-instruct", ()),
        ("mistral", ("gpt-4o-mini", "gpt-3.5-turbo")),
    ]


def test_the_page_s_examples_are_read(path: Path) -> None:
    (path.parent / "models").mkdir()
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "serve.md").read_text(), re.DOTALL)
    names = [[model.name for model in read(path, block).models] for block in blocks]
    assert names == [["smollm2-instruct", "smollm2-long"], ["careful", "quick", "small"], ["our-model"]]
