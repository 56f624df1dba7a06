"""What must be set before tests of the hubs import their clients."""

from __future__ import annotations

import os

# Read when the client is imported, which is when tests are collected: it would look for huggingface.co otherwise.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
