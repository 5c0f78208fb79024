"""The two consoles: results on stdout, everything else on stderr."""

from __future__ import annotations

from rich.console import Console

console = Console()
error_console = Console(stderr=True)
