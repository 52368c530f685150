"""Verifiers: judgements in order, of texts that they can judge, from files that fit."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.decision.belief import sigmoid
from cache.embedders.sources import PACKAGED, locate
from cache.errors import VerifierError
from cache.verifiers.base import Pair, Verifier
from cache.verifiers.calibrate import calibrate
from cache.verifiers.factory import load_verifier
from cache.verifiers.network import PairNetwork, save
from cache.verifiers.packaged import NETWORK, SETTINGS, PackagedVerifier, PairModel
from cache.verifiers.pairs import LabelledPair, digest, part_of, read_pairs
from cache.verifiers.scoring import logits
from cache.verifiers.similarity import SimilarityVerifier

UNTRAINED = {"alone": [0.5, 2.0], "with_cosine": [0.5, 2.0, 3.0], "encoder": "e", "settles": ["entities"], "trained_on": "nothing"}
PAIRS = [Pair("What is a cache?", "Explain caches", 0.9), Pair("What is a cache?", "Why is the sky blue?", 0.1)]


@pytest.fixture(scope="module")
def fresh() -> PairNetwork:
    """A network that has learnt nothing, with a head that says something."""
    torch.manual_seed(0)
    network = PairNetwork()
    network.eval()
    torch.nn.init.normal_(network.head.weight, std=0.5)
    return network


@pytest.fixture(scope="module")
def directory(fresh: PairNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That network in the packaged form."""
    path: Path = tmp_path_factory.mktemp("model")
    save(fresh, UNTRAINED, path)
    return path


@pytest.fixture(scope="module")
def untrained(directory: Path) -> PackagedVerifier:
    return PackagedVerifier(directory, threads=1)


@pytest.fixture(params=["none", "packaged"])
def verifier(request: pytest.FixtureRequest) -> Verifier:
    if request.param == "none":
        return load_verifier("none")
    loaded: Verifier = request.getfixturevalue("untrained")
    return loaded


def test_each_pair_has_a_probability_in_its_place(verifier: Verifier) -> None:
    both = verifier.probabilities(PAIRS)
    assert all(each is not None and 0 < each < 1 for each in both)
    assert both == pytest.approx([verifier.probabilities([pair])[0] for pair in PAIRS], abs=1e-4)
    assert verifier.probabilities([]) == []


def test_a_judgement_is_symmetric(verifier: Verifier) -> None:
    turned = [Pair(pair.kept, pair.question, pair.similarity) for pair in PAIRS]
    assert verifier.probabilities(turned) == pytest.approx(verifier.probabilities(PAIRS), abs=1e-5)


def test_the_cosine_counts_if_it_is_of_the_encoder_that_was_calibrated_with(directory: Path) -> None:
    pair, closer = PAIRS[0], Pair(PAIRS[0].question, PAIRS[0].kept, 1.0)
    for encoder, counts in (("e", True), ("another", False), (None, False)):
        verifier = PackagedVerifier(directory, threads=1, encoder=encoder)
        assert (verifier.probabilities([pair]) != verifier.probabilities([closer])) == counts


def test_the_cosine_alone_rises() -> None:
    found = SimilarityVerifier().probabilities([Pair("a", "b", similarity) for similarity in (0.5, 0.8, 0.97, 1.0)])
    assert found == sorted(found, key=float)  # type: ignore[arg-type]
    assert found[0] < 0.1  # type: ignore[operator]
    assert 0.88 < found[2] < 0.92  # type: ignore[operator]


@pytest.mark.parametrize("text", ["word " * 200, "缓存的作用是什么"])
def test_what_the_model_cannot_read_is_not_judged(untrained: PackagedVerifier, text: str) -> None:
    judged = untrained.probabilities([Pair(text, "What is a cache?", 0.9), PAIRS[0]])
    assert judged[0] is None
    assert judged[1] is not None


def test_it_says_what_it_learnt_from_and_what_it_settles(untrained: PackagedVerifier) -> None:
    assert untrained.name == "packaged@nothing"
    assert untrained.settles == {"entities"}


