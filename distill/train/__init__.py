"""Training: one file for each algorithm, and what they share.

To change X, edit Y:

    supervised fine-tuning, full or LoRA               sft.py
    distillation on a teacher's distribution           distillation.py
    on the log-probabilities of its own traces         logits.py; the rows distillkit.py
    on-policy distillation, and its answers            on_policy.py, rollouts.py
    its teacher behind a server                        teacher_server.py
    which of several served teachers scores            routes.py
    its teacher with another tokenizer                 across_tokenizers.py
    the student as its own teacher                     self_teacher.py
    optimiser, checkpoints, logs, trackers             arguments.py
    models opened and saved                            weights.py
    threads, quiet libraries, errors in words          environment.py
    messages -> token ids and loss mask                distill/models/tokens.py
    rows, tokenised on disk; which are left out        rows.py
    order of rows, optimiser steps, micro batches      batches.py
    attention over packed rows                         attention.py
    rows divided among processes                       context.py
    the loss and the head                              loss.py
    packing is checked before use                      layout_check.py
    steps that are not finite, spikes                  guard.py
    tokens a second, FLOPs, MFU                        metrics.py
    checkpoints                                        checkpoints.py
    Liger's kernels, compared before use               kernels.py
    DDP, FSDP2; what ranks share                       parallel.py
    ZeRO-3                                             zero.py
    how ranks start, and end                           launch.py, rank.py
    what a training says of itself                     result.py
"""
