"""Run an open model by its name: `with launch("smollm2-instruct") as model: print(model.chat("Hello").text)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher import _packages

_packages.check()

if TYPE_CHECKING:
    from engines.generation import Chunk, Reply, Result, Sampling, Timings, TokenLogprob, Usage
    from engines.messages import Message, Messages
    from engines.tools import Tool, ToolCall
    from launcher.api import Serving, alaunch, launch, plan, pull, serve
    from launcher.connecting import aconnect, connect
    from launcher.listing import ModelInfo, list_models
    from launcher.model import AsyncLaunchedModel, AsyncModel, LaunchedModel, Model
    from launcher.planning import Request
    from launcher.plans import File, Plan
    from registry.errors import (
        AccessError,
        AuthenticationError,
        BodyTooLargeError,
        BusyError,
        CacheNotWritableError,
        CatalogueError,
        ContextOverflowError,
        DigestError,
        DiskFullError,
        DownloadError,
        EndpointError,
        EngineEndedError,
        EngineError,
        EngineNotInstalledError,
        EnvironmentBuildError,
        ExposureError,
        ForeignRequestError,
        GatedRepoError,
        GenerationError,
        InvalidRequestError,
        LaunchError,
        LoadError,
        LockError,
        NotOnHubError,
        NotServedError,
        OfflineError,
        OutOfMemoryError,
        PortInUseError,
        ResolutionError,
        RetryLaterError,
        SchemaError,
        SlowClientError,
        UnavailableError,
        UnknownModelError,
        UnsafeFileError,
        UnsupportedParameterError,
    )
    from registry.progress import Progress
    from registry.spec import Rejection

# Imported when they are asked for: a command line that prints a list needs none of them.
_HOMES = {
    "engines.generation": ("Chunk", "Reply", "Result", "Sampling", "Timings", "TokenLogprob", "Usage"),
    "engines.messages": ("Message", "Messages"),
    "engines.tools": ("Tool", "ToolCall"),
    "launcher.api": ("Serving", "alaunch", "launch", "plan", "pull", "serve"),
    "launcher.connecting": ("aconnect", "connect"),
    "launcher.listing": ("ModelInfo", "list_models"),
    "launcher.model": ("AsyncLaunchedModel", "AsyncModel", "LaunchedModel", "Model"),
    "launcher.plans": ("File", "Plan"),
    "launcher.planning": ("Request",),
    "registry.errors": (
        *("AccessError", "AuthenticationError", "BodyTooLargeError", "BusyError", "CacheNotWritableError"),
        *("CatalogueError", "ContextOverflowError", "DigestError", "DiskFullError", "DownloadError", "EndpointError"),
        *("EngineEndedError", "EngineError", "EngineNotInstalledError", "EnvironmentBuildError", "ExposureError"),
        *("ForeignRequestError", "GatedRepoError", "GenerationError", "InvalidRequestError", "LaunchError"),
        *("LoadError", "LockError", "NotOnHubError", "NotServedError", "OfflineError", "OutOfMemoryError"),
        *("PortInUseError", "ResolutionError", "RetryLaterError", "SchemaError", "SlowClientError", "UnavailableError"),
        *("UnknownModelError", "UnsafeFileError", "UnsupportedParameterError"),
    ),
    "registry.progress": ("Progress",),
    "registry.spec": ("Rejection",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AccessError",
    "AsyncLaunchedModel",
    "AsyncModel",
    "AuthenticationError",
    "BodyTooLargeError",
    "BusyError",
    "CacheNotWritableError",
    "CatalogueError",
    "Chunk",
    "ContextOverflowError",
    "DigestError",
    "DiskFullError",
    "DownloadError",
    "EndpointError",
    "EngineEndedError",
    "EngineError",
    "EngineNotInstalledError",
    "EnvironmentBuildError",
    "ExposureError",
    "File",
    "ForeignRequestError",
    "GatedRepoError",
    "GenerationError",
    "InvalidRequestError",
    "LaunchError",
    "LaunchedModel",
    "LoadError",
    "LockError",
    "Message",
    "Messages",
    "Model",
    "ModelInfo",
    "NotOnHubError",
    "NotServedError",
    "OfflineError",
    "OutOfMemoryError",
    "Plan",
    "PortInUseError",
    "Progress",
    "Rejection",
    "Reply",
    "Request",
    "ResolutionError",
    "Result",
    "RetryLaterError",
    "Sampling",
    "SchemaError",
    "Serving",
    "SlowClientError",
    "Timings",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "UnavailableError",
    "UnknownModelError",
    "UnsafeFileError",
    "UnsupportedParameterError",
    "Usage",
    "aconnect",
    "alaunch",
    "connect",
    "launch",
    "list_models",
    "plan",
    "pull",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module `launcher` has no `{name}`")
    from importlib import import_module

    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
