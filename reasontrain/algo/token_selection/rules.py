"""The union of selection rules; to add a rule, add one file and one name here."""

from __future__ import annotations

from reasontrain.algo.token_selection.advantage_entropy import AdvantageEntropy
from reasontrain.algo.token_selection.all_tokens import AllTokens
from reasontrain.algo.token_selection.contrast import Contrast
from reasontrain.algo.token_selection.prior import Prior
from reasontrain.algo.token_selection.random import Random
from reasontrain.algo.token_selection.rho1 import Rho1
from reasontrain.algo.token_selection.sstoken import SsToken
from reasontrain.algo.token_selection.tip import Tip
from reasontrain.algo.token_selection.top_entropy import TopEntropy

SelectionRule = (
    AllTokens | Random | TopEntropy | Tip | AdvantageEntropy | SsToken | Prior | Rho1 | Contrast
)
