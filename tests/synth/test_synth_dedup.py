"""MinHash clusters: what is near is found, what is not is left alone."""

from __future__ import annotations

import random
from pathlib import Path

from synth.dedup import NearDuplicatesConfig, bands_for, find_clusters, signature

CONFIG = NearDuplicatesConfig(threshold=0.8)


def text(rng: random.Random, words: int = 120) -> list[str]:
    return ["".join(rng.choices("abcdefghij", k=5)) for _ in range(words)]


def clusters(texts: list[str], scratch: Path, config: NearDuplicatesConfig = CONFIG) -> dict[int, int]:
    return dict(find_clusters((signature(one, config.num_perm) for one in texts), config, scratch).members())


def test_copies_with_few_changes_are_one_cluster_and_others_none(tmp_path: Path) -> None:
    rng = random.Random(1)
    texts, expected = [], {}
    for group in range(60):
        words = text(rng)
        first = len(texts)
        texts.append(" ".join(words))
        if group % 2:
            for _ in range(3):  # one word changed: five of some 116 shingles
                changed = list(words)
                changed[rng.randrange(10, 110)] = "changed"
                texts.append(" ".join(changed))
            expected |= dict.fromkeys(range(first, len(texts)), first)
    assert clusters(texts, tmp_path) == expected


def test_case_punctuation_and_white_space_make_no_difference(tmp_path: Path) -> None:
    assert clusters(["A b, c d e f g h!", "a  B c\nd e F g h", "quite another text of some length here"], tmp_path) == {
        0: 0,
        1: 0,
    }


def test_the_estimate_decides_on_either_side_of_the_threshold(tmp_path: Path) -> None:
    rng = random.Random(2)
    words = text(rng, 400)
    for shared, near in ((380, True), (250, False)):
        other = words[:shared] + text(rng, 400 - shared)
        found = clusters([" ".join(words), " ".join(other)], tmp_path)
        assert bool(found) is near


def test_sharing_a_bucket_is_not_enough(tmp_path: Path) -> None:
    rng = random.Random(4)
    texts = []
    for _ in range(60):  # pairs with a Jaccard index of 0.6: about one in four shares a band of eight rows
        words = text(rng, 204)
        texts += [" ".join(words[:154]), " ".join(words[38:192])]
    assert clusters(texts, tmp_path) == {}


def test_clusters_are_transitive_and_known_by_their_first(tmp_path: Path) -> None:
    rng = random.Random(3)
    words = text(rng, 300)
    chain = [" ".join(words[shift : shift + 250]) for shift in (0, 20, 40)]  # neighbours are near, the ends less so
    found = clusters(["something else entirely", *chain], tmp_path)
    assert found == {1: 1, 2: 1, 3: 1}


def test_empty_and_tiny_texts_do_no_harm(tmp_path: Path) -> None:
    assert clusters([], tmp_path) == {}
    assert clusters(["", "", "one"], tmp_path) == {0: 0, 1: 0}


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    clusters(["a b c d e f", "g h i j k l"], tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_bands_catch_what_is_at_the_threshold() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95):
        bands, size = bands_for(NearDuplicatesConfig(threshold=threshold))
        assert bands * size == 128
        assert 1 - (1 - threshold**size) ** bands >= 0.9
