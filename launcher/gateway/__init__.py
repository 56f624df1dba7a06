"""The OpenAI-compatible endpoint in front of running engines. Importing it costs aiohttp: do so late."""

from launcher.gateway.application import make_application
from launcher.gateway.server import GatewayThread, run_gateway
from launcher.gateway.upstream import Served

__all__ = ["GatewayThread", "Served", "make_application", "run_gateway"]
