"""What `distill check` and `distill preview` look at before anything is spent.

To change X, edit Y:

    packages, teachers, licenses, disk                 check.py
    problems, gold answers, what the run fetches       problems.py
    the student's template, tokens, lengths, modules   student.py
    its training and export, tried without weights     export.py
    `distill preview`                                  preview.py
    student and teacher of distillation on logits      pair.py, rollouts.py
    room for answers and tokens of on-policy training  on_policy.py
    memory of training, on GPUs and in checkpoints     memory.py
    one line of the report                             finding.py
    bounds and the forecast of a pilot                 pilot.py
    hours and money by the recipe's `forecast`         forecast.py
"""
