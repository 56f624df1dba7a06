"""Sees to it that `registry` and `engines` are ours, and not a folder of the user's with the same name."""

from importlib.util import find_spec

DISTRIBUTION = "model-launcher"


def check() -> None:
    """Raise ImportError, saying which folder is in the way, unless both packages are ours."""
    for name in ("registry", "engines"):
        try:
            module = __import__(name)
        except ImportError as error:
            raise ImportError(f"{DISTRIBUTION} is not whole: its package `{name}` cannot be imported") from error
        if getattr(module, "DISTRIBUTION", None) != DISTRIBUTION:
            found = find_spec(name)
            where = found.origin or next(iter(found.submodule_search_locations or ()), "?") if found else "?"
            raise ImportError(
                f"`import {name}` finds `{where}`, which hides the package of that name that {DISTRIBUTION} needs:"
                " rename it, or start Python from another folder"
            )
