"""The recipe.

To change a field of student, evaluate or release, or a rule between sections, edit ``recipe.py``; of the sections
forecast, train and student.parallel, the file of its name; the other sections stand beside the code that reads them
(``synth/*/config.py``). To change how a recipe file and ``--set`` are read, their error messages, or to refuse a
renamed key with its new name, edit ``loader.py``.
"""
