"""Persona: who the student says it is.

To change X, edit Y:

    the recipe's section                               config.py
    the prologue in the chat template                  publish/chat_template.py
"""
