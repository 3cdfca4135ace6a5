"""Problems and imported traces.

To change where rows are read from, edit `loaders.py`; formats and encodings of files of rows, `row_files.py`; which
values of a row make a problem, `mapping.py`; what is known of a public data set, its entry in `presets/*.yaml` and
`preset.py`; what a problem or an imported trace must hold, `problem.py`; how difficult it says it is,
`difficulty.py`; the text around a question, `prompt_template.py`; problems for the choice of a checkpoint,
`selection_split.py`; LiveCodeBench's packed tests, `pickled_text.py`; the recipe's section `prompts`, or
`sample: {source: traces}`, `config.py`.
"""
