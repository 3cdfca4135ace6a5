"""The recipe.

To change a field of student, evaluate or release, or a rule between sections, edit ``recipe.py``; of the sections
forecast, train and student.parallel, ``forecast.py``, ``train.py`` and ``parallel.py``; the other sections are beside
the code that reads them, in ``synth/*/config.py``, but replay in ``synth/persona/replay.py``, and near duplicates of
label in ``synth/dedup.py``. To change how a recipe file and ``--set`` are read, their error messages, or to refuse a
renamed key with its new name, edit ``loader.py``.
"""
