"""The GPUs of this machine, as their drivers or the kernel tell: NVIDIA's by NVML, AMD's and Intel's from /sys.

Nothing heavy is loaded, and where a driver does not answer there is no GPU. GPUs that share the CPU's memory are not
counted: they are slower at this than the CPU beside them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from registry.spec import Gpu

NVIDIA_SIGNS = ("proc/driver/nvidia", "dev/nvidiactl", "dev/dxg")
PCI_DEVICES = "sys/bus/pci/devices"
NVIDIA_ID, DISPLAY_CLASS = "0x10de", "0x03"
# What hides GPUs from programs, by vendor; of several the first that is set counts.
VISIBLE: Mapping[str, tuple[str, ...]] = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
}
AMD_NODES = "sys/class/kfd/kfd/topology/nodes"
CARDS = "sys/class/drm"
AMD_ID, INTEL_ID = "0x1002", "0x8086"
OWN_MEMORY_BYTES = 2 << 30
# Intel's integrated GPUs have always been device 2 of the first bus; cards are on others.
FIRST_BUS = re.compile(r"0000:00:")
# Heaps of a kfd node that are the GPU's own memory: public and private frame buffer (kfd_topology.h).
OWN_HEAPS = ("1", "2")


def read_gpus(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """Return the GPUs of the first vendor that has any here, less those that its variable hides."""
    if _has_nvidia_driver(root) and (gpus := _read_nvidia(environ)):
        return gpus
    return tuple(_read_amd(root, environ)) or tuple(_read_cards(root))


def read_driver_trouble(root: Path = Path("/")) -> str | None:
    """Return why NVIDIA's GPUs, of which there are signs, are not to be spoken to; None where all is well."""
    if not _has_nvidia_driver(root):
        has_card = any(map(_is_nvidia_card, (root / PCI_DEVICES).glob("*")))
        return "there is a GPU of NVIDIA, and no driver for it" if has_card else None
    try:
        import pynvml
    except ImportError:
        return "the package `nvidia-ml-py`, which asks NVIDIA's driver, is not here"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVIDIA's driver is here, and does not answer: {error}"
    pynvml.nvmlShutdown()
    return None


def _has_nvidia_driver(root: Path) -> bool:
    return any((root / sign).exists() for sign in NVIDIA_SIGNS)


def _is_nvidia_card(device: Path) -> bool:
    return _read(device / "vendor") == NVIDIA_ID and _read(device / "class").startswith(DISPLAY_CLASS)


def read_rocm_version(root: Path = Path("/")) -> str:
    """Return the version of AMD's runtime that is installed, such as `7.2.4`, or ""."""
    return _read(root / "opt/rocm/.info/version").partition("-")[0]


def has_vulkan(root: Path = Path("/")) -> bool:
    """Return whether Vulkan's loader and a driver other than the one that computes on the CPU are installed."""
    libraries = (root / "usr").glob("lib*/**/libvulkan.so.1") if (root / "usr").is_dir() else iter(())
    drivers = [path for folder in ("usr/share", "etc") for path in (root / folder / "vulkan/icd.d").glob("*.json")]
    return any(not path.name.startswith("lvp_") for path in drivers) and next(libraries, None) is not None


def is_visible(index: int, uuid: str, visible: str | None) -> bool:
    """Return whether CUDA_VISIBLE_DEVICES `visible` shows the GPU: None shows all, an unknown entry hides what follows.

    Entries are numbers, or UUIDs that may be cut short (CUDA C++ Programming Guide, "Environment Variables").
    """
    if visible is None:
        return True
    for entry in (part.strip() for part in visible.split(",")):
        if entry == str(index) or (len(entry) > len("GPU-") and uuid.startswith(entry)):
            return True
        if not entry.isdigit() and not entry.startswith("GPU-"):
            return False
    return False


def _read_nvidia(environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Return the GPUs that NVIDIA's driver reports, less those that CUDA_VISIBLE_DEVICES hides; () where it fails."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        cuda = cuda_version(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        handles = [(index, pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(
            Gpu(
                number=index,
                name=_text(pynvml.nvmlDeviceGetName(handle)),
                memory_bytes=pynvml.nvmlDeviceGetMemoryInfo(handle).total,
                driver=driver,
                compute=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
                cuda=cuda,
            )
            for index, handle in handles
            if is_visible(index, _text(pynvml.nvmlDeviceGetUUID(handle)), environ.get("CUDA_VISIBLE_DEVICES"))
        )
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def cuda_version(number: int) -> tuple[int, int]:
    """Return major and minor of a version as CUDA counts it: 13020 is 13.2."""
    return number // 1000, number % 1000 // 10


def _read_amd(root: Path, environ: Mapping[str, str]) -> Iterator[Gpu]:
    """Yield the GPUs of AMD's compute driver, less those that its variables hide."""
    visible = next(filter(None, map(environ.get, VISIBLE["amd"])), None)
    nodes = sorted((root / AMD_NODES).glob("*"), key=lambda node: int(node.name) if node.name.isdigit() else 0)
    facts = [(node, _properties(node / "properties")) for node in nodes]
    gpus = [(node, known) for node, known in facts if known.get("simd_count", "0") != "0"]
    for index, (node, known) in enumerate(gpus):
        memory_bytes = _own_memory_bytes(node)
        if memory_bytes >= OWN_MEMORY_BYTES and is_visible(index, "", visible):
            target = amd_target(int(known.get("gfx_target_version", "0")))
            name = _read(node / "name")
            yield Gpu(index, f"AMD {name or target}", memory_bytes, vendor="amd", target=target)


def amd_target(version: int) -> str:
    """Return what compilers call an architecture that the kernel numbers: 110000 is `gfx1100`, 90010 `gfx90a`."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}" if version else ""


def _own_memory_bytes(node: Path) -> int:
    banks = [_properties(bank) for bank in node.glob("mem_banks/*/properties")]
    return sum(int(bank.get("size_in_bytes", "0")) for bank in banks if bank.get("heap_type") in OWN_HEAPS)


def _read_cards(root: Path) -> Iterator[Gpu]:
    """Yield the cards of AMD and Intel that have memory of their own; programs reach them through Vulkan."""
    for number, card in enumerate(sorted((root / CARDS).glob("card[0-9]*"))):
        if "-" in card.name:  # a connector
            continue
        vendor, memory_bytes = _read(card / "device/vendor"), _card_memory_bytes(card)
        if memory_bytes < OWN_MEMORY_BYTES:
            continue
        if vendor == AMD_ID:
            yield Gpu(number, "AMD GPU", memory_bytes, vendor="amd")
        elif vendor == INTEL_ID and not FIRST_BUS.match((card / "device").resolve().name):
            yield Gpu(number, "Intel GPU", memory_bytes, vendor="intel")


def _card_memory_bytes(card: Path) -> int:
    """Return what the driver tells of a card's memory, or else the largest range of it that the CPU sees."""
    for name in ("device/mem_info_vram_total", "lmem_total_bytes"):
        if (told := _read(card / name)).isdigit():
            return int(told)
    ranges = [path for path in (card / "device").glob("resource[0-9]*") if path.name[8:].isdigit()]
    return max((path.stat().st_size for path in ranges), default=0)


def _properties(path: Path) -> dict[str, str]:
    pairs = (line.partition(" ") for line in _read(path).splitlines())
    return {name: value for name, _, value in pairs}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
