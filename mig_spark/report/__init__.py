"""The report: what was selected, why, and beside what; one HTML file that needs no network.

html = render_report(collect_report_data(store, annotated, run))
write_report(html, f"{folder}/{REPORT_NAME}")
"""

from mig_spark.report.collect import collect_report_data
from mig_spark.report.data import ReportData
from mig_spark.report.render import render_report
from mig_spark.report.write import REPORT_NAME, write_report

__all__ = ["REPORT_NAME", "ReportData", "collect_report_data", "render_report", "write_report"]
