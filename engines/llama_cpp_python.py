"""llama-cpp-python: llama.cpp's other binding, for those who have it built for their hardware."""

from registry.spec import Capability, FormatSupport

CAPABILITY = Capability(
    engine="llama-cpp-python",
    formats=(FormatSupport("gguf"),),
    aliases=("llama_cpp_python", "llamacpp-python"),
    ranks={"cpu": 3, "metal": 2, "vulkan": 2, "cuda": 3},
    automatic=False,
    setup_bytes=70_000_000,
)
