"""The report: what was selected, why, and beside what; one HTML file that needs no network.

html = render_report(collect_report_data(store, annotated, run))
write_report(html, f"{folder}/report.html")
"""

from mig_spark.report.collect import collect_report_data
from mig_spark.report.data import ReportData
from mig_spark.report.render import render_report
from mig_spark.report.write import write_report

__all__ = ["ReportData", "collect_report_data", "render_report", "write_report"]
