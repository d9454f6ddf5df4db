"""Chat mode: turns as ids, the cache between turns, room, packed samples, and a small whole run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro_rl import make
from repro_rl.config import load_config
from repro_rl.demos import load_demos
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.policy import SamplingSettings, TransformersPolicy, build_tiny
from repro_rl.policy.chat import TokenChat, open_chat
from repro_rl.policy.chat_cache import CachedChat
from repro_rl.policy.http.chat import MessageChat
from repro_rl.policy.http.client import Failure, Question
from repro_rl.policy.http.answers import Answer
from repro_rl.policy.qwen_tokenizer import build_tokenizer
from repro_rl.policy.tiny import TinySize
from repro_rl.policy.turns import Conversation, Turns
from repro_rl.rollout import EnvPool, Job
from repro_rl.rollout.chat import ChatRoom, chat_metrics, conversation_of, fitting_question, run_chats
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.text.chat import ChatPrompts
from repro_rl.text.parse import parse_forward
from repro_rl.train.batch import collate, merge, trained_tokens
from repro_rl.train.chat_warmup import ChatDemos
from repro_rl.train.contexts import check_context
from repro_rl.train.loop import RLRun, credit_groups, run_training
from repro_rl.train.loss import pick, policy_loss, token_logits
from repro_rl.train.packed import build_packed, pack
from repro_rl.train.samples import build_samples
from repro_rl.train.warmup import run_warmup, warmup_data
from repro_rl.types import Completion, Group, Reflection, Sample, Step, Trajectory

CPU = torch.device("cpu")
OPEN, END = "<|im_start|>assistant\n", "<|im_end|>\n"
