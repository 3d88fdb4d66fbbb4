"""What a folder of results says: a page to look at, and tables for a README."""

from lmwp_bench.report.hardware import hardware_table
from lmwp_bench.report.markdown import markdown_table
from lmwp_bench.report.page import write_report
from lmwp_bench.report.ranges import ranges_table

__all__ = ["hardware_table", "markdown_table", "ranges_table", "write_report"]
