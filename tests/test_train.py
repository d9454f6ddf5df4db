"""The update, its parts, and everything that lets a run continue: each number against a plain reference."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from repro_rl.config import (
    AlarmSection,
    KlSection,
    MethodSection,
    RunConfig,
    TrainSection,
    dump_config,
    load_config,
    parse_config,
    recipes,
)
from repro_rl.errors import CheckpointError, ConfigError, DataError, PreflightError
from repro_rl.methods import METHODS
from repro_rl.policy import TransformersPolicy
from repro_rl.text.parse import TextFormat
from repro_rl.train.alarms import Alarms
from repro_rl.train.batch import Row, collate, merge, split_rows
from repro_rl.train.build import initial_model
from repro_rl.train.checkpoint import (
    checkpoint_folders,
    find_model,
    latest,
    load_optimizer,
    optimizer_tensors,
    prune,
    read_state,
    save_checkpoint,
    start_model,
)
from repro_rl.train.loop import FREE_ON_CONTINUE, RLRun, task_schedule
from repro_rl.train.loss import imitation_loss, kl_terms, policy_loss, reference_values
from repro_rl.train.run_folder import MetricsLog, flatten, open_run, write_manifest
from repro_rl.train.samples import build_samples, make_sample, progress_token_advantages, split_advantage
from repro_rl.train.update import Updater, check_kl
from repro_rl.types import Completion, Group, Reflection, Sample, Step, Trajectory

CPU = torch.device("cpu")
VOCABULARY = 7


class Toy(torch.nn.Module):
    """A float64 'language model': the logits of the next token are a table of the last two tokens."""

    def __init__(self, seed=0, spread=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(VOCABULARY, VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)
        self.table = torch.nn.Parameter(spread * table)

    def forward(self, input_ids, use_cache=False, logits_to_keep=None):
        before = torch.cat([torch.zeros_like(input_ids[:, :1]), input_ids[:, :-1]], dim=1)
        logits = self.table[before, input_ids]
        if isinstance(logits_to_keep, torch.Tensor):
            logits = logits[:, logits_to_keep]
        return SimpleNamespace(logits=Wide(logits))


class Wide:
    """Logits whose ``.float()`` keeps float64, so that gradients can be compared closely."""

    def __init__(self, tensor):
        self.tensor = tensor

    def float(self):
        return self.tensor

    def __getitem__(self, cells):
        return Wide(self.tensor[cells])


def sample_of(ids, prompt, advantage, logprob, kind="forward", group=0):
    count = len(ids) - prompt
    completion = Completion(
        tuple(ids[:prompt]), tuple(ids[prompt:]), np.broadcast_to(np.float32(logprob), count), "", True
    )
    return make_sample(completion, advantage, kind, group)


def logp_of(model, ids, temperature=1.0):
    logits = model(torch.tensor([list(ids)])).logits.float()[0]
    return torch.log_softmax(logits / temperature, dim=-1)


def reference_loss(model, samples, scales, *, clip=0.2, kl_coef=0.0, entropy_coef=0.0, reference=None,
                   temperature=1.0):  # fmt: skip
    """PPO-clip as in the paper, one sample and one token at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for sample in samples:
        logp = logp_of(model, sample.ids, temperature)
        for place in range(1, len(sample.ids)):
            if not sample.trained[place]:
                continue
            row, token = logp[place - 1], int(sample.ids[place])
            ratio = torch.exp(row[token] - float(sample.logprob[place]))
            advantage = float(sample.advantage[place])
            term = -torch.minimum(ratio * advantage, torch.clamp(ratio, 1 - clip, 1 + clip) * advantage)
            term = term + entropy_coef * (row.exp() * row).sum()
            if kl_coef:
                other = logp_of(reference, sample.ids, temperature)[place - 1].detach()
                term = term + kl_coef * sum(row[v].exp() * (row[v] - other[v]) for v in range(VOCABULARY))
            total = total + scales[sample.kind] * term
    return total


def our_loss(model, rows, scales, *, clip=0.2, kl_form="none", kl_coef=0.0, entropy_coef=0.0, reference=None,
             temperature=1.0, max_cells=10**6):  # fmt: skip
    terms = []
    for chunk in split_rows(rows, max_cells):
        batch = collate(chunk, scales, 0, CPU)
        if reference is not None:
            batch.reference = reference_values(reference, batch, kl_form, temperature).detach()
        terms.append(
            policy_loss(
                model,
                batch,
                clip=clip,
                kl_form=kl_form,
                kl_coef=kl_coef,
                kl_clamp=10.0,
                entropy_coef=entropy_coef,
                temperature=temperature,
            )
        )
    return terms


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return model.table.grad.clone()


def grouped_samples(seed=0, copies=5):
    """Duplicates with advantages of both signs and ratios far beyond the clip on both sides."""
    rng = np.random.default_rng(seed)
    model = Toy()
    samples = []
    for kind in ("forward", "reflect"):
        for length, prompt in ((4, 2), (6, 2), (6, 5), (3, 1)):
            ids = rng.integers(1, VOCABULARY, length)
            with torch.no_grad():
                logp = logp_of(model, ids)
            at = np.array([float(logp[i - 1, ids[i]]) for i in range(prompt, length)])
            for shift in (-0.9, 0.05, 0.9):  # old log-prob = new - shift: ratio e^shift
                old = (at - shift).astype(np.float32)
                own = ids.copy()
                own[0] = 1 + [-0.9, 0.05, 0.9].index(shift)  # distinct rows; the prompt's first token
                for _ in range(copies):
                    advantage = rng.normal(size=length - prompt)
                    samples.append(sample_of(own, prompt, advantage, old, kind))
    # the first token may matter for short prompts: take the log-probs again so that the shifts are exact
    for sample, shift in zip(samples, np.tile(np.repeat((-0.9, 0.05, 0.9), copies), 8), strict=True):
        with torch.no_grad():
            logp = logp_of(model, sample.ids)
        for place in np.flatnonzero(sample.trained):
            sample.logprob[place] = float(logp[place - 1, sample.ids[place]]) - shift
    order = rng.permutation(len(samples))
    return model, [samples[i] for i in order]


