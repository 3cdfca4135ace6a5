"""The propagation rules: pure functions, one a rule, from an audit context to findings. ``../audit.py`` lists them.

To change                                              edit
what a rule gets, how a license field is read          context.py
R1   duties of the licenses of weights and rows        redistribution.py    R4, first trigger, R13, removed guardrails
R2   declared license against what is inside           compatibility.py
R3   what a license says of outputs                    outputs.py           R4, second trigger, and R11 (roles) too
R5   name prefixes; trademarks                         names.py
R6   size thresholds                                   redistribution.py
R7   terms of services; R8 endpoints                   services.py
R9   data trained on; R10 data redistributed           data.py
R14  licenses that changed; the card's metadata        metadata.py
the architecture against the family of the base        architecture.py
use policies beside a license that limits no use       policies.py
unknown licenses, and releases that name nothing       unknown.py
teachers that only a name or a card speaks of          mentions.py
license files by name, by content                      files.py, texts.py

R12 (a tokenizer or a configuration copied from a licensed model) has no rule: give that model the role `base`. R15
(whether weights can be licensed at all) is a caveat: duties are reported as if the texts were valid. No rule knows a
release or a model; rules know texts, roles, who ran what, and the names of services.
"""
