"""The run directory: what a stage is, what is committed, what runs again.

To change X, edit Y:

    what a stage is, its key, what it is handed        stage.py
    running a stage in a process of its own            process.py
    locking, resuming, committing, the ledger          store.py
    manifests, digests, checks of finished files       artefact.py
    the facts of each stage                            facts.py
    which inputs count by content                      keys.py
    versions, code revision, device in a manifest      provenance.py
    training rows of a run                             tables.py
    what `distill show` prints                         summary.py
"""
