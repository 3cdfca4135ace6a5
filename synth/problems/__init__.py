"""Problems and imported traces.

To change where rows are read from, edit `loaders.py`; formats and encodings of files of rows, `row_files.py`; what a
problem or an imported trace must hold, `problem.py`; the recipe's section `prompts`, or `sample: {source: traces}`,
`config.py`.
"""
