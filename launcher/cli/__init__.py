"""The command line: one file a command; a command is parse, one call, one output."""
