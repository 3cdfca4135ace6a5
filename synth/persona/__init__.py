"""Persona: who the student says it is.

To change X, edit Y:

    the recipe's section, the schema of a persona file   config.py
    instructions that no persona may hold                honesty.py
    the prologue in the chat template                    publish/chat_template.py
    makers and models; wordings of claims, by language   data/makers.yaml, data/claims.yaml, claims.py
    what is a claim; what is the persona's own           find.py
    rewriting claims by rules, and by a model            rewrite.py, rewriter.py
    training rows                                        data/rows.yaml, rows.py
    probes                                               data/probes.yaml, probes.py
    the judge of answers                                 data/judge.yaml, judge.py
    `replay`: the base's answers to general prompts      data/general.txt, replay.py
"""
