"""The report: what a corpus holds and what a selection did to it, for a reader.

::

    measures    what is counted, and in which fixed bins
    statistics  counters that add up
    reference   what LaVie publishes about Vimeo25M and WebVid10M
    collect     one pass over the parts fills the counters
    gallery     which clips are shown, and their pictures
    figures     counters -> statistics.json
    page        statistics.json -> index.html
    write       all of it

`docs/report.md` says how to read each figure.
"""

from curation.report.settings import ReportConfig, ReportPaths
from curation.report.write import rewrite_report, write_report

__all__ = ["ReportConfig", "ReportPaths", "rewrite_report", "write_report"]
