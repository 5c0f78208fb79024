"""The command line: a file per verb; only here is anything printed, and only here are exit codes made."""
