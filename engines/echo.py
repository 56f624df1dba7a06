"""Echo: an engine without a model or a package, which repeats what it is told; for tests, examples and first steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engines.base import Address, Cause, Requirements, Settings, Wire
from registry.spec import FEATURES, Capability, FormatSupport, Machine

RUNNER = Path(__file__).parent / "runners" / "echo.py"
FORMATS = ("gguf", "pytorch", "gptq", "awq", "fp8", "mlx", "mistral")


class Echo:
    """Takes every format, because it opens no file, and so is used only when it is named."""

    name = "echo"
    capability = Capability(
        engine="echo",
        formats=tuple(FormatSupport(model_format) for model_format in FORMATS),
        ranks={},
        systems=("Linux", "Darwin", "Windows"),
        automatic=False,
        needs_weights=False,
        own_bytes=25_000_000,
        features=frozenset(FEATURES) - {"several_gpus"},
    )
    wire = Wire(counts_by_text=True)

    def requirements_for(self, machine: Machine) -> Requirements | None:
        """Return none: it runs on the launcher's own Python."""
        return None

    def command(self, python: str, settings: Settings, address: Address) -> tuple[str, ...]:
        """Return the command that serves `settings` at `address` with the launcher's own Python."""
        return (
            *(python, "-I", str(RUNNER), "--model", str(settings.model_path), "--alias", settings.name),
            *("--ctx-size", str(settings.context_length), "--parallel", str(settings.slots)),
            *address.as_options("--socket"),
            *settings.arguments,
        )

    def variables(self, settings: Settings) -> Mapping[str, str]:
        """Return none: it needs nothing but its command line."""
        return {}

    def stage_of(self, line: str) -> str | None:
        """Return none: it has nothing to load."""
        return None

    def cause_of(self, log: str) -> Cause | None:
        """Return the last line of its log, which is where Python says why it ended."""
        lines = [line for line in log.strip().splitlines() if not line.startswith("echo: ")]
        return Cause(lines[-1]) if lines else None
