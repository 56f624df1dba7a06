"""The variables that have a say in what is done here; what is secret in them is not told."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping

from launcher.doctor.findings import Finding, without_logins
from registry.spec import HUBS

AREA = "setting"
OWN = "LAUNCH_"
# Those of ours that no option stands for.
OWN_VARIABLES = ("LAUNCH_CACHE", "LAUNCH_REGISTRY", "LAUNCH_KEEP_ARCHIVES", "LAUNCH_URL", "LAUNCH_API_KEY")
_PREFIXES = (OWN, "HF_", "HUGGING_FACE_", "HUGGINGFACE_", "MODELSCOPE_", "TRANSFORMERS_", "PIP_", "UV_", "XDG_")
_NAMES = (
    *("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "NO_COLOR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_IS_SECRET = re.compile(r"TOKEN|KEY|PASS|SECRET|CREDENTIAL|AUTH")
_IS_PATH = re.compile(r"_(PATH|FILE|DIR)$")


def examine(variables: Collection[str], environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield each variable that is set and read, and those that are meant for us and are not."""
    known = {*variables, *OWN_VARIABLES}
    if hub := environ.get("XINFERENCE_MODEL_SRC"):
        text = f"{without_logins(hub)}: it is Xinference's, and nobody reads it here"
        remedy = f"export LAUNCH_HUB={hub}" if hub in HUBS else "unset XINFERENCE_MODEL_SRC"
        yield Finding(AREA, "XINFERENCE_MODEL_SRC", "warning", text, remedy)
    for name in sorted(environ):
        if name.startswith(OWN) and name not in known:
            yield _unknown(name, known)
        elif name.startswith(_PREFIXES) or name in _NAMES:
            value = shown(name, environ[name])
            yield Finding(AREA, name, "ok", value, facts={"value": value})


def _unknown(name: str, known: Collection[str]) -> Finding:
    near = difflib.get_close_matches(name.removeprefix(OWN), [each.removeprefix(OWN) for each in known], n=1)
    text = "nobody reads it" + (f"; did you mean {OWN}{near[0]}?" if near else "")
    return Finding(AREA, name, "warning", text, f"unset {name}")


def shown(name: str, value: str) -> str:
    """Return a variable's value as it may be told: of what is secret only that it is set."""
    if not value:
        return "empty"
    if _IS_SECRET.search(name.upper()) and not _IS_PATH.search(name.upper()):
        return "set"
    return without_logins(value)
