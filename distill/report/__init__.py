"""The report: tables, plots and a trace viewer in one offline HTML file, and the tables as Markdown.

To change a table that the terminal shows too, edit ``tables.py``; the other sections: ``summary.py``, those on
verification: ``verdicts.py``; plots: ``plots.py``, their colours: ``assets/page.css``; the trace viewer:
``assets/viewer.js`` and ``traces.py``; HTML and Markdown: ``page.py``; the files that are written: ``build.py``.
"""
