"""Writes the pages that are made from the code and the catalogue: the schema's keys, the engines, one page a model.

python docs/generate.py           write them
python docs/generate.py --check   write nothing; exit 1 if one of them is not what it would be
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import registry
from engines.builds import DRIVERS, PACKAGES, Build
from engines.index import CAPABILITIES, capabilities_for
from launcher.cli.main import main as run
from launcher.gateway.parameters import PATHS, Route, meaning_of, parameters_of
from launcher.inspection import describe_format
from launcher.serve_schema import EndpointOptions, ModelOptions, ServedEntry
from launcher.serve_schema import json_schema as serve_file_schema
from registry.schema import json_schema
from registry.spec import (
    FEATURES,
    Architecture,
    Capability,
    FormatSupport,
    Machine,
    Model,
    Source,
    Spec,
    format_size,
    quantization_bits,
)
from registry.yaml_file import read_entries

FOLDER = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py: change what it is made from, not this page. -->\n\n"
ADDRESSES = {
    "huggingface": ("Hugging Face", "https://huggingface.co/{}"),
    "modelscope": ("ModelScope", "https://modelscope.cn/models/{}"),
    "pypi": ("PyPI", "https://pypi.org/project/{}/"),
    "url": ("Address", ""),
}
COMMANDS = (
    "",
    "chat",
    "serve",
    "ps",
    "logs",
    "stop",
    "restart",
    "reload",
    "list",
    "inspect",
    "check",
    "pull",
    "lock",
    "cache",
    "cache verify",
    "cache rm",
    "cache prune",
    "engines",
    "engines features",
    "engines install",
    "engines update",
    "engines remove",
    "export systemd",
    "env",
    "doctor",
)


FAULTS = {
    1: "The server ignores ranges",
    2: "The connection ends early",
    3: "The partial file is not what it should be",
    4: "The file changes between two runs",
    5: "The right length, but wrong bytes",
    6: "A redirect to another host",
    7: "Hostile names, in listings and archives",
    8: "Two processes pull the same model",
    9: "The process is killed",
    10: "The disk is full, or may not be written",
    11: "The server is silent, slow or busy",
    12: "What is asked for cannot be had",
}
LAUNCH_FAULTS = {
    13: "A hostile chat template",
    14: "Hostile files and values",
    15: "The engine ends, hangs, or will not end",
    16: "The launcher is killed with -9",
    17: "Clients that may not ask, or misbehave",
}


def pages() -> dict[str, str]:
    """Return all generated pages by their path below docs/."""
    models = _built_in_models()
    return {
        "generated/schema.md": NOTE + _schema_page(),
        "generated/serve-file.md": NOTE + _serve_file_page(),
        "generated/launch.schema.json": json.dumps(serve_file_schema(), indent=1) + "\n",
        "generated/engines.md": NOTE + _engines_page(),
        "generated/commands.md": NOTE + "\n".join(_command_help(command) for command in COMMANDS),
        "generated/engines-measured.md": NOTE
        + _measured_page(json.loads((FOLDER / "engines-measured.json").read_text("utf-8"))),
        "generated/parameters.md": NOTE + "\n\n".join(map(_parameters_section, PATHS)) + "\n",
        "generated/faults.md": NOTE + _faults_page(_trials("faults.json")),
        "generated/faults-launches.md": NOTE + _launch_faults_page(_trials("faults-launches.json")),
        "generated/faults-counted.md": NOTE + _counted_page(_trials("faults.json"), _trials("faults-launches.json")),
        "models/index.md": _models_index(models),
        **{f"models/{model.name}.md": _model_page(model) for model in models},
    }


def _built_in_models() -> list[Model]:
    files = sorted((Path(registry.__file__).parent / "models").glob("*.yaml"))
    return [Model.from_json(entry) for file in files for entry in read_entries(file)]


# --- the endpoint ----------------------------------------------------------------------------------------------------


def _parameters_section(route: Route) -> str:
    """Return a route's parameters, by what becomes of them."""
    rows = [(f"`{each.name}`", each.treatment, meaning_of(each)) for each in parameters_of(route).values()]
    return f"### `{PATHS[route]}`\n\n" + _table(("parameter", "", ""), rows)


# --- the command line ------------------------------------------------------------------------------------------------


