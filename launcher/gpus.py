"""Which of the machine's GPUs a launch may use: a count of them, their numbers, or none."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from engines.machine import without_gpus
from launcher.output import format_count
from registry.errors import ResolutionError
from registry.request import listing
from registry.spec import Gpu, Machine

GpusAsked = int | str | Sequence[int]


def with_gpus(machine: Machine, asked: GpusAsked | None) -> Machine:
    """Return the machine as it is to be seen: with the GPUs that were asked for and no others.

    A number alone is a count, `0,1` are the driver's numbers, `none` leaves the CPU. Raises ResolutionError for more
    than CUDA_VISIBLE_DEVICES shows.
    """
    wanted = read_gpus(asked)
    if wanted is None:
        return machine
    if isinstance(wanted, int):
        if wanted > len(machine.gpus):
            raise _too_many(format_count(wanted, "GPU"), machine)
        return machine._replace(gpus=machine.gpus[:wanted]) if wanted else without_gpus(machine)
    visible = {gpu.number: gpu for gpu in machine.gpus}
    if missing := [number for number in wanted if number not in visible]:
        raise _too_many(f"GPU {listing([str(number) for number in missing])}", machine)
    return machine._replace(gpus=tuple(visible[number] for number in wanted))


def gpus_to_use(machine: Machine, asked: GpusAsked | None) -> tuple[Gpu, ...]:
    """Return the GPUs that the engine gets: those that were asked for, else the first."""
    return machine.gpus if read_gpus(asked) is not None else machine.gpus[:1]


def gpu_count(machine: Machine, asked: GpusAsked | None) -> int | None:
    """Return on how many GPUs a model was asked to run; None where nothing was asked."""
    return None if read_gpus(asked) is None else len(machine.gpus)


def read_gpus(asked: GpusAsked | None) -> int | tuple[int, ...] | None:
    """Return a count, or numbers, or None where all is left to us; raises ResolutionError for what makes no sense."""
    if isinstance(asked, str):
        return _read_text(asked)
    if asked is None or (isinstance(asked, int) and not isinstance(asked, bool) and asked >= 0):
        return asked
    if isinstance(asked, list | tuple) and asked and all(isinstance(each, int) and each >= 0 for each in asked):
        return tuple(dict.fromkeys(asked))
    raise _senseless(asked)


def _read_text(text: str) -> int | tuple[int, ...] | None:
    if text.lower() in ("none", "auto"):
        return 0 if text.lower() == "none" else None
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*,?", text):
        raise _senseless(text)
    numbers = [int(part) for part in text.split(",") if part]
    return tuple(dict.fromkeys(numbers)) if "," in text else numbers[0]


def _senseless(asked: object) -> ResolutionError:
    return ResolutionError(
        f"`{asked}` says not which GPUs to use", hint="--gpus 2 for two of them, --gpus 0,1 for these, --gpus none"
    )


def _too_many(what: str, machine: Machine) -> ResolutionError:
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return ResolutionError(
        f"{what} {'were' if what.endswith('s') else 'was'} asked for; there {_there_is(len(machine.gpus))} here",
        details=[
            *(f"GPU {gpu.number}: {gpu.name}" for gpu in machine.gpus),
            *([f"`CUDA_VISIBLE_DEVICES` is `{seen}`"] if seen is not None else []),
        ],
        hint=f"--gpus {len(machine.gpus) or 'none'}",
    )


def _there_is(count: int) -> str:
    if count == 0:
        return "is none"
    return "is one" if count == 1 else f"are {count}"
