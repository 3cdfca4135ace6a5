"""The command line.

To change how results, errors and exit codes look, edit ``output.py``; progress lines and bars: ``progress.py``; an
option that several commands share: ``options.py``; ``check``, ``run``, ``recipes``: ``run.py``; ``pair``: ``pair.py``;
``preview``: ``preview.py``; ``samples``: ``samples.py``; ``show``, ``report``: ``report.py``; ``verify``,
``decontaminate``: ``rows.py`` (their work: ``verify_file.py``, ``decontaminate_file.py``); ``eval``: ``evaluate.py``;
``merge``: ``merge.py``; ``persona``: ``persona.py``; ``push``: ``push.py``; ``audit``, ``licences``: ``audit.py`` (its
targets: ``audit_target.py``); ``sign``, ``confirm``: ``confirm.py``. A new command is registered in
``app.py``, which ``__main__.py`` starts.
"""
