"""How each engine is installed, started and spoken to. Imports `registry` only."""

DISTRIBUTION = "model-launcher"
