"""Training: one file for each algorithm.

To change X, edit Y:

    supervised fine-tuning, full or LoRA               sft.py
    rows, their order, the check of the end of turn,
    checkpoints                                        data.py
    messages -> token ids and loss mask                distill/models/tokens.py
"""
