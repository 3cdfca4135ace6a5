"""Everything between a problem and a trace worth training on.

To change X, edit Y:

    reading problems                                   problems/
    engines and endpoints                              teachers/
    sampling, request ids, budgets, the sample store   sampling/
    the same sampler on Ray                            distributed/
    verdicts                                           verify/, sandbox/
    labels, near duplicates, test-set overlap          labels/, dedup.py, decontaminate.py
    selection and training rows                        curate/
    who the student says it is; the base's answers     persona/
    test sets; recall of decontamination               benchmarks.py; decontamination_recall.py
    the split of thinking and answer                   reasoning.py
    fenced code blocks of a text                       code_fences.py
    languages, loops and refusals of a text            language.py, repetition.py, refusals.py
    a trace; how the stages read them                  trace.py; trace_set.py
    Parquet files; DuckDB; a hash of columns           parquet_files.py; duckdb_helpers.py; hashing.py
    which fields of a recipe are operational           section.py
    worker processes with limits                       worker_pool.py
"""
