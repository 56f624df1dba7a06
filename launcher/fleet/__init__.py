"""Many models behind one endpoint: loaded when they are wanted, unloaded when others need their memory, kept alive."""

from launcher.fleet.fleet import Fleet, Planned
from launcher.fleet.keeper import Event

__all__ = ["Event", "Fleet", "Planned"]
