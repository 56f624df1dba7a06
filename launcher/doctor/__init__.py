"""What is wrong with this machine, and the remedy: every area is looked at by functions that return findings."""
