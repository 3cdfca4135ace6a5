"""Statistics of nemo-evaluator 0.3.0 for the rows of two models; test_distill_statistics.py compares ours with them.

    python3.12 -m venv VENV && VENV/bin/pip install scipy nemo-evaluator==0.3.0
    VENV/bin/python tests/distill/nemo_reference.py > tests/distill/nemo_reference.json

A script, since the package needs Python 3.12. The rows are in the file: the number of correct samples of each problem,
of one and of four, families of ten problems in order. Tests are one-sided there: the baseline is the better model, and
the test is for a loss.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
from nemo_evaluator.metrics.confidence import bootstrap_ci, clustered_ci, normal_ci
from nemo_evaluator.metrics.paired_tests import mcnemar_test, mde_estimate, permutation_test
from nemo_evaluator.metrics.pass_at_k import aggregate_pass_at_k

PROBLEMS, FAMILY = 400, 10


def main() -> None:
    draw = np.random.default_rng(0)
    level = np.repeat(draw.beta(1.5, 1.5, PROBLEMS // FAMILY), FAMILY)
    gain = np.repeat(draw.normal(0.06, 0.1, PROBLEMS // FAMILY), FAMILY)
    rates = {"baseline": np.clip(level + gain, 0, 1), "candidate": level}
    rows = {name: {n: draw.binomial(n, rate) for n in (1, 4)} for name, rate in rates.items()}
    baseline, candidate = rows["baseline"], rows["candidate"]
    families = [at // FAMILY for at in range(PROBLEMS)]
    one, four = ((baseline[n] - candidate[n]) / n for n in (1, 4))
    lost, gained = int((one > 0).sum()), int((one < 0).sum())
    by_family = four.reshape(-1, FAMILY).sum(axis=1)
    values = {
        "mcnemar": mcnemar_test({"baseline_only_correct": lost, "candidate_only_correct": gained}, PROBLEMS).to_dict(),
        "permutation": permutation_test(four.tolist()).to_dict(),
        "permutation_of_families": permutation_test(by_family.tolist()).to_dict(),
        "difference": asdict(normal_ci(four.tolist())),
        "difference_of_families": asdict(clustered_ci(four.tolist(), families)),
        "score": asdict(normal_ci(baseline[1].tolist())),
        "score_by_bootstrap": asdict(bootstrap_ci(baseline[1].tolist())),
        "score_of_families": asdict(clustered_ci(baseline[1].tolist(), families)),
        "pass_at_k": {k: aggregate_pass_at_k([(4, int(correct)) for correct in baseline[4]], k) for k in range(1, 5)},
        "detectable_share_of_discordant": {lost + gained: mde_estimate(lost + gained)},
    }
    texts = {name: {n: "".join(map(str, counts)) for n, counts in of_model.items()} for name, of_model in rows.items()}
    package = f"nemo-evaluator {version('nemo-evaluator')}"
    print(json.dumps({"package": package, "family_size": FAMILY, "rows": texts, "values": values}, indent=1))


if __name__ == "__main__":
    main()