SCALES = {"forward": 0.01, "reflect": 0.03}


# Merging and the objective ------------------------------------------------------------------------


def test_merge_is_exact():
    model, samples = grouped_samples()
    rows = merge(samples)
    assert len(samples) == 120
    assert len(rows) == 24
    assert {row.count for row in rows} == {5}
    ratios = []
    for sample in samples:
        logp = logp_of(model, sample.ids).detach()
        ratios += [
            float(logp[i - 1, sample.ids[i]] - sample.logprob[i]) for i in np.flatnonzero(sample.trained)
        ]
    assert min(ratios) < math.log(0.8)
    assert max(ratios) > math.log(1.2)
    expected = gradient(model, reference_loss(model, samples, SCALES, clip=0.2))
    (terms,) = our_loss(model, rows, SCALES)
    actual = gradient(model, terms.total)
    assert float(expected.abs().max()) > 1e-3
    assert torch.allclose(actual, expected, atol=1e-7, rtol=1e-6)
    # and so are the copies one by one
    lone = [row for sample in samples for row in merge([sample])]
    (apart,) = our_loss(model, lone, SCALES)
    assert float(apart.total.detach()) == pytest.approx(float(terms.total.detach()), rel=1e-6)
    for name in ("policy", "kl", "entropy", "mismatch", "tokens"):
        assert getattr(apart, name) == pytest.approx(getattr(terms, name), rel=1e-6), name
    assert 0 < apart.clipped <= terms.clipped  # a merged row counts whole when either sign is clipped


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_merge_is_exact_with_kl_and_entropy(temperature):
    model, samples = grouped_samples(1, copies=3)
    reference = Toy(seed=8)
    options = {"kl_coef": 0.3, "entropy_coef": 0.2, "temperature": temperature}
    expected = gradient(
        model, reference_loss(model, samples, SCALES, clip=0.2, reference=reference, **options)
    )
    (terms,) = our_loss(model, merge(samples), SCALES, kl_form="exact", reference=reference, **options)
    assert torch.allclose(gradient(model, terms.total), expected, atol=1e-7, rtol=1e-5)


def test_merge_leaves_the_samples_alone_and_keeps_what_differs_apart():
    one = sample_of([1, 2, 3], 1, [1.0, -2.0], -1.0)
    two = sample_of([1, 2, 3], 1, [-3.0, 4.0], -1.0)
    later = sample_of([1, 2, 3], 2, [7.0], -1.0)
    other = sample_of([1, 2, 3], 1, [1.0, 1.0], -1.0, kind="reflect")
    hole = sample_of([1, 2, 3], 1, [1.0, 0.0], -1.0)  # same first trained token, another mask
    hole.trained[2] = False
    rows = merge([one, two, later, other, hole, two])
    assert [(row.count, row.kind, row.trained.tolist()) for row in rows] == [
        (3, "forward", [False, True, True]),
        (1, "forward", [False, False, True]),
        (1, "reflect", [False, True, True]),
        (1, "forward", [False, True, False]),
    ]
    assert rows[0].positive.tolist() == [0, 1, 8]
    assert rows[0].negative.tolist() == [0, -6, -2]
    assert rows[0].logprob.tolist() == [0, -1, -1]
    assert one.advantage.tolist() == [0, 1, -2]
    assert one.logprob.tolist() == [0, -1, -1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=6),
    st.floats(-3, 3),
    st.sampled_from([0.1, 0.2, 0.5]),
)
def test_sums_of_both_signs_are_enough(advantages, shift, clip):
    """The identity that merging rests on, number by number."""
    ratio = math.exp(shift)
    plain = sum(min(ratio * a, min(max(ratio, 1 - clip), 1 + clip) * a) for a in advantages)
    positive, negative = sum(a for a in advantages if a >= 0), sum(a for a in advantages if a < 0)
    merged = min(ratio, 1 + clip) * positive + max(ratio, 1 - clip) * negative
    assert merged == pytest.approx(plain, abs=1e-9)


def test_ppo_by_hand():
    """One token, p = (.5, .25, .25) under the policy; what it pays for each ratio and sign."""
    model = Toy()
    with torch.no_grad():
        model.table.fill_(-1e9)
        model.table[..., :3] = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()

    def value(old, advantage):
        row = merge([sample_of([1, 2, 0], 2, advantage, math.log(old))])
        (terms,) = our_loss(model, row, {"forward": 1.0})
        slope = gradient(model, terms.total)[1, 2, 0]
        return float(terms.total.detach()), float(slope), terms

    # d log p0 / d logit0 = 1 - p0 = .5, so the slope is -A r / 2 inside, 0 where clipped
    total, slope, terms = value(0.5, 2.0)  # ratio 1
    assert (total, slope) == pytest.approx((-2.0, -1.0), rel=1e-6)
    assert terms.entropy == pytest.approx(1.5 * math.log(2))
    assert (terms.tokens, terms.clipped) == (1, 0)
    total, slope, terms = value(0.4, 2.0)  # ratio 1.25 > 1.2, A > 0: clipped
    assert (total, slope) == pytest.approx((-2.4, 0.0), rel=1e-6)
    assert terms.clipped == 1
    assert terms.mismatch == pytest.approx(math.log(1.25), rel=1e-6)
    total, slope, terms = value(0.4, -2.0)  # ratio 1.25, A < 0: not clipped
    assert (total, slope) == pytest.approx((2.5, 1.25), rel=1e-6)
    assert terms.clipped == 0
    total, slope, _ = value(1.0, 2.0)  # ratio .5, A > 0: not clipped
    assert (total, slope) == pytest.approx((-1.0, -0.5), rel=1e-6)
    total, slope, terms = value(1.0, -2.0)  # ratio .5 < .8, A < 0: clipped
    assert (total, slope) == pytest.approx((1.6, 0.0), rel=1e-6)
    assert terms.clipped == 1


