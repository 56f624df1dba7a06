"""The command line: one file a command; a command is parse, one call, one output."""

import gc

# Imports make much and leave no garbage: to look for some after every 700 objects takes an eighth of start-up.
gc.set_threshold(100_000)
