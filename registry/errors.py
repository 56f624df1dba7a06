"""Every error that this product raises, in one tree.

    LaunchError
    ├── CatalogueError           the catalogue cannot be read
    │   ├── SchemaError          a YAML file says something that the schema does not allow
    │   └── UnknownModelError    no entry has that name
    ├── ResolutionError          nothing that was asked for can run
    ├── DownloadError            the files could not be brought here
    │   ├── NotOnHubError        the hub has no such repo, revision or file
    │   ├── GatedRepoError       the hub wants a login or a granted access first
    │   ├── OfflineError         the network is needed and was forbidden or is out of reach
    │   ├── DigestError          bytes are not those that the catalogue or the hub vouches for
    │   ├── UnsafeFileError      a listing names a file that must not be written or loaded
    │   ├── DiskFullError        there is no room
    │   └── CacheNotWritableError   the cache's folder may not be written
    ├── EngineError              an engine could not be set up, started or spoken to
    │   ├── EngineNotInstalledError
    │   ├── EnvironmentBuildError   uv could not make the engine's environment
    │   ├── LoadError            the engine ended, or never became ready, while loading
    │   │   └── OutOfMemoryError
    │   ├── UnsupportedParameterError
    │   ├── InvalidRequestError  a value is out of its range
    │   ├── ContextOverflowError the prompt is longer than the context
    │   ├── GenerationError      the engine broke while it answered
    │   ├── EndpointError        an endpoint that runs elsewhere is out of reach, busy, or none
    │   ├── NotServedError       the engine's server has no such route
    │   └── BusyError            as many requests wait as may
    ├── LockError                what a lock file says cannot be had, or the file cannot be read
    ├── PortInUseError           another program has the endpoint's port
    ├── ExposureError            who may reach the endpoint was said in a way that cannot be, or must not
    └── AccessError              an endpoint refuses a request before it looks at what is asked
        ├── AuthenticationError  it wants a key, or another one
        ├── ForeignRequestError  it comes by a name, or from a page, that is not the endpoint's own
        ├── BodyTooLargeError
        └── SlowClientError      the body did not come in time

The message is the cause; `details` are the facts, one a line; `hint` is a command or a sentence that helps.
All of them pickle, and carry the facts that a program needs as attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _rebuild(cls: type[LaunchError], args: tuple[Any, ...], state: dict[str, Any]) -> LaunchError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class LaunchError(Exception):
    """The root: `kind` names the case for programs, `permanent` says that trying again cannot help."""

    kind = "error"
    permanent = True

    def __init__(self, message: str, *, hint: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = tuple(details)

    @property
    def message(self) -> str:
        return str(self.args[0])

    def facts(self) -> Mapping[str, Any]:
        """Return the attributes that this class adds, for machine output."""
        common = {"hint", "details"}
        return {name: value for name, value in vars(self).items() if name not in common}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(vars(self)))


class CatalogueError(LaunchError):
    """The catalogue cannot be read."""

    kind = "catalogue"


class SchemaError(CatalogueError):
    """A YAML file does not hold to the schema; `key` is the path of the key, such as `specs.0.format`."""

    kind = "schema"

    def __init__(
        self, message: str, *, file: str, line: int, key: str, hint: str | None = None, details: Sequence[str] = ()
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.file = file
        self.line = line
        self.key = key


class UnknownModelError(CatalogueError):
    """No entry has that name, alias or repo id; `suggestions` are the near ones, nearest first."""

    kind = "unknown_model"

    def __init__(self, message: str, *, name: str, suggestions: Sequence[str], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.suggestions = tuple(suggestions)


class ResolutionError(LaunchError):
    """Nothing that was asked for can run; `rejected` holds a `registry.spec.Rejection` for each combination tried."""

    kind = "resolution"

    def __init__(
        self, message: str, *, rejected: Sequence[Any] = (), hint: str | None = None, details: Sequence[str] = ()
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.rejected = tuple(rejected)


class DownloadError(LaunchError):
    """The files could not be brought here; `elsewhere_helps` where another hub or address may still have them."""

    kind = "download"
    permanent = False
    elsewhere_helps = True


class NotOnHubError(DownloadError):
    """The hub has no such repo, revision or file."""

    kind = "not_on_hub"
    permanent = True


class GatedRepoError(DownloadError):
    """The hub wants a login or a granted access first."""

    kind = "gated"
    permanent = True


class OfflineError(DownloadError):
    """The network is needed, and was forbidden or is out of reach."""

    kind = "offline"


class DigestError(DownloadError):
    """The bytes are not those that the catalogue or the hub vouches for."""

    kind = "digest"

    def __init__(self, message: str, *, path: str, expected: str, actual: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, details=(f"expected {expected}", f"found    {actual}"))
        self.path = path
        self.expected = expected
        self.actual = actual


class UnsafeFileError(DownloadError):
    """A listing names a file that must not be written or loaded."""

    kind = "unsafe_file"
    permanent = True
    elsewhere_helps = False


class DiskFullError(DownloadError):
    """There is no room for the files."""

    kind = "disk_full"
    elsewhere_helps = False

    def __init__(self, message: str, *, needed_bytes: int, free_bytes: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class CacheNotWritableError(DownloadError):
    """The cache's folder may not be written; `path` is what was refused."""

    kind = "cache_not_writable"
    permanent = True
    elsewhere_helps = False

    def __init__(self, message: str, *, path: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class EngineError(LaunchError):
    """An engine could not be set up, started or spoken to."""

    kind = "engine"


class EngineNotInstalledError(EngineError):
    """The engine's environment is not here, and may not or cannot be made."""

    kind = "engine_not_installed"


class EnvironmentBuildError(EngineError):
    """uv could not make the engine's environment."""

    kind = "environment"
    permanent = False


class LoadError(EngineError):
    """The engine ended, or never became ready, while loading; `log_path` holds what it said."""

    kind = "load"

    def __init__(
        self,
        message: str,
        *,
        engine: str,
        log_path: str | None = None,
        exit_code: int | None = None,
        hint: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.engine = engine
        self.log_path = log_path
        self.exit_code = exit_code


class OutOfMemoryError(LoadError):
    """The machine or the GPU has not the memory that the engine asked for."""

    kind = "out_of_memory"


class UnsupportedParameterError(EngineError):
    """The engine or the model cannot honour `parameter`; those that can are `engines`, or `models` of the catalogue."""

    kind = "unsupported_parameter"

    def __init__(
        self,
        message: str,
        *,
        parameter: str,
        engine: str,
        engines: Sequence[str] = (),
        models: Sequence[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.parameter = parameter
        self.engine = engine
        self.engines = tuple(engines)
        self.models = tuple(models)


class InvalidRequestError(EngineError):
    """The value of `parameter` is out of its range, or of the wrong type."""

    kind = "invalid_request"

    def __init__(self, message: str, *, parameter: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.parameter = parameter


class ContextOverflowError(EngineError):
    """The prompt, or what is asked for after it, is longer than the context."""

    kind = "context_overflow"

    def __init__(self, message: str, *, prompt_tokens: int, context_length: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class GenerationError(EngineError):
    """The engine broke while it answered."""

    kind = "generation"
    permanent = False


class EngineEndedError(GenerationError):
    """The engine ended while it answered, or before; the message says why where that is known."""

    kind = "engine_ended"


class EndpointError(EngineError):
    """An endpoint that runs elsewhere is out of reach, busy, or none.

    `status` is what it answered by HTTP, None where it did not; `retry_after_s` when it wants to be asked again.
    """

    kind = "endpoint"
    permanent = False

    def __init__(
        self,
        message: str,
        *,
        url: str,
        status: int | None = None,
        retry_after_s: int | None = None,
        hint: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.url = url
        self.status = status
        self.retry_after_s = retry_after_s


class NotServedError(EngineError):
    """The server of `engine` has no `route`; `engines` are those that do."""

    kind = "not_served"

    def __init__(self, message: str, *, route: str, engine: str, engines: Sequence[str] = ()) -> None:
        can = " or ".join(f"`{name}`" for name in engines)
        super().__init__(message, hint=f"{can} can: `--engine`" if can else None)
        self.route = route
        self.engine = engine
        self.engines = tuple(engines)


class RetryLaterError(EngineError):
    """What is asked for cannot be had for now; trying again is worth it after `retry_after_s`."""

    permanent = False

    def __init__(
        self, message: str, *, retry_after_s: int, hint: str | None = None, details: Sequence[str] = ()
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.retry_after_s = retry_after_s


class BusyError(RetryLaterError):
    """As many requests wait for the engine as may."""

    kind = "busy"


class UnavailableError(RetryLaterError):
    """The model is not loaded and cannot be for now."""

    kind = "unavailable"


class LockError(LaunchError):
    """What a lock file says cannot be had exactly: `details` are what differs; or the file cannot be read."""

    kind = "lock"


class PortInUseError(LaunchError):
    """Another program has the endpoint's port."""

    kind = "port_in_use"

    def __init__(self, message: str, *, host: str, port: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.host = host
        self.port = port


class ExposureError(LaunchError):
    """Who may reach the endpoint was said in a way that cannot be, or must not."""

    kind = "exposure"


class AccessError(LaunchError):
    """An endpoint refuses a request before it looks at what is asked."""

    kind = "access"


class AuthenticationError(AccessError):
    """The endpoint wants a key, or another one."""

    kind = "authentication"


class ForeignRequestError(AccessError):
    """The header `parameter`, Host or Origin, names what is not the endpoint's own."""

    kind = "foreign_request"

    def __init__(self, message: str, *, parameter: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.parameter = parameter


class BodyTooLargeError(AccessError):
    """The body of a request is larger than the endpoint takes."""

    kind = "body_too_large"

    def __init__(self, message: str, *, limit_bytes: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.limit_bytes = limit_bytes


class SlowClientError(AccessError):
    """The body of a request did not come in time."""

    kind = "slow_client"
    permanent = False