def test_micro_batches_do_not_change_the_gradient():
    model, samples = grouped_samples(2)
    rows = merge(samples)
    (whole,) = our_loss(model, rows, SCALES)
    expected = gradient(model, whole.total)
    for cells in (1, 13, 40):
        parts = our_loss(model, rows, SCALES, max_cells=cells)
        assert len(parts) > 3
        assert torch.allclose(gradient(model, sum(p.total for p in parts)), expected, atol=1e-9)
        assert sum(p.tokens for p in parts) == whole.tokens
    for chunk in split_rows(rows, 13):
        assert len(chunk) == 1 or len(chunk) * max(len(row.ids) for row in chunk) <= 13
    assert sum(map(len, split_rows(rows, 13))) == len(rows)


def test_collate_and_columns():
    rows = merge([sample_of([1, 2, 3, 4], 3, 1.0, -1.0), sample_of([5, 6, 1], 2, -2.0, -0.5)])
    batch = collate(rows, {"forward": 0.5}, 0, CPU)
    assert batch.ids.tolist() == [[1, 2, 3, 4], [5, 6, 1, 0]]
    assert batch.target.tolist() == [[2, 3, 4], [6, 1, 0]]
    assert batch.weight.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert batch.positive.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch.negative.tolist() == [[0, 0, 0], [0, -2, 0]]
    assert batch.logprob.tolist() == [[0, 0, -1], [0, -0.5, 0]]
    assert batch.scale.tolist() == [[0.5] * 3, [0.5] * 3]
    assert batch.columns.tolist() == [1, 2]


def test_imitation_loss_by_hand():
    model = Toy()
    zeros = np.zeros(4, np.float32)
    row = Row(np.array([1, 2, 3, 4]), np.array([False, False, True, True]), zeros, zeros, zeros, 2, "forward")
    batch = collate([row], {"forward": 0.25}, 0, CPU)
    logp = logp_of(model, row.ids)
    expected = -0.25 * 2 * float((logp[1, 3] + logp[2, 4]).detach())
    assert float(imitation_loss(model, batch).detach()) == pytest.approx(expected)


# KL -----------------------------------------------------------------------------------------------


def test_kl_forms_by_hand():
    policy = torch.tensor([[[0.5, 0.25, 0.25]]]).log()
    reference = torch.tensor([[[0.25, 0.5, 0.25]]]).log()
    # .5 ln 2 + .25 ln .5 + 0
    assert float(kl_terms("exact", policy, None, reference, 10)) == pytest.approx(0.25 * math.log(2))
    chosen, other = policy[..., 0], reference[..., 0]  # the log-ratio reference - policy is -ln 2
    assert float(kl_terms("k1", policy, chosen, other, 10)) == pytest.approx(math.log(2))
    assert float(kl_terms("k2", policy, chosen, other, 10)) == pytest.approx(0.5 * math.log(2) ** 2)
    assert float(kl_terms("k3", policy, chosen, other, 10)) == pytest.approx(0.5 - 1 + math.log(2))
    assert float(kl_terms("k1", policy, chosen, other, 0.1)) == pytest.approx(0.1)
    far = torch.tensor([[50.0]])
    assert float(kl_terms("k3", policy, torch.zeros(1, 1), far, 3.0)) == pytest.approx(math.exp(3) - 4)
    with pytest.raises(ConfigError, match="Unknown KL form 'k4'"):
        kl_terms("k4", policy, chosen, other, 10)


def test_exact_kl_and_the_expectations_of_k1_and_k3():
    generator = torch.Generator().manual_seed(0)
    policy = torch.log_softmax(torch.randn(3, 4, 9, generator=generator, dtype=torch.float64), -1)
    reference = torch.log_softmax(torch.randn(3, 4, 9, generator=generator, dtype=torch.float64), -1)
    exact = kl_terms("exact", policy, None, reference, 10)
    for b in range(3):
        for t in range(4):
            p, q = policy[b, t].exp(), reference[b, t].exp()
            brute = sum(float(p[v]) * math.log(float(p[v]) / float(q[v])) for v in range(9))
            assert float(exact[b, t]) == pytest.approx(brute)
    assert bool((exact >= 0).all())
    for form in ("k1", "k3"):
        mean = torch.zeros_like(exact)
        for v in range(9):
            value = kl_terms(form, policy, policy[..., v], reference[..., v], 100.0)
            mean += policy[..., v].exp() * value
        assert torch.allclose(mean, exact)


def test_check_kl():
    check_kl(TrainSection(), 16_384)
    check_kl(TrainSection(kl=KlSection(form="k3")), 200_000)
    with pytest.raises(PreflightError, match=r"151,936.*train\.kl\.form=k3"):
        check_kl(TrainSection(), 151_936)


# Samples ------------------------------------------------------------------------------------------


WORDS = ["<eos>", "p10", "p40", "left", "push", "up", "t1"]


def decode(ids):
    return " ".join(WORDS[i] for i in ids if i)


def completion_of(*words, prompt=(1, 2)):
    ids = tuple(WORDS.index(word) for word in words)
    logprobs = np.arange(len(ids), dtype=np.float32) * -0.1
    return Completion(prompt, ids, logprobs, decode(ids), ids[-1:] == (0,))


COMPACT = TextFormat("compact", progress=True, think="off")


LATE = TextFormat("compact", progress=True, think="off", report="after")


