"""From a finished run to a release.

To change:
- what the lineage lists: lineage.py; how a served teacher is listed: endpoints.py
- which license texts ship, the audit of the run: audit.py
- what the cards state, from which manifest: facts.py
- what is redacted in files that ship: public.py
- the files of the release folder: package.py; the released training data and their audit: training_data.py
- whether the held-out problems ship, and their rows: evaluation_items.py
- what the measurements have to show, the gate: gate.py
- releases in other formats, their cards and folders: formats.py
- openness.json, the bill of materials: openness.py
- the SLSA provenance, from which manifest: provenance.py
- what `distill confirm` checks: confirm.py; which folder it is given: target.py
- whether a release loads and stops: load_check.py; scoring recorded items again: rescore.py; the clean process of both:
  answers.py
"""
