"""The command line: composes and prints, never computes."""