@pytest.mark.parametrize(
    ("fmt", "words", "on_action"),
    [
        (COMPACT, ("p40", "push", "up", "<eos>"), "0111"),
        (COMPACT, ("push", "up", "<eos>"), "111"),  # no progress: all of it is the action
        (COMPACT, ("p40", "p10", "left", "<eos>"), "0011"),
        (COMPACT, ("p40", "<eos>"), "00"),  # no action: nothing gets the action's advantage
        (COMPACT, ("<eos>",), "1"),
        (COMPACT, ("p40", "left", "p10"), "011"),
        (LATE, ("push", "up", "p40", "<eos>"), "1100"),
        (LATE, ("push", "up", "<eos>"), "111"),
        (LATE, ("left", "p10", "p40", "<eos>"), "1000"),
        (LATE, ("p40", "<eos>"), "00"),
        (LATE, ("p40", "left", "p10"), "110"),
    ],
)
def test_tokens_of_the_action(fmt, words, on_action):
    split = split_advantage(completion_of(*words), 0.0, 1.0, fmt, decode)
    assert split == [float(letter) for letter in on_action]


@pytest.mark.parametrize("report", ["before", "after"])
def test_tokens_of_the_action_with_characters_as_tokens(report):
    action, said = "<action>up</action>", "<progress>40</progress>"
    text = said + action if report == "before" else action + said
    fmt = TextFormat("full", progress=True, think="off", report=report)
    completion = Completion((), tuple(map(ord, text)), np.zeros(len(text), np.float32), text, True)
    split = split_advantage(completion, 0.0, 1.0, fmt, lambda ids: "".join(map(chr, ids)))
    assert "".join(letter for letter, value in zip(text, split, strict=True) if value) == action


def step_of(completion, advantage, **terms):
    known = ("o", "b", "a", "p", completion, "x", 40, (), True, 0.0, None)
    return Step(1, *known, terms=terms, advantage=advantage)


def one_group(*steps, reflection=None, error=None):
    return Trajectory("a", 0, "", list(steps), False, 0.0, False, reflection=reflection, error=error)


def test_advantages_fall_on_the_right_tokens():
    steps = [
        step_of(completion_of("p40", "push", "up", "<eos>"), 2.0, alignment=-0.3, format=0.0, boundary=-0.1),
        step_of(completion_of("left", "<eos>"), -1.0, alignment=-0.5, format=-0.1),
        step_of(Completion((1,), (), np.zeros(0, np.float32), "", True), 5.0),
    ]
    reflection = Reflection("", completion_of("t1", "p10", "<eos>", prompt=(3,)), (10,), (), advantage=0.75)
    groups = [Group("a", [one_group(*steps[:2], reflection=reflection), one_group(steps[2])])]

    def advantages(on, **more):
        samples = build_samples(groups, fmt=COMPACT, decode=decode, advantage_on=on, **more)
        assert [s.kind for s in samples] == ["forward", "forward", "reflect"]  # not the empty completion
        return [s.advantage.tolist() for s in samples]

    judged = [0, 0.75, 0.75, 0.75]
    assert advantages("all") == [[0, 0, 2, 2, 2, 2], [0, 0, -1, -1], judged]
    assert advantages("action") == [[0, 0, 0, 2, 2, 2], [0, 0, -1, -1], judged]
    apart = progress_token_advantages(groups)
    # -.4, -.6 and 0 minus their mean -1/3
    assert apart[0][0] == pytest.approx([-0.4 + 1 / 3, -0.6 + 1 / 3])
    assert apart[0][1] == pytest.approx([1 / 3])
    split = advantages("split", progress_advantages=apart)
    assert split[0] == pytest.approx([0, 0, -0.4 + 1 / 3, 2, 2, 2])
    assert split[1:] == [[0, 0, -1, -1], judged]
    samples = build_samples(groups, fmt=COMPACT, decode=decode, advantage_on="all", reflections=set())
    assert [s.kind for s in samples] == ["forward", "forward"]
    first = samples[0]
    assert first.ids.tolist() == [1, 2, 2, 4, 5, 0]
    assert first.trained.tolist() == [False, False, True, True, True, True]
    assert first.logprob.tolist() == pytest.approx([0, 0, 0, -0.1, -0.2, -0.3])
    assert (first.group, first.ids.dtype, first.advantage.dtype) == (0, np.int64, np.float32)


def test_split_leaves_failed_environments_out():
    def episode(value, error=None):
        return one_group(step_of(completion_of("p40", "left", "<eos>"), 0.0, alignment=value), error=error)

    groups = [Group("a", [episode(-0.2), episode(-0.4), episode(-9.0, error="gone")])]
    assert [row[0] for row in progress_token_advantages(groups)[0]] == pytest.approx([0.1, -0.1, 0.0])


