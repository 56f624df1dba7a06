"""Transformers: every architecture first, and the quantizations that others do not read."""

from registry.spec import Capability, FormatSupport

CAPABILITY = Capability(
    engine="transformers",
    formats=(
        FormatSupport("pytorch", bits=(16, 8, 4)),
        FormatSupport("gptq", bits=(2, 3, 4, 8)),
        FormatSupport("awq", bits=(4,)),
        FormatSupport("bnb", bits=(4, 8)),
        FormatSupport("fp8", accelerators=("cuda",)),
    ),
    refusals={"gguf": "it would unpack the weights to several times their size"},
    ranks={"cuda": 1, "metal": 1, "cpu": 1},
    launchable=False,
    setup_bytes=3_600_000_000,
)