def test_what_is_written_judges_as_what_was_trained(fresh: PairNetwork, directory: Path) -> None:
    questions = ["What is a cache?", "Explain caches", "Why is the sky blue, and not green, in the early afternoon of most days?", "Why?"]
    pairs = [LabelledPair(a, b, True) for a in questions for b in questions]
    written = PairModel(directory / NETWORK, threads=1)
    trained = logits(fresh, pairs)
    assert np.ptp(trained) > 0.5
    assert written.logits([(pair.a, pair.b) for pair in pairs]) == pytest.approx(trained.tolist(), abs=0.01)


@pytest.mark.parametrize("damage", ["missing", "network", "settings"])
def test_a_model_that_cannot_be_loaded_is_an_error(directory: Path, tmp_path: Path, damage: str) -> None:
    if damage != "missing":
        shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
        (tmp_path / (NETWORK if damage == "network" else SETTINGS)).write_bytes(b"damaged")
    with pytest.raises(VerifierError, match="could not be loaded"):
        PackagedVerifier(tmp_path)


def test_an_unknown_source_says_what_to_do() -> None:
    with pytest.raises(VerifierError, match="give a directory, a hub id"):
        load_verifier("/no/such/directory")


@pytest.fixture
def cross_encoder(tmp_path: Path) -> Callable[[int], str]:
    """A directory with a cross-encoder of so many outputs, which has learnt nothing."""

    def make(outputs: int) -> str:
        from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

        source = locate(PACKAGED)
        config = BertConfig.from_pretrained(source, num_labels=outputs, num_hidden_layers=1)
        BertForSequenceClassification(config).save_pretrained(tmp_path)
        BertTokenizerFast.from_pretrained(source, model_max_length=64).save_pretrained(tmp_path)
        return str(tmp_path)

    return make


def test_users_may_bring_a_cross_encoder(cross_encoder: Callable[[int], str]) -> None:
    verifier = load_verifier(cross_encoder(1), threads=1)
    long = Pair("word " * 100, "What is a cache?", 0.9)
    first, none, last = verifier.probabilities([PAIRS[0], long, PAIRS[1]])
    assert none is None
    assert first is not None
    assert last is not None
    assert 0 < first < 1
    assert verifier.probabilities([long]) == [None]
    assert verifier.probabilities([]) == []


def test_a_cross_encoder_with_classes_is_refused(cross_encoder: Callable[[int], str]) -> None:
    with pytest.raises(VerifierError, match="3 outputs, and one is needed"):
        load_verifier(cross_encoder(3), threads=1)


# Pairs


def test_pairs_are_read_from_lines_gzipped_or_not(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"a": "x", "b": "y", "same": same}) for same in (1, 0))
    plain, packed = tmp_path / "pairs.jsonl", tmp_path / "pairs.jsonl.gz"
    plain.write_text(lines)
    packed.write_bytes(gzip.compress(lines.encode()))
    assert read_pairs(plain) == read_pairs(packed) == [LabelledPair("x", "y", True), LabelledPair("x", "y", False)]


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"a": "x", "b": "y", "same": 1}\n{"a": "x"}')
    with pytest.raises(ValueError, match="line 2"):
        read_pairs(path)


def test_the_parts_are_the_same_everywhere_and_do_not_share_a_held_out_question() -> None:
    pairs = [LabelledPair(f"question {number}?", f"question {number * 7 % 1000}?", True) for number in range(1000)]
    parts = [part_of(pair) for pair in pairs]
    assert parts == [part_of(LabelledPair(pair.b.upper(), pair.a, False)) for pair in pairs]
    assert 0.05 < parts.count("test") / 1000 < 0.15
    trained = {text for pair, part in zip(pairs, parts, strict=True) if part == "train" for text in (pair.a, pair.b)}
    held_out = {pair.a for pair in pairs if part_of(LabelledPair(pair.a, pair.a, True)) == "test"}
    assert not trained & held_out


def test_a_set_of_pairs_has_one_name_in_any_order() -> None:
    pairs = [LabelledPair("a", "b", True), LabelledPair("c", "d", False)]
    assert digest(pairs) == digest(pairs[::-1]) != digest(pairs[:1])


def test_the_calibration_finds_the_map_that_made_the_labels() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 20_000)
    cosines = rng.uniform(0, 1, 20_000)
    same = np.array([rng.random() < sigmoid(-1 + 0.5 * logit + 2 * cosine) for logit, cosine in zip(logits, cosines, strict=True)])
    assert calibrate(same, [logits, cosines]) == pytest.approx([-1, 0.5, 2], abs=0.12)
