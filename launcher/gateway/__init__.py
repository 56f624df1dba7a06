"""The OpenAI-compatible endpoint in front of running engines. Importing it costs aiohttp: do so late."""

from launcher.gateway.application import make_application
from launcher.gateway.records import AccessLog, open_access_log
from launcher.gateway.server import GatewayThread, run_gateway
from launcher.gateway.upstream import Served

__all__ = ["AccessLog", "GatewayThread", "Served", "make_application", "open_access_log", "run_gateway"]
