"""The OpenAI-compatible endpoint in front of running engines. Importing it costs aiohttp: do so late."""

from launcher.gateway.offers import Offer, Offers, offer_of
from launcher.gateway.server import FixedFleet, Fleet, GatewayThread, run_gateway
from launcher.gateway.upstream import Served

__all__ = ["FixedFleet", "Fleet", "GatewayThread", "Offer", "Offers", "Served", "offer_of", "run_gateway"]
