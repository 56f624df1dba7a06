"""What uv's last lines mean: the cause in a sentence, and what helps. Written to the words of uv 0.13."""

from __future__ import annotations

import re
from typing import NamedTuple

_INDEX = "look at the package index settings: `PIP_INDEX_URL`, pip.conf, `UV_DEFAULT_INDEX`"
_COMPILER = "install a C compiler and Python's headers, such as `apt install build-essential python3-dev`"
_COMPILER_FOR_LLAMA = (
    "install a C++ compiler, such as `apt install build-essential`;"
    " the engine `llama.cpp` needs none and reads the same files"
)
_NO_COMPILER = (
    r"CMAKE_C(?:XX)?_COMPILER|C compiler cannot|command '\S+' failed: No such"
    r"|(?:cc|gcc|g\+\+|clang): (?:command )?not found|No such file or directory: '(?:cc|gcc|g\+\+|clang)'"
)


class Trouble(NamedTuple):
    """Why an environment could not be made, and what to do; `{0}` is what the pattern's group found."""

    message: str
    hint: str | None = _INDEX


# The first that is found counts: what stopped everything comes before what uv concludes from it.
_TROUBLES: tuple[tuple[str, Trouble], ...] = (
    (r"No space left on device|os error 28", Trouble("the disk is full", "launch cache prune")),
    (r"Disk quota exceeded|os error 122", Trouble("the disk quota is used up", "launch cache prune")),
    (r"Permission denied|os error 13", Trouble("a folder may not be written", "set LAUNCH_CACHE to one that may")),
    (
        r"Hash mismatch for `([^`]+)`",
        Trouble("`{0}` from the package index is not the file that the lock vouches for"),
    ),
    (
        rf"(?s)Failed to build `(llama[^`]+)`.*?(?:{_NO_COMPILER})",
        Trouble("`{0}` must be compiled, and there is no compiler here", _COMPILER_FOR_LLAMA),
    ),
    (
        rf"(?s)Failed to build `([^`]+)`.*?(?:{_NO_COMPILER})",
        Trouble("`{0}` must be compiled, and there is no compiler here", _COMPILER),
    ),
    (
        r"(?s)Failed to build `([^`]+)`.*?Python\.h: No such file",
        Trouble("`{0}` must be compiled, and Python's headers are not here", _COMPILER),
    ),
    (r"Failed to build `([^`]+)`", Trouble("`{0}` could not be built from its source", _COMPILER)),
    (r"\b(?:401 Unauthorized|403 Forbidden)\b", Trouble("the package index refuses access")),
    (
        r"error sending request|dns error|Connection refused|timed out|Network is unreachable|tcp connect error",
        Trouble("the package index cannot be reached"),
    ),
    (
        r"no wheels? (?:are|is) available for|has no wheels with a matching"
        r"|doesn't have a (?:source distribution or )?wheel for",
        Trouble("the package index has no build for this Python and system"),
    ),
    (r"there is no version of (\S+==[^\s,]+)", Trouble("`{0}` is not on the package index")),
    (r"No solution found", Trouble("the package index has not what the engine needs")),
)


def no_compiler_for(distribution: str) -> Trouble:
    """Return what is wrong where a distribution would have to be compiled and cannot be."""
    return Trouble(f"`{distribution}` must be compiled, and there is no compiler here", _COMPILER)


def trouble_in(output: str) -> Trouble:
    """Return what kept uv from making an environment."""
    for pattern, trouble in _TROUBLES:
        if found := re.search(pattern, output):
            return trouble._replace(message=trouble.message.format(*found.groups()))
    first = re.search(r"(?m)^error: (.+)", output)
    return Trouble(first[1] if first else "uv failed")