def test_task_schedule():
    ids = [f"t{i}" for i in range(10)]
    # 4 a time: five iterations are two whole passes
    drawn = [task for i in range(1, 6) for task in task_schedule(ids, 0, i, 4)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == sorted(ids)
    assert drawn[:10] != drawn[10:]
    assert drawn[:10] != ids
    assert task_schedule(ids, 0, 3, 4) == drawn[8:12]  # a function of seed and iteration alone
    with pytest.raises(PreflightError, match="no tasks"):
        task_schedule([], 0, 1, 4)
    assert task_schedule(ids, 1, 1, 4) != task_schedule(ids, 0, 1, 4)
    assert sorted(task_schedule(ids, 0, 1, 25)[:10]) == sorted(ids)
    assert len(task_schedule(ids, 0, 1, 25)) == 25


# The updater --------------------------------------------------------------------------------------


def updater(seed=0, reference=None, **train):
    options = {"groups": 4, "minibatches": 2, "epochs": 1, "lr": 0.1, "lr_warmup": 0, "kl": {"form": "none"}}
    section = TrainSection(**options | train)
    return Updater(Toy(seed), reference, 0, section, MethodSection(), Accelerator(cpu=True))


def on_policy(model, groups=4, seed=0):
    rng = np.random.default_rng(seed)
    samples = []
    for group in range(groups):
        for _ in range(6):
            ids = rng.integers(1, 4, 5)
            with torch.no_grad():
                logp = logp_of(model, ids)
            old = [float(logp[i - 1, ids[i]]) for i in range(2, 5)]
            samples.append(sample_of(ids, 2, rng.normal(), old, rng.choice(["forward", "reflect"]), group))
    return samples


def test_first_update_is_plain_policy_gradient():
    """One mini-batch, one epoch: the gradient of the reference at ratio 1, mean over tokens by kind."""
    up = updater(minibatches=1, grad_clip=1e9)
    samples = on_policy(up.model)
    scales = {
        kind: 1 / sum(int(s.trained.sum()) for s in samples if s.kind == kind)
        for kind in ("forward", "reflect")
    }
    model = Toy()
    expected = gradient(model, reference_loss(model, samples, scales, clip=0.2))
    metrics = up.update(samples, groups=4, iteration=1, seed=0)
    assert metrics["update/grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-6)
    assert metrics["update/mismatch"] == pytest.approx(0, abs=1e-6)
    assert metrics["update/clip_fraction"] == 0
    assert metrics["update/skipped"] == 0
    assert metrics["update/distinct_rows"] == len(merge(samples)) / len(samples)
    # Adam's first step is lr * sign(gradient)
    moved = (up.model.table - model.table).detach()
    big = expected.abs() > 1e-5
    assert torch.allclose(moved[big], -0.1 * expected[big].sign(), atol=1e-3)
    assert torch.equal(moved[expected == 0], torch.zeros_like(moved[expected == 0]))


def test_update_improves_what_it_optimises_and_is_determined():
    one, two, other = (updater(lr=0.01, minibatches=4, epochs=2) for _ in range(3))
    samples = on_policy(one.model)
    before = float(reference_loss(one.model, samples, SCALES, clip=0.2).detach())
    for up, seed in ((one, 0), (two, 0), (other, 1)):
        up.update(samples, groups=4, iteration=1, seed=seed)
    assert float(reference_loss(one.model, samples, SCALES, clip=0.2).detach()) < before
    assert torch.equal(one.model.table, two.model.table)
    assert not torch.equal(one.model.table, other.model.table)


def test_every_forward_pass_of_an_update_has_the_precision_of_the_sampler():
    entered = []

    @contextmanager
    def precision():
        entered.append(True)
        yield
        entered.append(False)

    model = Toy(0)
    inside = []
    for module in (model, reference := Toy(1)):
        module.register_forward_hook(lambda *_: inside.append(entered[-1:] == [True]))
    section = TrainSection(groups=4, minibatches=2, epochs=1, lr=0.1, kl=KlSection(form="k3"))
    up = Updater(model, reference, 0, section, MethodSection(), Accelerator(cpu=True), precision)
    samples = on_policy(Toy(0))
    up.update(samples, groups=4, iteration=1, seed=0)
    assert len(inside) == 4  # two mini-batches, each seen by the reference and by the policy
    assert all(inside)


def test_minibatches_keep_groups_together():
    up = updater(minibatches=2)
    samples = on_policy(up.model)
    parts = [up._batches(rows) for rows in up._rows(samples, 4, 1, 0)]
    assert len(parts) == 2
    tokens = [sum(float(batch.weight.sum()) for batch in part) for part in parts]
    assert sum(tokens) == sum(int(s.trained.sum()) for s in samples)
    assert tokens == [36, 36]  # two groups of six samples of three tokens each


def test_kl_pulls_to_the_reference():
    reference = Toy(seed=5)
    up = updater(reference=reference, kl={"form": "exact", "coef": 1.0}, lr=0.05)
    samples = on_policy(up.model)
    for sample in samples:
        sample.advantage[:] = 0
    first = up.update(samples, groups=4, iteration=1, seed=0)["update/kl"]
    for iteration in range(2, 12):
        last = up.update(samples, groups=4, iteration=iteration, seed=0)["update/kl"]
    assert 0 < last < 0.3 * first
    same = updater(reference=Toy(seed=0), kl={"form": "exact", "coef": 1.0}, minibatches=1)
    assert same.update(samples, groups=4, iteration=1, seed=0)["update/kl"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("where", ["advantage", "logprob"])
def test_a_broken_mini_batch_is_skipped_and_poisons_nothing(where):
    up = updater()
    samples = on_policy(up.model)
    bad = next(s for s in samples if s.group == 2)
    getattr(bad, where)[3] = np.nan
    metrics = up.update(samples, groups=4, iteration=1, seed=0)
    assert metrics["update/skipped"] == 1
    assert torch.isfinite(up.model.table).all()
    assert all(torch.isfinite(t).all() for t in optimizer_tensors(up.optimizer).values())
    assert not torch.equal(up.model.table, Toy().table)  # the other mini-batch was applied
    assert all(math.isfinite(value) for value in metrics.values()), metrics
    warnings, reason = Alarms(AlarmSection(min_entropy=0, max_mismatch=10)).check(metrics)
    assert reason is None  # skipping is a warning until it happens again and again
    assert any("1 mini-batches skipped" in text for text in warnings)
    everything = updater()
    for sample in samples:
        sample.advantage[3] = np.nan
    metrics = everything.update(samples, groups=4, iteration=1, seed=0)
    assert metrics["update/skipped"] == 2
    assert torch.equal(everything.model.table, Toy().table)


def test_learning_rate_warms_up():
    up = updater(lr=0.1, lr_warmup=4)
    assert [up.learning_rate(i) for i in (1, 2, 4, 9)] == pytest.approx([0.025, 0.05, 0.1, 0.1])
    assert updater(lr=0.1, lr_warmup=0).learning_rate(1) == 0.1


# Alarms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("update/entropy", 0.001, 0.5),
        ("rollout/cut_off", 0.99, 0.1),
        ("rollout/invalid_rate", 0.9, 0.1),
        ("update/kl", 6.0, 0.1),
        ("update/mismatch", 0.2, 0.01),
        ("update/skipped", 2.0, 0.0),
    ],
)
def test_each_alarm_warns_then_stops(name, bad, good):
    alarms = Alarms(AlarmSection(patience=3))
    assert alarms.check({name: good}) == ([], None)
    for value in (bad, bad, good, bad, bad):
        warnings, reason = alarms.check({name: value})
        assert reason is None
        assert len(warnings) == (value == bad)
    assert name.split("/")[1] in warnings[0]
    warnings, reason = alarms.check({name: bad})
    assert "3 iterations in a row" in reason
    patient = Alarms(AlarmSection(patience=0))
    if name != "update/skipped":
        assert all(patient.check({name: bad})[1] is None for _ in range(20))


def test_what_is_not_finite_stops_at_once():
    for value in (math.nan, math.inf):
        warnings, reason = Alarms(AlarmSection(patience=0)).check({"update/loss": value, "x": 1.0})
        assert "update/loss not finite" in reason
        assert warnings == [reason]


def test_alarm_limits_are_not_crossed_by_equality_or_absence():
    limits = AlarmSection(max_kl=2.0)
    assert Alarms(limits).check({"update/kl": 2.0}) == ([], None)
    assert Alarms(limits).check({}) == ([], None)


# Checkpoints --------------------------------------------------------------------------------------


@pytest.fixture
def trained(tiny_folder):
    """The tiny model with an optimizer that has a history."""
    policy = TransformersPolicy.load(tiny_folder, device="cpu")
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-2, betas=(0.9, 0.99))
    for seed in (0, 1):
        take_step(policy, optimizer, seed)
    return policy, optimizer


