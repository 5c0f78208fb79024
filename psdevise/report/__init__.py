"""Results as tables, and a run as one self-contained HTML page."""

from psdevise.report.tables import markdown

__all__ = ["markdown", "write"]


def write(run_folder: str) -> str:
    """Writes results.md and report.html into the run folder; the report's path."""
    from psdevise.report.page import write as write_page

    return write_page(run_folder)
