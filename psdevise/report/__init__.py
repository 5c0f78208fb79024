"""Results as tables, and a run as one self-contained HTML page.

journal ──► history ─┐            what events.jsonl tells; curves, lags, the bill
chart ──► maps ──────┼─► page     inline SVG; t-SNE; all sections in one template
tables ──────────────┘            pivots of results.json, as Markdown too
"""

from psdevise.report.tables import markdown

__all__ = ["markdown", "write"]


def write(run_folder: str) -> str:
    """Writes report.html into the run folder, and results.md where there are results; the report's path.

    Raises:
        StoreError: there is no such run folder, or it cannot be written.
    """
    from psdevise.report.page import write as write_page

    return write_page(run_folder)
