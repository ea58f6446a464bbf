"""Environments, which answer the policy between its turns: the protocol, a calculator, and the
user's own in worker processes.
"""

from __future__ import annotations

from reasontrain.environments.protocol import Environment, EpisodeCall, StepResult
from reasontrain.environments.runner import EnvironmentRunner, Runners

__all__ = ["Environment", "EnvironmentRunner", "EpisodeCall", "Runners", "StepResult"]