def take_step(policy, optimizer, seed):
    ids = torch.randint(3, 20, (2, 6), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    policy.model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()


def test_continuing_from_a_checkpoint_is_bit_equal(trained, tmp_path):
    policy, optimizer = trained
    save_checkpoint(tmp_path / "checkpoints" / "00002", policy, optimizer, {"iteration": 2})
    again = TransformersPolicy.load(tmp_path / "checkpoints" / "00002", device="cpu")
    other = torch.optim.AdamW(again.model.parameters(), lr=1e-2, betas=(0.9, 0.99))
    load_optimizer(tmp_path / "checkpoints" / "00002", other)
    one, two = optimizer_tensors(optimizer), optimizer_tensors(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one)
    assert any(bool(tensor.any()) for name, tensor in one.items() if name.endswith("exp_avg"))
    for seed in (5, 6):
        take_step(policy, optimizer, seed)
        take_step(again, other, seed)
    for a, b in zip(policy.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_half_written_checkpoints_are_ignored_and_swept(trained, tmp_path):
    policy, optimizer = trained
    run = tmp_path / "run"
    assert latest(run) is None
    save_checkpoint(run / "checkpoints" / "00002", policy, optimizer, {"iteration": 2})
    half = run / "checkpoints" / ".00004.123.tmp"
    half.mkdir()
    (half / "state.json").write_text("{}")
    (run / "checkpoints" / ".state.json.9.tmp").write_text("x")
    (run / "checkpoints" / "00006").mkdir()  # no state: not complete
    (run / "checkpoints" / "notes").mkdir()
    assert list(checkpoint_folders(run)) == [2]
    assert latest(run) == (2, run / "checkpoints" / "00002", {"iteration": 2})
    assert not list((run / "checkpoints").glob(".*"))
    # a failure while writing leaves the old one as it was
    with pytest.raises(TypeError):
        save_checkpoint(run / "checkpoints" / "00002", policy, optimizer, {"iteration": object()})
    assert latest(run)[2] == {"iteration": 2}


def test_broken_checkpoints(trained, tmp_path):
    policy, optimizer = trained
    folder = tmp_path / "checkpoints" / "00002"
    save_checkpoint(folder, policy, optimizer, {})
    small = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="parameters"):
        load_optimizer(folder, torch.optim.AdamW(small.parameters()))
    wide = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(3)) for _ in policy.model.parameters()])
    with pytest.raises(CheckpointError, match="another model"):
        load_optimizer(folder, torch.optim.AdamW(wide.parameters()))
    (folder / "optimizer.safetensors").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors cannot be read"):
        load_optimizer(folder, optimizer)
    (folder / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors is missing"):
        load_optimizer(folder, optimizer)
    for text in ("{", "[1]"):
        (folder / "state.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"state\.json cannot be read"):
            read_state(folder)


def fake_checkpoint(run, iteration, **state):
    folder = run / "checkpoints" / f"{iteration:05d}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    for iteration in (2, 4, 6, 8, 10):
        fake_checkpoint(tmp_path, iteration)
    prune(tmp_path, 2, best=4)
    assert list(checkpoint_folders(tmp_path)) == [4, 8, 10]
    prune(tmp_path, 1, best=None)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00010"]


def test_find_model(tmp_path):
    with pytest.raises(CheckpointError, match="No folder"):
        find_model(tmp_path / "nothing")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(CheckpointError, match="holds no model"):
        find_model(run)
    folders = {i: fake_checkpoint(run, i, best_iteration=4) for i in (2, 4, 10)}
    assert find_model(run) == folders[10]  # 10 is newer than 4, whatever the alphabet says
    assert find_model(run, "best") == folders[4]
    assert find_model(run, "2") == find_model(run, "00002") == folders[2]
    assert find_model(folders[2], "best") == folders[2]  # a model folder is itself
    with pytest.raises(CheckpointError, match="no checkpoint '3'; it has 2, 4, 10"):
        find_model(run, "3")
    with pytest.raises(CheckpointError, match="does not know its warm start"):
        find_model(run, "warm-start")
    warm = tmp_path / "warm"
    (warm / "model").mkdir(parents=True)
    (warm / "model" / "config.json").write_text("{}")
    (run / "config.yaml").write_text(yaml.safe_dump({"train": {"init": str(warm)}}))
    assert find_model(run, "warm-start") == warm / "model"
    assert find_model(warm) == warm / "model"
    unknown = tmp_path / "unknown"
    fake_checkpoint(unknown, 3, best_iteration=None)
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        find_model(unknown, "best")


def test_a_hub_name_is_not_a_folder(tmp_path, monkeypatch):
    """The "no warmup" ablation starts from a published model. HF_HUB_OFFLINE is set."""
    monkeypatch.chdir(tmp_path)
    assert start_model("Qwen/Qwen3-0.6B") == Path("Qwen/Qwen3-0.6B")
    for name in ("./nowhere", "/nowhere", "nowhere", "runs/warm/model"):
        with pytest.raises(CheckpointError, match=f"No folder {name}"):
            start_model(name)
    run = tmp_path / "run"
    fake_checkpoint(run, 3)
    (run / "config.yaml").write_text(yaml.safe_dump({"train": {"init": "nobody/has-this"}}))
    assert find_model(run, "warm-start") == Path("nobody/has-this")
    Path("nobody/has-this").mkdir(parents=True)  # a folder of that name comes first
    with pytest.raises(CheckpointError, match="holds no model"):
        start_model("nobody/has-this")
    with pytest.raises(CheckpointError, match="Cannot load a causal LM from nobody/has-that"):
        RLRun(load_config(None, ["train.init=nobody/has-that"]), tmp_path / "out")


def test_initial_model_is_built_whole_or_not_at_all(tmp_path, monkeypatch):
    from repro_rl import make
    from repro_rl.train import build

    config = load_config(
        None,
        [
            "env.settings={train_rooms: 2, validation_rooms: 1, test_rooms: 1}",
            "prompt={resolution: 10}",
            "policy={}",
        ],
    )
    env = make("sokoban", **config.env.settings)

    def killed(folder, words, size, seed):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    whole = build.build_tiny
    monkeypatch.setattr(build, "build_tiny", killed)
    with pytest.raises(KeyboardInterrupt):
        initial_model(config, env, (), tmp_path / "initial")
    monkeypatch.setattr(build, "build_tiny", whole)
    folder = initial_model(config, env, (), tmp_path / "initial")
    policy = TransformersPolicy.load(folder, device="cpu")
    for word in ("left", "p50", "t15", "reflect", *env.vocabulary()):
        assert policy.decode(policy.encode(word)) == word
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert initial_model(config, env, (), folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


# Run folders --------------------------------------------------------------------------------------


def test_metrics_log_drops_half_lines_and_what_comes_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1, "a": 0.5}\n{"iteration": 2}\n{"iteration": 3}\n{"iterat')
    log = MetricsLog(tmp_path, 2)
    assert [row["iteration"] for row in log.rows] == [1, 2]
    log.add({"iteration": 3, "new": True})
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"iteration": 1, "a": 0.5},
        {"iteration": 2},
        {"iteration": 3, "new": True},
    ]
    MetricsLog(tmp_path, 0)
    assert path.read_text() == ""
    fresh = MetricsLog(tmp_path / "new", 5)
    fresh.add({"iteration": 1})
    assert (tmp_path / "new" / "metrics.jsonl").read_text() == '{"iteration": 1}\n'


def test_open_run_refuses_other_settings(tmp_path):
    base = ["train={lr: 5e-4}", "env.settings={style: relative}"]
    config = load_config(None, base)
    assert open_run(tmp_path, config) is False
    assert open_run(tmp_path, config) is True
    changed = load_config(None, [*base, "train.lr=1e-3", "env.settings.max_steps=20", "train.iterations=99"])
    with pytest.raises(ConfigError) as caught:
        open_run(tmp_path, changed, free=FREE_ON_CONTINUE)
    text = str(caught.value)
    assert "train.lr: 0.0005 there, 0.001 now" in text
    assert "env.settings.max_steps: None there, 20 now" in text
    assert "iterations" not in text
    more = load_config(None, [*base, "train.iterations=99", "alarms.patience=0", "train.keep=7"])
    assert open_run(tmp_path, more, free=FREE_ON_CONTINUE) is True
    assert parse_config(yaml.safe_load((tmp_path / "config.yaml").read_text())) == more
    with pytest.raises(ConfigError, match=r"train\.iterations"):
        open_run(tmp_path, config)


def test_opening_a_run_sweeps_half_written_files(tmp_path):
    left = [
        tmp_path / name for name in (".metrics.jsonl.9.tmp", "trajectories/.a.gz.9.tmp", "eval/.b.json.9.tmp")
    ]
    kept = [tmp_path / name for name in ("metrics.jsonl", "trajectories/a.gz", "eval/b.json")]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (tmp_path / ".initial.9.tmp").mkdir()
    open_run(tmp_path, load_config(None))
    assert not any(path.exists() for path in (*left, tmp_path / ".initial.9.tmp"))
    assert all(path.exists() for path in kept)


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_manifest_is_kept(tmp_path):
    first = {"started": "a", "git": None, "versions": {}, "seed": 1}
    write_manifest(tmp_path, first)
    write_manifest(tmp_path, first | {"started": "b", "seed": 2})
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["started"] == "a"
    assert content["seed"] == 1
    assert content["continued"] == [{"started": "b", "git": None, "versions": {}}]


# Warmup parts -------------------------------------------------------------------------------------


def test_demonstrations_without_labels_are_named(warm):
    from repro_rl.demos import load_demos
    from repro_rl.train.build import build_pool, load_policy
    from repro_rl.train.warmup import warmup_data

    config = load_config(None, warm.settings)
    experts, labelled = load_demos(warm.demos)
    policy = load_policy(config, warm.model)
    data = warmup_data(config, policy, build_pool(config), experts, labelled)
    steps = sum(len(t.steps) for t in experts)
    assert len(data.forward) == 2 * steps  # action prompts and progress prompts
    assert len(data.won) == 8 + 16
    assert len(data.lost) == 48
    for row in data.forward:
        target = policy.decode(tuple(row.ids[row.trained].tolist()))
        asked = policy.decode(tuple(row.ids[~row.trained].tolist())).split()[-1]
        assert (target[0] == "p" and len(target.split()) == 2) == (asked == "progress")
        assert row.ids[-1] == 1
    short = load_config(None, [*warm.settings, "prompt.action_tokens=2"])
    with pytest.raises(PreflightError, match=r"prompt\.action_tokens is 2"):
        warmup_data(short, policy, build_pool(config), experts, [])
    labelled[3].reflection = None
    with pytest.raises(DataError, match="0 labels for"):
        warmup_data(config, policy, build_pool(config), experts, labelled)


def test_warmup_learns_both_kinds(warm):
    assert [row["iteration"] for row in warm.rows] == list(range(1, 101))
    for name in ("warmup/forward_loss", "warmup/reflect_loss"):
        assert warm.rows[-1][name] < 0.3 * warm.rows[0][name]
        assert 3 < warm.rows[0][name] < 6  # untrained: about uniform over some 90 words, ln 90 = 4.5


# Settings -----------------------------------------------------------------------------------------


def test_unknown_keys_name_the_nearest():
    for override, message in (
        ("trian.lr=1", r"Unknown setting 'trian'; did you mean 'train'"),
        ("train.lrr=1", r"Unknown setting 'train\.lrr'; did you mean 'lr'"),
        ("train.kl.coeff=1", r"Unknown setting 'train\.kl\.coeff'; did you mean 'coef'"),
        ("policy.tiny.hiden=1", r"Unknown setting 'policy\.tiny\.hiden'; did you mean 'hidden'"),
        ("method=gigop", r"Unknown method 'gigop'; did you mean 'gigpo'"),
        ("method.gama=1", r"Unknown setting 'method\.gama'; did you mean 'gamma'"),
        ("method.shaping=linar", r"method\.shaping is 'linar'; did you mean 'linear'"),
        ("method.credit=gigop", r"Unknown credit rule 'gigop'; did you mean 'gigpo'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(None, [override])
    with pytest.raises(ConfigError, match="Unknown recipe 'sokoban-tinny'; did you mean 'sokoban-tiny'"):
        load_config("sokoban-tinny")


def test_wrong_types_and_ranges_name_the_setting():
    for override, message in (
        ("train.lr=fast", r"train\.lr: .*number.*'fast'"),
        ("train.groups=2.5", r"train\.groups: .*integer.*2\.5"),
        ("train.lr=0", r"train\.lr: .*greater than 0"),
        ("train=5", r"train: .*got 5"),
        ("method.shaping=magic", r"method\.shaping is 'magic'.*oracle"),
        ("train.kl.form=k9", r"train\.kl\.form"),
        ("train.groups.x=1", "groups is a value, not a section|train"),
        ("demos.noise=[0.5, much]", r"demos\.noise\.1"),
        ("nothing", "not of the form section.key=value"),
        ("=3", "not of the form"),
        ("train.lr=[1", "the value is not YAML"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(None, [override])


def test_overrides():
    config = load_config(
        None,
        [
            "env.settings={style: relative}",
            "train.lr=1e-3",
            "train.betas=[0.8, 0.95]",
            "demos.noise=[1e-1, 0.5]",
            "method=gigpo",
            "method.gamma=0.9",
            "env.settings.boxes=2",
            "eval.temperature=0",
            "train.init=runs/warm/model",
            "policy.thinking=true",
            "warmup.target_success=null",
        ],
    )
    assert config.train.lr == 1e-3
    assert config.train.betas == (0.8, 0.95)
    assert config.demos.noise == (0.1, 0.5)
    assert (config.method.name, config.method.gamma, config.method.reflect) == ("gigpo", 0.9, False)
    assert config.env.settings == {"style": "relative", "boxes": 2}  # the other setting stays
    assert config.eval.temperature == 0
    assert config.train.init == "runs/warm/model"
    assert config.policy.thinking is True
    assert load_config(None).method.name == "repro"
    assert load_config(None).method.shaping == "retrospective"
    assert load_config(None, ["method.name=oracle"]).method.shaping == "oracle"


def test_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 4\nmethod: gigpo\ntrain: {lr: 5e-4}\n")
    config = load_config(path, ["method.gamma=0.9"])
    assert (config.seed, config.method.name, config.method.gamma, config.train.lr) == (4, "gigpo", 0.9, 5e-4)
    path.write_text("")
    assert load_config(path).method.name == "repro"
    for text, message in (("- a\n", "must hold sections"), ("a: [", "is not YAML"), ("train:\n", "train")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config(path)
    with pytest.raises(ConfigError, match="No config file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_parses(name):
    assert isinstance(load_config(name), RunConfig)


@pytest.mark.parametrize("name", METHODS.names())
def test_dump_and_parse_round_trip(name):
    more = ["method.beta=0.3", "prompt.template_dir=/x", "train.lr=1e-5"]
    config = load_config(None, [f"method={name}", *more])
    text = dump_config(config)
    again = parse_config(yaml.safe_load(text))
    assert again == config
    assert dump_config(again) == text
    assert again.method.beta == 0.3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.reflect=false"], "'retrospective' needs method.reflect"),
        (["method=gigpo", "method.shaping=retrospective"], "'retrospective' needs method.reflect"),
        (["method=gigpo", "method.alignment=oracle"], "need method.progress"),
        (["method=gigpo", "method.shaping=online"], "need method.progress"),
        (["method.judge_temperature=0.4", "method.reflect_share=1"], "or method.reflect_share below 1"),
        (
            ["train={groups: 6, minibatches: 4}"],
            r"groups \(6\) must be a multiple of train.minibatches \(4\)",
        ),
    ],
)
def test_contradictions(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


def test_samples_are_samples():
    sample = sample_of([1, 2], 1, 1.0, -1.0)
    assert isinstance(sample, Sample)
