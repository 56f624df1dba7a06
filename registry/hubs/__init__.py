"""The hubs that sources name."""

from __future__ import annotations

from registry.errors import CatalogueError
from registry.hubs.base import Hub, Listing, RemoteFile
from registry.spec import HUBS

__all__ = ["Hub", "Listing", "RemoteFile", "open_hub"]


def open_hub(name: str) -> Hub:
    """Return the hub of that name; connects to nothing. Raises CatalogueError if there is none."""
    if name == "huggingface":
        from registry.hubs.huggingface import HuggingFace

        return HuggingFace()
    if name == "modelscope":
        from registry.hubs.modelscope import ModelScope

        return ModelScope()
    if name == "url":
        from registry.hubs.url import Url

        return Url()
    if name == "pypi":
        from registry.hubs.pypi import PyPI

        return PyPI()
    if name == "local":
        from registry.hubs.local import Local

        return Local()
    raise CatalogueError(f"No hub is named `{name}`", hint=f"hubs are {', '.join(HUBS)}")
