"""The report: tables, plots and a trace viewer in one offline HTML file, and the tables as Markdown.

To change a table that the terminal shows too, edit ``tables.py``, those of suites: ``suites.py``; what `distill show`
adds to the summary of a run: ``overview.py``; the other sections: ``summary.py``, those on verification:
``verdicts.py``; plots: ``plots.py``, their colours: ``assets/page.css``; the trace viewer: ``assets/viewer.js`` and
``traces.py``, its rows: ``trace_rows.py``; what a report is made of: ``markdown.py``; HTML and Markdown: ``page.py``;
the files that are written: ``build.py``.
"""
