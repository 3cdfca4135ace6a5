"""Persona: who the student says it is.

To change X, edit Y:

    the recipe's section, the schema of a persona file   config.py
    instructions that no persona may hold              honesty.py
    the prologue in the chat template                  publish/chat_template.py
"""
