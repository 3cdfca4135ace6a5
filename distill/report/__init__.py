"""The report: summary, plots and a trace viewer in one offline HTML file."""
