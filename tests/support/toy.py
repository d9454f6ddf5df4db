"""A float64 toy language model, samples for it, and the objective worked one token at a time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from repro_rl.config import KlSection, TrainSection
from repro_rl.rollout.samples import TrainedPart, make_sample
from repro_rl.train import Collation, LossSettings, TrainedModel, Updater, policy_loss, reference_values
from repro_rl.types import Completion, TokenKind

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

    @property
    def shape(self):
        return self.tensor.shape

    def float(self):
        return self.tensor

    def __getitem__(self, cells):
        return Wide(self.tensor[cells])


SCALES = {TokenKind.ACT: 0.01, TokenKind.REFLECT: 0.03}


def sample_of(ids, prompt, advantage, logprob, kind=TokenKind.ACT, group=0):
    """A sample of ``ids``, the first ``prompt`` of them context; values of each trained token, or of all."""
    count = len(ids) - prompt
    completion = Completion(
        tuple(ids[:prompt]), tuple(ids[prompt:]), np.broadcast_to(np.float32(logprob), count), "", True
    )
    return make_sample([TrainedPart(completion, advantage, kind)], group)


def logp_of(model, ids, temperature=1.0):
    """Log-distributions [L, V] of the next token after each of ``ids``."""
    logits = model(torch.tensor([list(ids)])).logits.float()[0]
    return torch.log_softmax(logits / temperature, dim=-1)


def reference_loss(model, samples, scales, *, clip=0.2, kl_coef=0.0, entropy_coef=0.0, reference=None,
                   temperature=1.0):  # fmt: skip
    """PPO-clip as in the paper, one sample and one token at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for sample in samples:
        logp = logp_of(model, sample.ids, temperature)
        for index in range(1, len(sample.ids)):
            if not sample.trained[index]:
                continue
            row, token = logp[index - 1], int(sample.ids[index])
            ratio = torch.exp(row[token] - float(sample.logprob[index]))
            advantage = float(sample.advantage[index])
            term = -torch.minimum(ratio * advantage, torch.clamp(ratio, 1 - clip, 1 + clip) * advantage)
            term = term + entropy_coef * (row.exp() * row).sum()
            if kl_coef:
                other = logp_of(reference, sample.ids, temperature)[index - 1].detach()
                term = term + kl_coef * sum(row[v].exp() * (row[v] - other[v]) for v in range(VOCABULARY))
            total = total + scales[TokenKind(sample.kind[index])] * term
    return total


def our_loss(model, rows, scales, *, kl="none", kl_coef=0.0, entropy_coef=0.0, reference=None,
             temperature=1.0, max_cells=10**6):  # fmt: skip
    """The terms of every micro-batch."""
    options = LossSettings(0.2, KlSection(form=kl, coef=kl_coef, clamp=10.0), entropy_coef, temperature)
    collation = Collation(0, CPU)
    terms = []
    for chunk in collation.split(rows, max_cells):
        batch = collation.collate(chunk, scales)
        if reference is not None:
            batch = replace(batch, reference=reference_values(reference, batch, kl, temperature).detach())
        terms.append(policy_loss(model, batch, options))
    return terms


def gradient(model, loss):
    """The gradient of ``loss`` alone."""
    model.zero_grad()
    loss.backward()
    return model.table.grad.clone()


def grouped_samples(seed=0, copies=5):
    """Duplicates with advantages of both signs and ratios far beyond the clip on both sides."""
    rng = np.random.default_rng(seed)
    model = Toy()
    samples = []
    for kind in (TokenKind.ACT, TokenKind.REFLECT):
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
        for index in np.flatnonzero(sample.trained):
            sample.logprob[index] = float(logp[index - 1, sample.ids[index]]) - shift
    order = rng.permutation(len(samples))
    return model, [samples[i] for i in order]


def updater(seed=0, reference=None, **train):
    """An updater of a toy, on-policy but for what ``train`` says."""
    options = {"groups": 4, "minibatches": 2, "epochs": 1, "lr": 0.1, "lr_warmup": 0, "kl": {"form": "none"}}
    section = TrainSection(**options | train)
    return Updater(TrainedModel(Toy(seed), reference, pad_id=0), section, 1.0)


def on_policy(model, groups=4, seed=0, temperature=1.0):
    """Six samples a group, with the log-probs of ``model`` at ``temperature``."""
    rng = np.random.default_rng(seed)
    samples = []
    for group in range(groups):
        for _ in range(6):
            ids = rng.integers(1, 4, 5)
            with torch.no_grad():
                logp = logp_of(model, ids, temperature)
            old = [float(logp[i - 1, ids[i]]) for i in range(2, 5)]
            samples.append(sample_of(ids, 2, rng.normal(), old, TokenKind(rng.integers(1, 3)), group))
    return samples
