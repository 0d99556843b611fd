"""One HTML page that shows a run, or several beside each other: everything inlined, opened from disk."""

from lottery.views.report.document import page, write_report

__all__ = ["page", "write_report"]