def _command_help(command: str) -> str:
    """Return what `launch COMMAND --help` prints, as a section."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), _environment(COLUMNS="80"):
        run([*command.split(), "--help"])
    return f"### launch {command}".rstrip() + f"\n\n```text\n{printed.getvalue().rstrip()}\n```\n"


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# --- the schema's keys -----------------------------------------------------------------------------------------------


def _schema_page() -> str:
    schema = json_schema()
    sections = [_section("An entry", schema)]
    for path, name in _nested(schema, schema, ""):
        sections.append(_section(f"`{path}`", schema["$defs"][name]))
    return "\n".join(sections)


def _nested(schema: Mapping[str, Any], node: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and definition of every mapping of keys, each definition once, outermost first."""
    seen: set[str] = set()
    queue = [(path, node)]
    while queue:
        path, node = queue.pop(0)
        for key, value in node["properties"].items():
            name, suffix = _definition_in(value)
            if name is not None and name not in seen:
                seen.add(name)
                below = f"{path}.{key}".lstrip(".") + suffix
                yield below, name
                queue.append((below, schema["$defs"][name]))


def _definition_in(value: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the definition that a value, its items or its values refer to, and how its path goes on."""
    if "$ref" in value:
        return value["$ref"].rpartition("/")[2], ""
    if "items" in value:
        return _definition_in(value["items"])[0], "[]"
    if value.get("type") == "object":
        return _definition_in(_values_of(value))[0], ".*"
    return next((_definition_in(choice) for choice in value.get("anyOf", ()) if "$ref" in choice), (None, ""))


def _values_of(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    values = [*mapping.get("patternProperties", {}).values(), mapping.get("additionalProperties")]
    return next((value for value in values if isinstance(value, dict)), {})


def _section(title: str, definition: Mapping[str, Any]) -> str:
    required = definition.get("required", ())
    rows = [
        (f"`{key}`" + (" (required)" if key in required else ""), _type_of(value), value.get("description", ""))
        for key, value in definition["properties"].items()
    ]
    return f"### {title}\n\n{definition['description']}\n\n{_table(('Key', 'Value', 'Meaning'), rows)}"


def _type_of(value: Mapping[str, Any]) -> str:
    """Return in words what a value may be."""
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "anyOf" in value:
        kinds = [_type_of(choice) for choice in value["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if value.get("type") == "array":
        return f"list of {_type_of(value['items'])}"
    if "$ref" in value:
        return "keys, as below"
    if value.get("type") == "object":
        return f"mapping to {_type_of(_values_of(value))}"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "number": "number"}
    return words.get(value.get("type", ""), "anything")


def _serve_file_page() -> str:
    """Return the keys of `launch.yaml` by where they may stand."""
    options, endpoint, served = (each.model_json_schema() for each in (ModelOptions, EndpointOptions, ServedEntry))
    own = {key: value for key, value in served["properties"].items() if key not in options["properties"]}
    whole = {key: value for key, value in endpoint["properties"].items() if key not in options["properties"]}
    sections = (
        ("In a model", served | {"properties": own}),
        ("In a model, or in `defaults`", options),
        ("In `defaults`", endpoint | {"properties": whole}),
    )
    return "\n".join(_section(title, definition) for title, definition in sections)


# --- engines ---------------------------------------------------------------------------------------------------------


# A machine without a GPU: what it fetches to set an engine up is the table's figure.
PLAIN_MACHINE = Machine("Linux", "x86_64", cores=8, memory_bytes=32 << 30)


def _engines_page() -> str:
    tables = (
        "## Formats",
        _formats_table(),
        "## Builds",
        _builds_table(),
        "## What they offer",
        _features_table(),
    )
    return "\n".join((*tables, "## What they refuse\n", _items(_refusals())))


def _formats_table() -> str:
    rows = [
        (
            f"`{capability.engine}`",
            "<br>".join(_format_of(support) for support in capability.formats),
            ", ".join(capability.systems),
            f"{capability.setup_bytes / 1e6:,.0f} MB" if capability.setup_bytes else "nothing",
            "by itself" if capability.automatic else "when named",
        )
        for capability in capabilities_for(PLAIN_MACHINE)
    ]
    return "\n" + _table(("Engine", "Reads", "Systems", "Set-up fetches, CPU", "Chosen"), rows)


def _format_of(support: FormatSupport) -> str:
    words = describe_format(support).partition(" ")
    accelerators = f", on {', '.join(support.accelerators)}" if support.accelerators is not None else ""
    return f"`{words[0]}`" + (f": {words[2]}" if words[2] else "") + accelerators


def _builds_table() -> str:
    rows = [
        (f"`{engine}`", f"`{build.variant}`", ", ".join(build.systems), _demands(build), _origin(build))
        for engine, package in PACKAGES.items()
        for build in package.builds
    ]
    return "\n" + _table(("Engine", "Build", "Systems", "Needs", "From"), rows)


def _demands(build: Build) -> str:
    if build.cuda is not None:
        lowest, highest = (".".join(map(str, version)) for version in build.compute)
        upto = "" if build.compute[1][0] > 50 else f" to {highest}"
        cuda = ".".join(map(str, build.cuda))
        return f"driver {DRIVERS[build.cuda]} (CUDA {cuda}), compute capability {lowest}{upto or ' or more'}"
    if build.rocm is not None:
        return f"ROCm {build.rocm}, {', '.join(f'`{target}`' for target in sorted(build.targets))}"
    needs = {"vulkan": "Vulkan, a card of AMD or Intel", "metal": "an Apple GPU"}
    return needs.get(build.variant, "")


def _origin(build: Build) -> str:
    if build.index_url:
        return f"<{build.index_url}>"
    return f"PyPI, torch for `{build.torch_backend}` from PyTorch's index" if build.torch_backend else "PyPI"


def _features_table() -> str:
    engines = [capability for capability in CAPABILITIES if capability.features]
    headings = ("", *(f"`{capability.engine}`" for capability in engines))
    rows = [
        (meaning, *("yes" if feature in capability.features else "" for capability in engines))
        for feature, meaning in FEATURES.items()
    ]
    return "\n" + _table(headings, rows)


def _refusals() -> Iterator[str]:
    for capability in CAPABILITIES:
        for model_format, reason in capability.refusals.items():
            yield f"`{capability.engine}` does not read `{model_format}`: {reason}."
        for support in capability.formats:
            yield from (f"`{capability.engine}` {rule.reason.partition(', and these')[0]}." for rule in support.refuses)


# --- models ----------------------------------------------------------------------------------------------------------


def _models_index(models: Sequence[Model]) -> str:
    rows = [
        (
            f"[{model.name}]({model.name}.md)",
            _sizes(model),
            _formats(model),
            _number(model.context_length),
            model.license or "",
        )
        for model in models
    ]
    table = _table(("Model", "Billions", "Formats", "Context", "Licence"), rows)
    names = "\n".join(model.name for model in models)
    return f"{NOTE}# Models\n\n{table}\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"


def _sizes(model: Model) -> str:
    return ", ".join(format_size(size) for size in sorted({spec.size_in_billions for spec in model.specs}))


def _formats(model: Model) -> str:
    return ", ".join(dict.fromkeys(f"`{spec.model_format}`" for spec in model.specs))


def _model_page(model: Model) -> str:
    specs = "\n".join(_spec_part(model, spec) for spec in model.specs)
    notes = f"\n## Notes\n\n{_items(model.notes)}" if model.notes else ""
    network = f"\n## Network\n\n{_items(_network(model.architecture))}"
    return (
        f"{NOTE}# {model.name}\n\n{model.description}\n\n{_items(_facts(model))}\n"
        f'```console\n$ launch {model.name} -p "Why is the sky blue?"\n```\n\n## Specs\n\n{specs}{network}{notes}'
    )


def _facts(model: Model) -> Iterator[str]:
    yield f"**Name:** `{model.name}`" + _listed(", also ", model.aliases)
    yield f"**Licence:** {model.license}" if model.license else "**Licence:** not stated"
    yield f"**Context length:** {_number(model.context_length)} tokens"
    yield f"**Languages:** {', '.join(model.languages)}"
    yield f"**Abilities:** {', '.join(model.abilities)}"
    if model.released:
        yield f"**Released:** {model.released}"
    if model.knowledge_cutoff:
        yield f"**Knowledge until:** {model.knowledge_cutoff}"
    if model.homepage:
        yield f"**Home:** <{model.homepage}>"


def _spec_part(model: Model, spec: Spec) -> str:
    size = format_size(spec.size_in_billions)
    command = (
        f"```console\n$ launch --model-name {model.name} --size-in-billions {size}"
        f" --model-format {spec.model_format} --quantization ${{quantization}}\n```\n"
    )
    facts = [
        f"**Quantizations:**{_listed(' ', spec.quantizations)}",
        f"**Engines:** {', '.join(_engines(spec)) or 'none'}",
        *(f"**{_hub(source)}:** {_address(source)}{_revision(source)}" for source in spec.sources),
        *(["**Published:** never"] if not spec.sources else []),
        *_needs(spec),
    ]
    return f"### {spec.model_format}, {size} billion\n\n{_items(facts)}\n{command}{_files(spec)}"


def _engines(spec: Spec) -> Iterator[str]:
    """Yield the engines that read a spec's weights, with what limits them; `echo` reads none."""
    for capability in CAPABILITIES:
        support = capability.support_of(spec.model_format)
        if support is None or not capability.ranks:
            continue
        able = [q for q in spec.quantizations if support.bits is None or quantization_bits(q) in support.bits]
        if able:
            yield f"{capability.engine}{_limits(spec, able, capability, support)}"


def _limits(spec: Spec, able: Sequence[str], capability: Capability, support: FormatSupport) -> str:
    limits = [] if len(able) == len(spec.quantizations) else [f"only{_listed(' ', able)}"]
    facts = [source.quantization_config for source in spec.sources]
    limits += [
        rule.reason.partition(", and these")[0]
        for rule in support.refuses
        if any(fact.get(rule.key) == rule.value for fact in facts)
    ]
    if support.accelerators is not None:
        limits.append(f"on {', '.join(support.accelerators)}")
    if not capability.automatic:
        limits.append("when named")
    return f" ({'; '.join(limits)})" if limits else ""


def _hub(source: Source) -> str:
    return ADDRESSES[source.hub][0] if source.hub in ADDRESSES else source.hub


def _address(source: Source) -> str:
    if source.hub not in ADDRESSES or "{" in source.repo_id:
        return f"`{source.repo_id}`"
    if source.hub == "url":
        return f"<{source.repo_id}>"
    return f"[{source.repo_id}]({ADDRESSES[source.hub][1].format(source.repo_id)})"


def _revision(source: Source) -> str:
    if source.hub == "url":
        pin = f", `{source.revision}`" if source.revision else ", each file by its checksum"
        return pin + "".join(f", also <{mirror}>" for mirror in source.mirrors)
    revision = f" at `{source.revision[:12]}`" if source.revision else ", not pinned"
    return revision + _listed(", only ", source.quantizations)


def _needs(spec: Spec) -> Iterator[str]:
    needs = spec.resources
    if needs is None:
        return
    stated = (
        ("storage", needs.storage_bytes and f"{needs.storage_bytes / 1e9:g} GB"),
        ("GPUs", needs.gpu_count),
        ("GPU memory", needs.gpu_memory_bytes and f"{needs.gpu_memory_bytes / 1e9:g} GB"),
        ("memory of each GPU", needs.memory_per_gpu_bytes and f"{needs.memory_per_gpu_bytes / 1e9:g} GB"),
        ("precision", needs.precision),
    )
    yield "**Needs, as stated:** " + ", ".join(f"{what} {value}" for what, value in stated if value)


def _files(spec: Spec) -> str:
    rows = []
    for source in spec.sources:
        for quantization in spec.quantizations:
            for name in source.file_names(quantization):
                known = source.files.get(name)
                if known is not None and known.size_bytes is not None:
                    about = "about " if known.estimated else ""
                    rows.append((f"`{quantization}`", f"`{name}`", f"{about}{known.size_bytes / 1e9:.2f} GB"))
    return f"\n{_table(('Quantization', 'File', 'Size'), rows)}" if rows else ""


def _network(network: Architecture) -> Iterator[str]:
    words = {
        "kind": network.kind,
        "class": ", ".join(network.class_names),
        "parameters": _number(network.parameters),
        "active parameters": _number(network.active_parameters),
        "layers": network.layers,
        "hidden size": _number(network.hidden_size),
        "intermediate size": _number(network.intermediate_size),
        "heads": network.heads,
        "heads of keys and values": network.kv_heads,
        "head size": network.head_size,
        "vocabulary": _number(network.vocabulary),
        "tokenizer": network.tokenizer,
        "activation": network.activation,
        "normalization": network.normalization,
        "positions": network.positions,
        "base of the positions": network.position_base and f"{network.position_base:,.0f}",
        "attention": network.attention,
    }
    yield from (f"**{what.capitalize()}:** {value}" for what, value in words.items() if value)


# --- faults that are survived ----------------------------------------------------------------------------------------


def _trials(name: str) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = json.loads((FOLDER / name).read_text("utf-8"))
    return trials


def _faults_page(trials: Sequence[Mapping[str, Any]]) -> str:
    """Return what was tried against downloads and what happened, as `nox -s downloads` recorded it."""
    corrupt = sum(trial["corrupt_files"] for trial in trials)
    twice = sum(trial["twice_bytes"] or 0 for trial in trials)
    total = f"In {len(trials)} trials: corrupt files accepted **{corrupt}**, bytes fetched twice **{twice}**.\n"
    return "\n".join([*_faults(FAULTS, trials), total])


def _launch_faults_page(trials: Sequence[Mapping[str, Any]]) -> str:
    """Return what was tried against launches and what happened, as `nox -s faults` recorded it."""
    lost, left = (sum(trial[name] for trial in trials) for name in ("lost", "left"))
    total = (
        f"In {len(trials)} trials: requests that got neither an answer nor an error **{lost}**, processes, sockets and "
        f"records left **{left}**.\n"
    )
    return "\n".join([*_faults(LAUNCH_FAULTS, trials), total])


def _counted_page(downloads: Sequence[Mapping[str, Any]], launches: Sequence[Mapping[str, Any]]) -> str:
    """Return how often each fault was tried, and what was lost."""
    rows = [
        *(_counted(title, downloads, fault, ("corrupt_files", "twice_bytes")) for fault, title in FAULTS.items()),
        *(_counted(title, launches, fault, ("lost", "left")) for fault, title in LAUNCH_FAULTS.items()),
    ]
    return _table(("Fault", "Trials", "Lost or left behind"), rows)


def _counted(title: str, trials: Sequence[Mapping[str, Any]], fault: int, harms: Sequence[str]) -> tuple[str, str, str]:
    tried = [trial for trial in trials if trial["fault"] == fault]
    return title, str(len(tried)), str(sum(trial[harm] or 0 for trial in tried for harm in harms))


def _faults(titles: Mapping[int, str], trials: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    return (_fault(title, [each for each in trials if each["fault"] == fault]) for fault, title in titles.items())


def _fault(title: str, trials: Sequence[Mapping[str, Any]]) -> str:
    through: dict[tuple[str, str], list[str]] = {}
    for trial in trials:
        happened = trial["happened"].replace(trial["through"], "*the hub*")
        through.setdefault((trial["tried"], happened), []).append(trial["through"])
    rows = [(tried, " and ".join(names), happened) for (tried, happened), names in through.items()]
    return f"### {title}\n\n{_table(('What was done', 'Through', 'What happened'), rows)}"


# --- what engines were measured to do ---------------------------------------------------------------------------------


def _measured_page(run: Mapping[str, Any]) -> str:
    """Return the table of one run of tests/engines/matrix.py, as it recorded it."""
    if not run["rows"]:
        return "No run on a quiet machine is recorded for this version.\n"
    speeds = ("Ready", "First token", "One stream", "Eight streams", "Peak memory")
    table = _table(("Engine", "Format", "Quantization", *speeds), [_measured_row(row) for row in run["rows"]])
    return (
        f"{table}\nModel launcher {run['version']} on {run['machine']}; weights: {run['weights']}; {run['tokens']} "
        f"tokens an answer; a context of {run['context_length']:,} for each of eight requests. Ready is the time from "
        "the command to an endpoint that has generated a token, the files being here. Speeds are in tokens a second "
        "after the first token, as clients of the endpoint see them. Memory is the sum of the proportional shares "
        "(PSS) of the engine's processes.\n"
    )


def _measured_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"`{row['engine']}`",
        f"`{row['model_format']}`",
        f"`{row['quantization']}`",
        f"{row['ready_s']:.1f} s",
        f"{row['first_token_s'] * 1000:.0f} ms",
        f"{row['one_stream_tokens_per_s']:.0f}",
        f"{row['eight_streams_tokens_per_s']:.0f}",
        f"{row['peak_bytes'] / 1e6:,.0f} MB",
    )


# --- Markdown --------------------------------------------------------------------------------------------------------


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _listed(before: str, names: Sequence[str]) -> str:
    return before + ", ".join(f"`{name}`" for name in names) if names else ""


def _items(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str]) -> int:
    """Write the pages that differ, or with `--check` only name them; return the exit status."""
    wanted = pages()
    made = {
        path.relative_to(FOLDER).as_posix() for part in ("generated", "models") for path in (FOLDER / part).glob("*.*")
    }
    stale = [name for name, text in wanted.items() if name not in made or (FOLDER / name).read_text("utf-8") != text]
    forgotten = sorted(made - set(wanted))
    if "--check" in arguments:
        for name in (*stale, *forgotten):
            print(f"docs/{name} is not current: run `python docs/generate.py`")
        return 1 if stale or forgotten else 0
    for name in stale:
        (FOLDER / name).parent.mkdir(exist_ok=True)
        (FOLDER / name).write_text(wanted[name], "utf-8")
    for name in forgotten:
        (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
