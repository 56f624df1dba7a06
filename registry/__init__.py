"""What can be launched, and the choice among it. Imports nothing else of ours."""

DISTRIBUTION = "model-launcher"
