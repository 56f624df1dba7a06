"""vLLM's own server, with what its CPU build lacks where the processor has no AVX-512: a way to read GPTQ and AWQ.

The build for such processors comes without its kernel for packed 4-bit weights, chooses it all the same, and dies of it
with the first token (0.32). Here such weights are unpacked when they are loaded, to four times their size. vLLM starts
its engine process from this file anew, so that what is registered here is registered there.
"""

from __future__ import annotations

import os
from typing import Any

MISSING = "CPUWNA16LinearKernel"


def register_unpacking() -> None:
    """Put a kernel that unpacks in the place of the one that this processor's build lacks."""
    import torch
    import vllm._custom_ops  # noqa: F401 - loads the build's own operations
    from vllm.model_executor.kernels.linear import register_linear_kernel
    from vllm.model_executor.kernels.linear.mixed_precision.cpu import CPUWNA16LinearKernel
    from vllm.model_executor.layers.quantization.utils import replace_parameter
    from vllm.model_executor.layers.quantization.utils.quant_utils import unpack_quantized_values_into_int32 as unpack
    from vllm.platforms import PlatformEnum, current_platform

    if not current_platform.is_cpu() or hasattr(torch.ops._C, "cpu_gemm_wna16"):
        return

    class UnpackedLinearKernel(CPUWNA16LinearKernel):  # type: ignore[misc]  # vLLM is not here when types are checked
        """Holds the weights [out, in] as the activations are."""

        def _process_gptq_weights_w4a16(self, layer: Any) -> None:
            packed, scales, zeros = self._get_weight_params(layer)
            kind = self.config.weight_type
            values = unpack(packed, kind, 0)
            group = values.size(0) // scales.size(0)
            offsets = kind.bias if zeros is None else unpack(zeros, kind, 1).repeat_interleave(group, 0)
            weights = (values - offsets) * scales.float().repeat_interleave(group, 0)
            replace_parameter(layer, self.w_q_name, weights.t().to(self.config.act_type).contiguous())

        def apply_weights(self, layer: Any, x: Any, bias: Any = None) -> Any:
            return torch.nn.functional.linear(x, getattr(layer, self.w_q_name), bias)

    os.environ["VLLM_DISABLED_KERNELS"] = ",".join(filter(None, (os.environ.get("VLLM_DISABLED_KERNELS"), MISSING)))
    register_linear_kernel(UnpackedLinearKernel, PlatformEnum.CPU)


def main() -> None:
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    serve()


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # a process that vLLM started
    register_unpacking()
